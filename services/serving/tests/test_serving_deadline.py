"""Each request has its own deadline, although one timer serves them all."""

from __future__ import annotations

import asyncio

import pytest

from tailrace_serving.deadline import Deadlines


async def block(deadlines: Deadlines, seconds: float) -> str:
    """Take so long, within a deadline."""
    with deadlines.begin():
        await asyncio.sleep(seconds)
    return "in time"


async def test_each_ends_when_it_is_late() -> None:
    """If it failed, one slow request would end others, or a later one never end at all."""
    deadlines, ended = Deadlines(0.1), []

    async def late(name: str) -> None:
        with pytest.raises(TimeoutError):
            await block(deadlines, 60)
        ended.append(name)

    first = asyncio.create_task(late("first"))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(late("second"))
    assert await block(deadlines, 0) == "in time"
    await asyncio.gather(first, second)
    await late("third")
    assert ended == ["first", "second", "third"]


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    """If it failed, a service that stops would be told that its requests were late."""
    deadlines = Deadlines(60)
    task = asyncio.create_task(block(deadlines, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
