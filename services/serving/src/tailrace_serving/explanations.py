"""Explanations of answered rows: for those who ask, and for the live predictions that are drawn.

    answered row → the version that answered it → its reference → what each feature contributed

One explanation is made at a time for those who wait for it, and one beside it for those who do not, so that they never
take more than a step each from the answers. Which live predictions are explained, the spec says as a share and a hash of the
prediction id decides. They wait here, bounded in number and in time, behind the response path; what finds no room, or
is not explained in time, is published as it is and counted (`tailrace_explanations_total`): the event never waits long,
and no request does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from tailrace_serving.domain.arms import ArmFailed, Loaded, Reference
from tailrace_serving.domain.buffer import Captured
from tailrace_serving.domain.explanation import Explanation, ToExplain, drawn, seed_of
from tailrace_serving.domain.prediction_event import Output
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.handlers import Inference, captured
from tailrace_serving.ports import Artefacts, ArtefactUnusable, Meter

log = structlog.get_logger(__name__)

REST = 9.0
"""Explaining live predictions rests so many times as long as it works: it takes a tenth of the event loop at most."""

REFERENCES = 64
"""Rows of so many versions are kept, the least recently used forgotten first."""


class Explanations:
    """Explains answered rows by the versions that answered them."""

    def __init__(self, artefacts: Artefacts, meter: Meter, *, max_mixed_rows: int, live_seconds: float) -> None:
        self._artefacts = artefacts
        self._meter = meter
        self._max_mixed_rows = max_mixed_rows
        self.live_seconds = live_seconds
        self._references: OrderedDict[str, Reference] = OrderedDict()
        self._turn = asyncio.Lock()
        self._behind = asyncio.Lock()
        self._told: set[tuple[str, str]] = set()

    async def asked(self, inferences: Sequence[Inference], permutations: int) -> list[Explanation]:
        """What a request asks for, row by row. Raises Refused or ArmFailed."""
        most = self._max_mixed_rows // len(inferences)
        async with self._turn:
            found = [await self._of(each, permutations, most) for each in inferences]
        self._count(inferences[0], "asked", len(found))
        return found

    async def _of(self, inference: Inference, permutations: int, most_rows: int, rest: float = 0.0) -> Explanation:
        loaded = inference.served.loaded
        seed = seed_of(inference.arms.model, loaded.label, inference.prediction_id)
        asked = ToExplain(inference.row.seen, permutations, seed, most_rows, rest)
        return await loaded.predictor.explain(asked, lambda: self._reference(loaded))

    async def _reference(self, loaded: Loaded) -> Reference | None:
        claim = loaded.reference
        if claim is None:
            return None
        if claim.sha256 not in self._references:
            try:
                self._references[claim.sha256] = await self._artefacts.reference(claim)
            except ArtefactUnusable as unusable:
                raise ArmFailed(f"its reference cannot be read: {unusable}") from unusable
        self._references.move_to_end(claim.sha256)
        while len(self._references) > REFERENCES:
            self._references.popitem(last=False)
        return self._references[claim.sha256]

    # ------------------------------------------------------------ live predictions

    async def of_drawn(self, inferences: Sequence[Inference]) -> list[Inference]:
        """The same, those that are drawn with their explanation, as far as the time allows; their events wait for it."""
        if inferences[0].arms.spec.serving.explanations.sample <= 0:
            return list(inferences)
        due = asyncio.get_running_loop().time() + self.live_seconds
        return [await self.in_time(each, due) if is_drawn(each) else each for each in inferences]

    async def in_time(self, inference: Inference, due: float, rest: float = 0.0) -> Inference:
        """The same with its explanation, or without one where there is none by then; either is counted."""
        if inference.explanation is not None:
            return inference
        usual = inference.arms.spec.serving.explanations.permutations
        try:
            async with asyncio.timeout_at(due), self._behind if rest else self._turn:
                found = await self._of(inference, usual, self._max_mixed_rows, rest)
        except TimeoutError:
            self.shed(inference)
            return inference
        except (Refused, ArmFailed) as failure:
            self._count(inference, "failed")
            self._tell(inference, str(failure))
            return inference
        self._count(inference, "live")
        return inference._replace(explanation=found)

    def shed(self, inference: Inference) -> None:
        """A drawn prediction goes without its explanation, because too many wait, or too long."""
        self._count(inference, "shed")

    def _count(self, inference: Inference, outcome: str, amount: int = 1) -> None:
        self._meter.count("tailrace_explanations_total", amount, model=inference.arms.model, outcome=outcome)

    def _tell(self, inference: Inference, reason: str) -> None:
        """Once for each version: why its predictions are not explained."""
        which = inference.arms.model, inference.served.loaded.label
        if which not in self._told:
            self._told = {which} if len(self._told) >= REFERENCES else {*self._told, which}
            log.warning("live predictions are not explained", model=which[0], version=which[1], reason=reason)


def is_drawn(inference: Inference) -> bool:
    """Whether the prediction is in its model's sample."""
    share = inference.arms.spec.serving.explanations.sample
    return share > 0 and drawn(inference.arms.model, inference.prediction_id, share)


class _Waiting(NamedTuple):
    inference: Inference
    shadows: Sequence[Output]
    due: float


class LiveExplanations:
    """Drawn predictions on their way to their events, explained one after the other."""

    def __init__(self, explanations: Explanations, offer: Callable[[Captured], None], max_waiting: int) -> None:
        self._explanations = explanations
        self._offer = offer
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._stopped = False

    def take(self, inference: Inference, shadows: Sequence[Output] = ()) -> bool:
        """Take a prediction that is drawn; False says that its event is to be published as it is."""
        if inference.explanation is not None or not is_drawn(inference):
            return False
        if self._stopped or len(self._waiting) >= self._max_waiting:
            self._explanations.shed(inference)
            return False
        due = asyncio.get_running_loop().time() + self._explanations.live_seconds
        self._waiting.append(_Waiting(inference, shadows, due))
        self._arrived.set()
        return True

    def pass_by(self, inference: Inference) -> None:
        """A prediction is published at once, because too many rows are pending; drawn, it goes without and is counted."""
        if is_drawn(inference):
            self._explanations.shed(inference)

    async def run(self) -> None:
        """Explain what waits, the oldest first, until cancelled."""
        self._stopped = False
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            first = self._waiting[0]  # it stays until it is offered: whatever stops this, it is not lost
            inference = await self._explanations.in_time(first.inference, first.due, REST)
            self._waiting.popleft()
            self._offer(captured(inference, first.shadows))

    def stop(self) -> None:
        """Once nothing runs: publish what waits as it is."""
        self._stopped = True
        while self._waiting:
            first = self._waiting.popleft()
            self._explanations.shed(first.inference)
            self._offer(captured(first.inference, first.shadows))
