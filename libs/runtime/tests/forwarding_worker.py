"""A small service for tests that kill processes: forwards `predictions` to `labels`, keeping partition and key.

The environment says what goes wrong: FAIL_ON names a value at which the handler has a bug, COMMIT_SECONDS puts commits
off, so that a kill finds effects without their commit, STUBBORN leaves a task behind that nothing cancels.
"""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress

from tailrace_runtime.consumer import ConsumerRole, each
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.service import Service, main
from tailrace_runtime.settings import ServiceSettings


async def forward(record: Record) -> Iterable[Outgoing]:
    """The same record on the other topic, with its source offset."""
    if record.value == os.environ.get("FAIL_ON", "").encode() != b"":
        raise ZeroDivisionError("a bug")
    source = ("trigger-offset", str(record.offset).encode())
    return [Outgoing("labels", record.value, record.key, record.partition, (source,))]


async def stubborn() -> None:
    """Never end, whoever asks."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def forward_stubbornly(record: Record) -> Iterable[Outgoing]:
    """The same, with a task left behind."""
    LEFT_BEHIND.append(asyncio.create_task(stubborn()))
    return await forward(record)


LEFT_BEHIND: list[asyncio.Task[None]] = []


def create() -> Service:
    """The service, from the environment."""
    commit_seconds = float(os.environ.get("COMMIT_SECONDS", "0.2"))
    handler = each(forward_stubbornly if "STUBBORN" in os.environ else forward)
    role = ConsumerRole("forward", {"predictions": handler}, commit_seconds=commit_seconds, max_records=50)
    return Service("worker", ServiceSettings(), {"forward": role})


if __name__ == "__main__":
    main(create)
