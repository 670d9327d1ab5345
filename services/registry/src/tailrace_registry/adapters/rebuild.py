"""An empty or an outdated database is brought up to date from the topics, before anything is taken from the inputs.

At every start the number of the newest change in the journal is compared with that in the database. They are the same, or
the database is ahead by what its outbox still holds; then there is nothing to do. A database that is behind has lost
something: it is new, or it was restored from a backup. Then, in one transaction:

    the audit chain on its topic is verified, entry by entry
    the consumer group goes back to where the journal's last change had applied each log
    every change behind the database's own is made again, its audit entries verified against chain and topic
    the outbox is replaced by those events that never got to their topics

What was decided and never reached the journal was heard by nobody: its causes are read once more and decided again.
Killed in between, nothing was done, and the next start begins anew.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import NamedTuple

import structlog

from tailrace_contracts.audit import Link, Verification, verify_chain
from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import AuditRecorded, BooksWritten
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_registry.adapters.journal import make_again
from tailrace_registry.adapters.rows import TopicsOut, Written, key_of, published
from tailrace_registry.adapters.seed import seed
from tailrace_registry.domain.unsent import Unsent, fingerprint
from tailrace_runtime.clock import Clock
from tailrace_runtime.database import Connection, Database
from tailrace_runtime.errors import RangeUnavailable, RetryLater, TailraceError
from tailrace_runtime.groups import read_from
from tailrace_runtime.log import newest, read_ranges
from tailrace_runtime.outbox import enqueue
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

WINDOW = 10_000
"""Changes that are in memory at once, to be sorted."""

_PART = "rebuild from the journal"
_MARGIN = timedelta(hours=1)
"""Clocks differ: what a topic is about to forget is taken for forgotten, and so for sent."""


class CannotRebuild(TailraceError):  # noqa: N818  # it says what is so
    """The topics contradict each other, or do not have what is missing: a person has to look."""


class _Audit(NamedTuple):
    """The audit chain as it stands on its topic."""

    head: Link
    fingerprints: frozenset[str]


class Rebuild:
    """A resource between the database and the roles: `start` returns once the books are up to date."""

    def __init__(
        self,
        settings: KafkaSettings,
        database: Database,
        *,
        out: TopicsOut,
        inputs: Sequence[str],
        group: str,
        clock: Clock,
    ) -> None:
        """`group` is the consumer group that reads the topics `inputs`."""
        self._settings = settings
        self._database = database
        self._out = out
        self._inputs = inputs
        self._group = group
        self._clock = clock

    async def start(self) -> None:
        """Bring the books up to date; waits for a broker or a database that is away. Raises CannotRebuild."""
        counts = await wait_for(self._settings, [*self._out.values(), *self._inputs], part=_PART)
        logs = [Log(topic, number) for topic in self._inputs for number in range(counts[topic])]

        async def attempt() -> None:
            last = await self._last_change()
            async with self._database.transaction() as connection:
                await self._bring_up_to_date(connection, last, logs)

        await until_available(_PART, "the books are not up to date", attempt, (RetryLater, RangeUnavailable))

    async def stop(self) -> None:
        """Nothing to let go of."""

    async def _bring_up_to_date(self, connection: Connection, last: BooksWritten | None, logs: Sequence[Log]) -> None:
        number = await connection.fetchval("select number from journal_head for update")
        if last is not None and number == 0 and await connection.fetchval("select exists (select from models)"):
            raise CannotRebuild(
                "the database is from before registry-journal and the journal is not: "
                "start on an empty database instead, which is rebuilt from the journal's first change"
            )
        if last is None and number == 0:
            await self._begin_journal(connection)
        elif last is not None and last.number > number:
            log.warning("the database is behind the journal: rebuilding", database=number, journal=last.number)
            audit = await self._audit()
            applied = {Log(each.topic, each.partition): each.through_offset + 1 for each in last.applied}
            await read_from(self._settings, self._group, {place: applied.get(place, 0) for place in logs})
            sent_again = await self._rebuild(connection, number, audit)
            log.warning("rebuilt", changes=last.number - number, audit=audit.head.sequence, sent_again=sent_again)
        else:
            await self._look_for_lost(connection, number)

    async def _look_for_lost(self, connection: Connection, number: int) -> None:
        """Say so if the journal has lost its end: found only when the database is lost too, it would be too late."""
        topic = self._out[BooksWritten]
        unsent = await connection.fetchval("select count(*) from outbox where topic = $1", topic)
        last = await self._last_change()  # after the count: what the relay took out in between is on the topic by now
        found = last.number if last is not None else 0
        if found < number - unsent:
            log.error("registry-journal has lost changes: keep backups", database=number - unsent, journal=found)

    async def _begin_journal(self, connection: Connection) -> None:
        """The journal is empty: this is a new deployment, or one from before there was a journal."""
        changes = await seed(connection, self._clock.now(), self._out)
        if changes:
            log.info("the journal begins with what the books have", changes=changes)
        elif (await self._audit()).head.sequence:
            raise CannotRebuild(
                "the database is empty, the topic audit-entries is not, and registry-journal has nothing to rebuild from: "
                "restore the database from a backup"
            )

    async def _rebuild(self, connection: Connection, number: int, audit: _Audit) -> int:
        await connection.execute("delete from outbox")
        unsent: Unsent[Written] = Unsent(await self._fingerprints() | {self._out[AuditRecorded]: audit.fingerprints})
        row = await connection.fetchrow("select sequence, sha256 from audit_head")
        head = Link(row["sequence"], row["sha256"])
        async with aclosing(in_order(self._read(self._out[BooksWritten]), number)) as changes:
            async for change in changes:
                for each in await make_again(connection, change):
                    head = _next(head, each, audit)
                    unsent.take(
                        self._out[type(each.event)],
                        key_of(each.event),
                        each.text,
                        each,
                        forgotten=self._forgotten(each),
                    )
        if audit.head.sequence > head.sequence:
            raise CannotRebuild(
                f"the topic audit-entries goes to entry {audit.head.sequence} and the journal to {head.sequence}: "
                "something in it was lost; restore the database from a backup"
            )
        await enqueue(connection, [published(each, self._out) for each in unsent.found])
        return len(unsent.found)

    def _forgotten(self, each: Written) -> bool:
        days = topics()[self._out[type(each.event)]].retention_days
        time = getattr(each.event, "time", None)
        return days is not None and time is not None and time + timedelta(days=days) - _MARGIN < self._clock.now()

    # ------------------------------------------------------------ what stands on the topics

    async def _last_change(self) -> BooksWritten | None:
        """The newest change in the journal. Compaction never takes the end of a log away."""
        end = [
            each.model_copy(update={"from_offset": each.through_offset})
            for each in await newest(self._settings, self._out[BooksWritten])
        ]
        async with aclosing(self._read(LogRanges(tuple(end)))) as values:
            found = [BooksWritten.model_validate_json(value) async for value in values]
        return found[-1] if found else None

    async def _fingerprints(self) -> dict[str, frozenset[str]]:
        """Of everything on the topics that the registry writes, less the journal and the audit entries."""
        names = [name for kind, name in self._out.items() if kind not in {BooksWritten, AuditRecorded}]
        return {name: frozenset([fingerprint(value) async for value in self._read(name)]) for name in names}

    async def _audit(self) -> _Audit:
        """The audit chain on its topic, verified. What a second life of the relay sent again is left out."""
        found, seen = Verification(0, Link()), set[str]()
        async with aclosing(self._read(self._out[AuditRecorded])) as values:
            async for value in values:
                mark = fingerprint(value)
                if mark in seen:
                    continue
                seen.add(mark)
                found = verify_chain([value], after=found.head)
                if not found.intact:
                    raise CannotRebuild(f"the chain on audit-entries is broken: {found.reason}")
        return _Audit(found.head, frozenset(seen))

    async def _read(self, what: str | LogRanges) -> AsyncGenerator[bytes, None]:
        """The values on a topic, or in ranges of one."""
        ranges = await newest(self._settings, what) if isinstance(what, str) else what
        async for batch in read_ranges(self._settings, ranges):
            for record in batch:
                if record.value is not None:
                    yield record.value


async def in_order(
    values: AsyncGenerator[bytes, None], after: int, most: int = WINDOW
) -> AsyncGenerator[BooksWritten, None]:
    """The changes numbered above `after`, each once, by number.

    A relay that was killed sends a batch again, and compaction then may keep an earlier record of one change and a later
    one of the next. So they are sorted within a window of `most`, many batches wide.
    """
    window: list[tuple[int, bytes]] = []
    last = after
    async with aclosing(values):
        async for value in values:
            heapq.heappush(window, (BooksWritten.model_validate_json(value).number, value))
            if len(window) > most:
                number, value_then = heapq.heappop(window)
                if number > last:
                    last = number
                    yield BooksWritten.model_validate_json(value_then)
    for number, value in sorted(window):
        if number > last:
            last = number
            yield BooksWritten.model_validate_json(value)


def _next(head: Link, each: Written, audit: _Audit) -> Link:
    """The end of the chain after an event of the journal. Raises CannotRebuild where chain and topic do not have it so."""
    if not isinstance(each.event, AuditRecorded):
        return head
    found = verify_chain([each.text], after=head)
    if not found.intact:
        raise CannotRebuild(f"the chain in registry-journal is broken: {found.reason}")
    if each.event.sequence <= audit.head.sequence and fingerprint(each.text) not in audit.fingerprints:
        raise CannotRebuild(
            f"audit entry {each.event.sequence} is another one in registry-journal than on audit-entries"
        )
    return found.head
