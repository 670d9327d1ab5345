"""What a consuming role is: routes from topics to handlers, and what a handler gives back.

A handler gets a batch: records of one topic partition, in order. It ends in one of four ways:

- it returns an `Outcome`: the loop publishes `emit`, parks `parked`, and then, last of all, commits;
- it raises `RetryLater`: the batch stays in hand and is tried again with growing pauses, up to a bound;
- it raises `PoisonEvent`: the record is parked (a batch of several is handed over again one by one, to find it);
- it raises anything else: the partition stops, and with it the service, loudly.

Handlers stay small: while one computes, the process sends no heartbeats. `loop.py` runs them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tailrace_contracts.ranges import Log
from tailrace_runtime.errors import PoisonEvent, RetryLater
from tailrace_runtime.outcome import Outcome, Parked
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.tracing import continued_from

__all__ = [
    "BatchHandler",
    "ConsumerRole",
    "DeadLetterLimit",
    "Outcome",
    "Parked",
    "RecordHandler",
    "RoleState",
    "Stateless",
    "each",
]

BatchHandler = Callable[[Sequence[Record]], Awaitable[Outcome]]
RecordHandler = Callable[[Record], Awaitable[Iterable[Outgoing]]]


def each(handler: RecordHandler) -> BatchHandler:
    """A batch handler out of one for single records: poison parks that record only, the others go on.

    The trace in a record's headers is followed while it is handled. `RetryLater` keeps what was done before it.
    """

    async def handle(records: Sequence[Record]) -> Outcome:
        outcome = Outcome()
        for record in records:
            try:
                with continued_from(record.headers):
                    outcome.emit.extend(await handler(record))
            except PoisonEvent as poison:
                outcome.parked.append(Parked(record, poison.code, poison.reason, poison.model))
            except RetryLater as later:
                raise _kept(later, outcome, records, record) from later
        return outcome

    return handle


def _kept(later: RetryLater, outcome: Outcome, records: Sequence[Record], at: Record) -> RetryLater:
    """The same wish, with what was done before it."""
    before = [record.offset for record in records if record.offset < at.offset]
    if not before:
        return later
    outcome.commit_through = before[-1]
    return RetryLater(later.reason, later.after_seconds, done=outcome)


class RoleState(Protocol):
    """A role with state of its own. Called by the loop only, never beside a handler of the same role."""

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """These logs are ours now: recover, and say where to read on (the next offset). Others: as committed."""
        ...

    async def revoked(self, logs: set[Log]) -> None:
        """These logs are no longer ours. What was done on them has been committed."""
        ...

    async def tick(self) -> Mapping[Log, Outcome] | Outcome:
        """Called between batches, about every `tick_seconds`. `commit_through` counts only under its log."""
        ...


class Stateless:
    """No state: subclass it and override what you need."""

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Read on as committed."""
        del logs
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Nothing to let go of."""
        del logs

    async def tick(self) -> Mapping[Log, Outcome] | Outcome:
        """Nothing to do."""
        return Outcome()


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """Stop when more than `share` of the records of the last `window_seconds` (at least `records`) were parked."""

    share: float = 0.5
    records: int = 100
    window_seconds: float = 60.0


@dataclass(slots=True)
class ConsumerRole:
    """A consumer group: which topics it reads, what handles them, and how much at a time.

    A trickle of records is gathered on the broker for `max_wait_ms`, until there are `min_fetch_bytes` of them: fewer,
    fuller batches. A role that must answer within milliseconds sets `min_fetch_bytes` to 1.
    At most `max_fetch_bytes` of each partition are read ahead.
    With `overlap`, the next batch is handled while the broker acknowledges what came of the one before: for handlers
    whose effects are what they return. Publications of one log keep their order, one at a time, and all of them are acknowledged
    before a tick, a commit of their offsets, or the end.
    `commit_seconds` bounds how long a finished offset may wait for its commit (0: after every batch).
    `revoke_seconds` is how long a batch in hand may go on when its partition is taken away; then it is cancelled.
    """

    name: str
    routes: Mapping[str, BatchHandler]
    state: RoleState | None = None
    tick_seconds: float = 1.0
    max_records: int = 2000
    max_wait_ms: int = 50
    min_fetch_bytes: int = 65_536
    max_fetch_bytes: int = 1_048_576
    overlap: bool = False
    dead_letter_limit: DeadLetterLimit = field(default_factory=DeadLetterLimit)
    commit_seconds: float = 0.2
    revoke_seconds: float = 10.0
