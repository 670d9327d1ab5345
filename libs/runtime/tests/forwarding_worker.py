"""A small service for tests that kill processes: forwards `predictions` to `labels`, keeping partition and key.

The environment says what goes wrong: FAIL_ON names a value at which the handler has a bug, COMMIT_SECONDS puts commits
off, so that a kill finds effects without their commit.
"""

import os
from collections.abc import Iterable

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


def create() -> Service:
    """The service, from the environment."""
    commit_seconds = float(os.environ.get("COMMIT_SECONDS", "0.2"))
    role = ConsumerRole("forward", {"predictions": each(forward)}, commit_seconds=commit_seconds, max_records=50)
    return Service("worker", ServiceSettings(), {"forward": role})


if __name__ == "__main__":
    main(create)
