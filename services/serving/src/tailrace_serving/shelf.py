"""Many models in one process: loaded when they are deployed, put away when memory is short, brought back when asked.

A new version or revision is loaded when it is deployed, so that a bad one is known, and a good one warm, before anybody
asks it. What is loaded is bounded in bytes: to make room, the model that was asked least recently is put away, never one
that is answering. The next question to it loads it again and waits for that, and so do the questions that come
meanwhile; all others go on. Models come back one after the other, so that a burst of questions to many of them makes
room as it goes. When every model is in use there is no room to make, and the bound gives way rather than a request.

At the start of a process nothing has been asked yet: what finds no room among the models that came before it is
`put away from the beginning` (`WhileRoom`), as loading it would only put away another that nobody has asked (ADR 51).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from weakref import WeakSet

import structlog

from tailrace_contracts.events import ClaimCheck, FeatureValue
from tailrace_contracts.spec import ModelSpec
from tailrace_models import Reference
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed, Predictor, ReferenceOf
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.ports import Artefacts, ArtefactUnusable, Meter

log = structlog.get_logger(__name__)

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
        self._returning = asyncio.Lock()

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Shelved:
        """The model behind a claim check, which may be put away later. Raises ArtefactUnusable."""
        made = self.cold(claim, spec)
        await self._bring(made)
        return made

    def cold(self, claim: ClaimCheck, spec: ModelSpec) -> Shelved:
        """The same, put away from the beginning: its first question loads it."""
        made = Shelved(self, claim, spec)
        self._known.add(made)
        return made

    def has_room(self, claim: ClaimCheck) -> bool:
        """Whether it could be loaded beside all that is loaded."""
        return self._held() + size_of(claim) <= self._max_bytes

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The rows behind a claim check. Raises ArtefactUnusable."""
        return await self._artefacts.reference(claim)

    async def bring_back(self, shelved: Shelved) -> Predictor:
        """Load what was put away, one after the other. Raises ArmFailed."""
        async with self._returning:
            try:
                return await self._bring(shelved)
            except ArtefactUnusable as unusable:
                self._meter.count("tailrace_artefact_failures_total", model=shelved.spec.model)
                raise ArmFailed(f"it was put away and cannot be loaded: {unusable}") from unusable

    def touch(self, shelved: Shelved) -> None:
        """It is asked now."""
        shelved.asked_at = next(self._turn)

    async def _bring(self, shelved: Shelved) -> Predictor:
        self._make_room(shelved.size_bytes)
        shelved.coming = True
        try:
            shelved.predictor = predictor = await self._artefacts.load(shelved.claim, shelved.spec)
        finally:
            shelved.coming = False
        self.touch(shelved)
        self._tell()
        return predictor

    def _held(self) -> int:
        return sum(each.size_bytes for each in self._known if each.predictor is not None or each.coming)

    def _make_room(self, size_bytes: int) -> None:
        held = self._held()
        loaded = sorted((each for each in self._known if each.predictor is not None), key=lambda each: each.asked_at)
        for each in loaded:
            if held + size_bytes <= self._max_bytes:
                return
            if not each.in_use:
                each.predictor = None
                held -= each.size_bytes
                self._meter.count("tailrace_models_put_away_total")

    def _tell(self) -> None:
        self._meter.gauge("tailrace_models_loaded", sum(each.predictor is not None for each in self._known))


class WhileRoom:
    """Artefacts at the start of a process: loaded while there is room for them, the others when they are asked."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Shelved:
        """The model behind a claim check, loaded or put away. Raises ArtefactUnusable where it is loaded."""
        if self._shelf.has_room(claim):
            return await self._shelf.load(claim, spec)
        log.info("no room to load it before it is asked", model=spec.model, artefact=claim.sha256[:12])
        return self._shelf.cold(claim, spec)

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The rows behind a claim check. Raises ArtefactUnusable."""
        return await self._shelf.reference(claim)


class Shelved:
    """A model that is loaded or put away; asked, it is loaded."""

    def __init__(self, shelf: Shelf, claim: ClaimCheck, spec: ModelSpec) -> None:
        self.claim = claim
        self.spec = spec
        self.predictor: Predictor | None = None
        self.coming = False
        self.asked_at = 0
        self.in_use = 0
        self._shelf = shelf
        self._returning: asyncio.Task[Predictor] | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes while it is loaded, about."""
        return size_of(self.claim)

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
        """Wait for it, together with all who ask meanwhile; whoever gives up leaves the others waiting."""
        if self._returning is None:
            self._returning = asyncio.create_task(self._shelf.bring_back(self), name="serving-bring-back")
            self._returning.add_done_callback(self._returned)
        return await asyncio.shield(self._returning)

    def _returned(self, task: asyncio.Task[Predictor]) -> None:
        self._returning = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; when all have given up, nobody is to be told


def size_of(claim: ClaimCheck) -> int:
    """What a model takes while it is loaded, about, in bytes."""
    return OVERHEAD_BYTES + BYTES_HELD * claim.size_bytes
