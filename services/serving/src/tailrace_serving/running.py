"""How a loaded model is called: in line, together with others in line, or in a lane of its own beside the event loop.

The small models that learn on a stream, and small networks, answer in tens of microseconds: handing such a call to a
thread and back costs more than the call. Of those, one that answers many rows for little more than one is asked once in
a turn of the event loop, for all requests that came in it. A model that takes longer would hold up every other request
meanwhile, so it gets a lane: one call at a time in a thread, and whatever is asked while that runs is gathered into the
next call. With one asker that costs a thread's hop; under load its library lets the event loop go on beside it. Which of
the three a model gets is measured when it is loaded.
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

TOGETHER_ROWS = 64
"""Rows of one call for the requests of one turn, at most."""

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

    async def predict(self, rows: Rows, *, alone: bool = False) -> Sequence[ArmAnswer]:  # noqa: ARG002  # it always is
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


class Together(InLine):
    """Calls the model on the event loop, once for the requests of one turn of it."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._waiting: deque[_Asked] = deque()

    async def predict(self, rows: Rows, *, alone: bool = False) -> Sequence[ArmAnswer]:
        """One answer for each row. Raises ArmFailed."""
        if alone or len(rows) > SLICE_ROWS:
            return await super().predict(rows)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._call, loop)
        asked = _Asked(rows, loop.create_future())
        self._waiting.append(asked)
        return await asked.answers

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = _gathered(self._waiting, TOGETHER_ROWS)
        if self._waiting:
            loop.call_soon(self._call, loop)
        if batch:
            self._call_for(batch)

    def _call_for(self, batch: Sequence[_Asked]) -> None:
        try:
            answers = self._model.predict(_rows_of(batch))
        except ArmFailed as failure:
            if len(batch) == 1:
                batch[0].answers.set_exception(failure)
                return
            for asked in batch:  # one question must not fail another
                self._call_for([asked])
        else:
            _hand_out(batch, answers)


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

    async def predict(self, rows: Rows, *, alone: bool = False) -> Sequence[ArmAnswer]:  # noqa: ARG002  # it would wait
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
                    await self._call(_gathered(self._waiting, LANE_ROWS))
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

    async def _call(self, batch: Sequence[_Asked]) -> None:
        try:
            answers = await asyncio.to_thread(self._model.predict, _rows_of(batch))
        except ArmFailed as failure:
            if len(batch) > 1:  # one question must not fail another
                for asked in batch:
                    await self._call([asked])
            elif batch and not batch[0].answers.done():
                batch[0].answers.set_exception(failure)
            return
        _hand_out(batch, answers)


def _gathered(waiting: deque[_Asked], most: int) -> list[_Asked]:
    """The oldest questions that somebody still waits for, as many as one call takes."""
    batch: list[_Asked] = []
    count = 0
    while waiting and (not batch or count + len(waiting[0].rows) <= most):
        asked = waiting.popleft()
        if not asked.answers.done():
            batch.append(asked)
            count += len(asked.rows)
    return batch


def _rows_of(batch: Sequence[_Asked]) -> Rows:
    return batch[0].rows if len(batch) == 1 else [row for asked in batch for row in asked.rows]


def _hand_out(batch: Sequence[_Asked], answers: Sequence[ArmAnswer]) -> None:
    start = 0
    for asked in batch:
        end = start + len(asked.rows)
        if not asked.answers.done():
            asked.answers.set_result(answers[start:end])
        start = end
