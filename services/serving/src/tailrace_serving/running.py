"""How a loaded model is called: in line, or in a lane of its own beside the event loop.

The small models that learn on a stream, and small networks, answer in tens of microseconds: handing such a call to a
thread and back costs more than the call. A model that takes longer would hold up every other request meanwhile, so it
gets a lane: one call at a time in a thread, and whatever is asked while that runs is gathered into the next call. With
one asker that costs a thread's hop; under load a network answers many rows for little more than one, and its library
lets the event loop go on beside it. Which of the two a model gets is measured when it is loaded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace_contracts.events import FeatureValue
from tailrace_models import Explained
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed, ReferenceOf
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.explaining import Explainable, Explaining

SLICE_ROWS = 16
"""Rows that a model in line is given at once; between slices other requests have their turn."""

LANE_ROWS = 256
"""Rows of one call in a lane, at most, unless one question alone has more."""

Rows = Sequence[Mapping[str, FeatureValue]]
Step = Callable[[], Explained | None]


class Model(Explainable, Protocol):
    """A loaded model as its library has it: blocking, one call at a time."""

    def predict(self, rows: Rows) -> Sequence[ArmAnswer]:
        """One answer for each row. Raises ArmFailed."""
        ...


class InLine:
    """Calls the model on the event loop."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._explaining = Explaining(model)

    async def predict(self, rows: Rows) -> Sequence[ArmAnswer]:
        """One answer for each row. Raises ArmFailed."""
        if len(rows) <= SLICE_ROWS:
            return self._model.predict(rows)
        answers: list[ArmAnswer] = []
        for start in range(0, len(rows), SLICE_ROWS):
            answers.extend(self._model.predict(rows[start : start + SLICE_ROWS]))
            await asyncio.sleep(0)
        return answers

    async def explain(self, asked: ToExplain, reference: ReferenceOf) -> Explanation:
        """Why it answers this row so. Raises ArmFailed or Refused."""
        return await self._explaining.explain(asked, reference, self._step)

    async def _step(self, step: Step) -> Explained | None:
        return step()


class _Asked(NamedTuple):
    rows: Rows
    answers: asyncio.Future[Sequence[ArmAnswer]]


class _Step(NamedTuple):
    step: Step
    found: asyncio.Future[Explained | None]


class Lane:
    """Calls the model in a thread, with all that has been asked in the meantime; explains while nothing is asked."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._explaining = Explaining(model)
        self._waiting: deque[_Asked] = deque()
        self._steps: deque[_Step] = deque()
        self._working: asyncio.Task[None] | None = None

    async def predict(self, rows: Rows) -> Sequence[ArmAnswer]:
        """One answer for each row. Raises ArmFailed."""
        asked = _Asked(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._set_going()
        return await asked.answers

    async def explain(self, asked: ToExplain, reference: ReferenceOf) -> Explanation:
        """Why it answers this row so. Raises ArmFailed or Refused."""
        return await self._explaining.explain(asked, reference, self._step)

    async def _step(self, step: Step) -> Explained | None:
        waiting = _Step(step, asyncio.get_running_loop().create_future())
        self._steps.append(waiting)
        self._set_going()
        return await waiting.found

    def _set_going(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="serving-lane")

    async def _work(self) -> None:
        try:
            while self._waiting or self._steps:
                if self._waiting:
                    await self._call(self._gathered())
                else:
                    await self._take_step(self._steps.popleft())
        finally:
            self._working = None

    async def _take_step(self, waiting: _Step) -> None:
        if waiting.found.done():  # nobody waits for it any more
            return
        try:
            found = await asyncio.to_thread(waiting.step)
        except ArmFailed as failure:
            if not waiting.found.done():
                waiting.found.set_exception(failure)
            return
        if not waiting.found.done():
            waiting.found.set_result(found)

    def _gathered(self) -> list[_Asked]:
        """The oldest questions that somebody still waits for, as many as one call takes."""
        batch: list[_Asked] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0].rows) <= LANE_ROWS):
            asked = self._waiting.popleft()
            if not asked.answers.done():
                batch.append(asked)
                count += len(asked.rows)
        return batch

    async def _call(self, batch: Sequence[_Asked]) -> None:
        rows = [row for asked in batch for row in asked.rows]
        try:
            answers = await asyncio.to_thread(self._model.predict, rows)
        except ArmFailed as failure:
            if len(batch) > 1:  # one question must not fail another
                for asked in batch:
                    await self._call([asked])
            elif batch and not batch[0].answers.done():
                batch[0].answers.set_exception(failure)
            return
        start = 0
        for asked in batch:
            if not asked.answers.done():
                asked.answers.set_result(answers[start : start + len(asked.rows)])
            start += len(asked.rows)
