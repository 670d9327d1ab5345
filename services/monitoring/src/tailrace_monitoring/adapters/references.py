"""References from the object store, kept in memory by digest."""

from __future__ import annotations

from tailrace_contracts.events import ClaimCheck
from tailrace_monitoring.domain.yardsticks import Basis
from tailrace_monitoring.ports import ReferenceUnusable
from tailrace_runtime.errors import ArtefactCorrupt, ObjectMissing
from tailrace_runtime.objects import ObjectStore
from tailrace_statistics.reference import Reference, ReferenceInvalid

KEPT = 32


class StoredReferences:
    """Reads each reference once; the digest names its content, so it never changes."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._kept: dict[str, Basis] = {}

    async def basis(self, claim: ClaimCheck) -> Basis:
        """The statistics of every column, and rows for calibration."""
        known = self._kept.get(claim.sha256)
        if known is None:
            known = await self._read(claim)
            self._kept[claim.sha256] = known
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return known

    async def _read(self, claim: ClaimCheck) -> Basis:
        try:
            reference = Reference.from_bytes(await self._objects.get_artefact(claim))
            return Basis(claim.sha256, reference.columns, reference.row_columns())
        except (ArtefactCorrupt, ObjectMissing, ReferenceInvalid) as error:
            raise ReferenceUnusable(str(error)) from error
