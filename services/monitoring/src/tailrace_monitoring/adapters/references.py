"""References from the object store, kept in memory by digest."""

from __future__ import annotations

from tailrace_contracts.events import ClaimCheck
from tailrace_monitoring.domain.yardsticks import Answers, Basis, Labels
from tailrace_monitoring.ports import ReferenceUnusable
from tailrace_runtime.errors import ArtefactCorrupt, ObjectMissing
from tailrace_runtime.objects import ObjectStore
from tailrace_statistics.reference import Reference, ReferenceInvalid

KEPT = 32


class StoredReferences:
    """Reads each reference once; the digest names its content, so it never changes."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._kept: dict[tuple[str, int], Basis] = {}

    async def basis(self, claim: ClaimCheck, version: int) -> Basis:
        """The statistics of every column, rows for calibration, and what the version answered."""
        known = self._kept.get((claim.sha256, version))
        if known is None:
            known = self._kept[claim.sha256, version] = await self._read(claim, version)
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return known

    async def _read(self, claim: ClaimCheck, version: int) -> Basis:
        try:
            reference = Reference.from_bytes(await self._objects.get_artefact(claim))
            column = reference.label_column
            labels = None if column is None else Labels(column, reference.label_values())
            basis = Basis(claim.sha256, reference.columns, reference.row_columns(), labels=labels)
            if not reference.answers:
                return basis
            return basis._replace(answers=Answers(version, reference.answers, reference.answer_columns()))
        except (ArtefactCorrupt, ObjectMissing, ReferenceInvalid) as error:
            raise ReferenceUnusable(str(error)) from error
