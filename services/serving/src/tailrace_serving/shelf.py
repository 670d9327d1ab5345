"""Many models in one process: loaded when they are deployed, put away when memory is short, brought back when asked.

Every artefact is loaded once when it is deployed, so that a bad one is known before anybody asks it. What is loaded is
bounded in bytes: to make room, the model that was asked least recently is put away, never one that is answering. The
next question to it loads it again and waits for that, and so do the questions that come meanwhile; all others go on.
When every model is in use there is no room to make, and the bound gives way rather than a request.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from weakref import WeakSet

from tailrace_contracts.events import ClaimCheck, FeatureValue
from tailrace_contracts.spec import ModelSpec
from tailrace_models import Reference
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed, Predictor, ReferenceOf
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.ports import Artefacts, ArtefactUnusable, Meter

OVERHEAD_BYTES = 300_000
"""Of a loaded model, beside its bytes: a session or a pipeline, and the rules around it (docs/benchmarks.md)."""

BYTES_HELD = 2
"""A loaded model holds its artefact's bytes about so many times over."""


class Shelf:
    """Artefacts with a bound on what is loaded at once."""

    def __init__(self, artefacts: Artefacts, max_bytes: int, meter: Meter) -> None:
        self._artefacts = artefacts
        self._max_bytes = max_bytes
        self._meter = meter
        self._known: WeakSet[Shelved] = WeakSet()
        self._turn = itertools.count()

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Shelved:
        """The model behind a claim check, which may be put away later. Raises ArtefactUnusable."""
        made = Shelved(self, claim, spec)
        self._known.add(made)
        await self.bring(made)
        return made

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The rows behind a claim check. Raises ArtefactUnusable."""
        return await self._artefacts.reference(claim)

    async def bring(self, shelved: Shelved) -> None:
        """Load it, and make room for it. Raises ArtefactUnusable."""
        self._make_room(shelved.size_bytes)
        shelved.predictor = await self._artefacts.load(shelved.claim, shelved.spec)
        self.touch(shelved)
        self._tell()

    def touch(self, shelved: Shelved) -> None:
        """It is asked now."""
        shelved.asked_at = next(self._turn)

    def _make_room(self, size_bytes: int) -> None:
        loaded = sorted((each for each in self._known if each.predictor is not None), key=lambda each: each.asked_at)
        held = sum(each.size_bytes for each in loaded)
        for each in loaded:
            if held + size_bytes <= self._max_bytes:
                return
            if not each.in_use:
                each.predictor = None
                held -= each.size_bytes
                self._meter.count("tailrace_models_put_away_total")

    def _tell(self) -> None:
        self._meter.gauge("tailrace_models_loaded", sum(each.predictor is not None for each in self._known))


class Shelved:
    """A model that is loaded or put away; asked, it is loaded."""

    def __init__(self, shelf: Shelf, claim: ClaimCheck, spec: ModelSpec) -> None:
        self.claim = claim
        self.spec = spec
        self.predictor: Predictor | None = None
        self.asked_at = 0
        self.in_use = 0
        self._shelf = shelf
        self._loading: asyncio.Lock | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes while it is loaded, about."""
        return OVERHEAD_BYTES + BYTES_HELD * self.claim.size_bytes

    async def predict(self, rows: Sequence[Mapping[str, FeatureValue]], *, alone: bool = False) -> Sequence[ArmAnswer]:
        """One answer for each row. Raises ArmFailed, also when it cannot be brought back."""
        self.in_use += 1
        try:
            predictor = self.predictor or await self._brought()
            self._shelf.touch(self)
            return await predictor.predict(rows, alone=alone)
        finally:
            self.in_use -= 1

    async def explain(self, asked: ToExplain, reference: ReferenceOf) -> Explanation:
        """Why it answers this row so. Raises ArmFailed or Refused."""
        self.in_use += 1
        try:
            predictor = self.predictor or await self._brought()
            self._shelf.touch(self)
            return await predictor.explain(asked, reference)
        finally:
            self.in_use -= 1

    async def _brought(self) -> Predictor:
        if self._loading is None:
            self._loading = asyncio.Lock()
        async with self._loading:
            if self.predictor is None:
                try:
                    await self._shelf.bring(self)
                except ArtefactUnusable as unusable:
                    raise ArmFailed(f"it was put away and cannot be loaded again: {unusable}") from unusable
            assert self.predictor is not None  # noqa: S101  # in use: nobody puts it away
            return self.predictor
