"""A deadline for each request. `asyncio.timeout` says the same, sets a timer for each, and costs a tenth of an answer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Deadlines of the same length: one timer, for the oldest."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Deadline:
        """For a block of the present task; the time runs from now."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request is answered in a task
        deadline, loop = Deadline(self, task), task.get_loop()
        self._running[deadline] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._give_up, loop)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """The block is over."""
        del self._running[deadline]

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline, due in self._running.items():
            if due > now:
                self._timer = loop.call_at(due, self._give_up, loop)
                break
            deadline.give_up()


class Deadline:
    """Cancels the block when it is late; then it ends in TimeoutError."""

    __slots__ = ("_late", "_of", "_task")

    def __init__(self, of: Deadlines, task: asyncio.Task[object]) -> None:
        self._of = of
        self._task = task
        self._late = False

    def give_up(self) -> None:
        """The block is late."""
        if not self._late:
            self._late = True
            self._task.cancel()

    def __enter__(self) -> None:
        """The time runs since the deadline was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Raise TimeoutError when it was the deadline that cancelled the block, and nobody else did, too."""
        self._of.end(self)
        if self._late and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise TimeoutError from error
