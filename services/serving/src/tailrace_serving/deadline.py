"""A deadline for one request. `asyncio.timeout` says the same and costs a tenth of an answer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Cancels the block after so many seconds; then it ends in TimeoutError."""

    __slots__ = ("_handle", "_late", "_task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request is answered in a task
        self._task = task
        self._late = False
        self._handle = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._late = True
        self._task.cancel()

    def __enter__(self) -> None:
        """Begin; the time runs since the deadline was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Raise TimeoutError when it was the deadline that cancelled the block, and nobody else did, too."""
        self._handle.cancel()
        if self._late and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise TimeoutError from error
