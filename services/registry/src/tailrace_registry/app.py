"""The registry, built from its settings.

Two roles: `decide` reads every topic in one group and writes its decisions into the books; `relay` publishes what stands
in the books' outbox. Both may run in any number of processes: rows are locked, and the relay keeps the order of each key.
The HTTP API is there in every process.
"""

from __future__ import annotations

from collections.abc import Mapping

from tailrace_registry.consumers import Handlers, answering, deciding, newest_of_each_run
from tailrace_registry.ports import Books
from tailrace_runtime.clock import Clock
from tailrace_runtime.consumer import BatchHandler

Routes = Mapping[str, Handlers]
"""For each topic in, what handles its events."""

_KINDS = {"registry-commands": answering, "revision-trained": newest_of_each_run}


def batch_handlers(routes: Routes, books: Books, clock: Clock) -> dict[str, BatchHandler]:
    """The routes, ready for a consumer role."""
    return {topic: _KINDS.get(topic, deciding)(handlers, books, clock) for topic, handlers in routes.items()}
