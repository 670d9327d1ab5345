"""A service as a process that dies, or falls asleep, at a named point: `python worker.py [SERVICE]`, else ingestion.

The point is a moment in the process's talk with Kafka: just before a request is written, or just after its answer has
come and before the process has seen it. That names every moment that matters (an effect without its commit, a record
without its acknowledgement, a recovery, a rebalance) for every client in the process, the stream framework's own too,
without a word in the product. A swap is named by its load of an artefact instead (`LOAD`). TAILRACE_CHAOS has the point as
JSON; without it this is the service and nothing else.

TAILRACE_CHAOS_FILE_BYTES makes the disk full: no file of the process may grow beyond it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

from aiokafka.conn import AIOKafkaConnection

LOAD = "ArtefactLoad"
"""The request of a point that is no request: serving loads an artefact, for a swap."""

VARIABLE, FILE_BYTES = "TAILRACE_CHAOS", "TAILRACE_CHAOS_FILE_BYTES"


@dataclass(frozen=True, slots=True)
class Point:
    """The `count`-th request of this kind about this topic or group or from this client, and what happens at it.

    `stop` is what a frozen machine does to a process: it stands still until it is told to go on, and does not know it.
    """

    request: str
    about: str
    when: Literal["before", "after"]
    count: int = 1
    act: Literal["kill", "stop"] = "kill"

    def environment(self) -> dict[str, str]:
        """What a worker is told."""
        return {VARIABLE: json.dumps(asdict(self))}


class Trap:
    """Counts requests, and strikes once."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self._left = point.count
        self._signal = signal.SIGKILL if point.act == "kill" else signal.SIGSTOP

    def meets(self, client: str, request: Any) -> bool:
        """Whether this is the request."""
        if self._left <= 0 or type(request).__name__ != self._point.request:
            return False
        return self._point.about in words(client, vars(request)) and self.counts()

    def counts(self) -> bool:
        """One more of the kind; whether it is the one."""
        self._left -= 1
        return self._left == 0

    def strike(self) -> None:
        """Now."""
        os.kill(os.getpid(), self._signal)


def words(client: str, fields: Mapping[str, Any]) -> str:
    """The names in a request: its client, its group, its topics."""
    plain = [value for value in fields.values() if isinstance(value, str)]
    listed = [entry for value in fields.values() if isinstance(value, list) for entry in value]
    topics = [entry[0] for entry in listed if isinstance(entry, tuple) and entry and isinstance(entry[0], str)]
    return " ".join([client, *plain, *topics])


def arm(point: Point) -> None:
    """Let every connection of this process pass through the trap, or every load of an artefact."""
    if point.request == LOAD:
        arm_loads(point)
    else:
        arm_requests(point)


def arm_loads(point: Point) -> None:
    """The `count`-th artefact is the last one."""
    from tailrace_serving.adapters.artefacts import StoredArtefacts

    trap, load = Trap(point), StoredArtefacts.load

    async def loaded(self: Any, *given: Any) -> Any:
        strikes = trap.counts()
        if strikes and point.when == "before":
            trap.strike()
        found = await load(self, *given)
        if strikes:
            trap.strike()
        return found

    setattr(StoredArtefacts, "load", loaded)  # noqa: B010 - what a subclass would do, had we a say in which is made


def arm_requests(point: Point) -> None:
    """The `count`-th request of the kind is the last one."""
    trap, send = Trap(point), AIOKafkaConnection.send

    def sent(self: Any, request: Any, expect_response: bool = True) -> Any:  # the library's signature
        if not trap.meets(self._client_id, request):
            return send(self, request, expect_response)
        if point.when == "before":
            trap.strike()
            return send(self, request, expect_response)
        return answered(send(self, request, expect_response))

    async def answered(answer: Any) -> Any:
        found = await answer
        trap.strike()
        return found

    AIOKafkaConnection.send = sent


if __name__ == "__main__":
    if VARIABLE in os.environ:
        arm(Point(**json.loads(os.environ[VARIABLE])))
    if FILE_BYTES in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ[FILE_BYTES]),) * 2)
    import_module(f"tailrace_{sys.argv[1] if len(sys.argv) > 1 else 'ingestion'}.main").run()
