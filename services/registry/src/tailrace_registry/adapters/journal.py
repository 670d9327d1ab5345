"""The journal: every change of the books as one event, and how a change is made again from it.

A transaction announces itself in the outbox as one `BooksWritten`, before the events that it decided on; the relay has it
acknowledged before any of these is sent (`Relay(first=...)`). So whatever other services have heard stands in the journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tailrace_contracts.events import AppliedLog, BooksWritten, Kept, ModelRow, RevisionTrained
from tailrace_registry.adapters.rows import (
    Statement,
    TopicsOut,
    Written,
    chain_end,
    kept,
    newest_revision,
    published,
    read_again,
    statements,
    written,
)
from tailrace_runtime.database import Connection
from tailrace_runtime.outbox import enqueue
from tailrace_runtime.records import Record


class Noted(NamedTuple):
    """An event that decisions rest on, and under which name it is kept."""

    model: str
    kind: str
    event_id: str
    event: Written


@dataclass(slots=True)
class Change:
    """What one transaction writes, gathered as it is written."""

    row: tuple[str, ModelRow] | None = None
    misfits: frozenset[int] = frozenset()
    published: list[Written] = field(default_factory=list)
    kept: list[Noted] = field(default_factory=list)
    revision: Written | None = None

    @property
    def model(self) -> str:
        """The model that it is about; empty where nothing is written."""
        if self.row is not None:
            return self.row[0]
        if self.kept:
            return self.kept[0].model
        events = [*self.published, *([self.revision] if self.revision else [])]
        return str(getattr(events[0].event, "model", "")) if events else ""


async def execute(connection: Connection, *todo: Statement) -> bool:
    """Execute statements; whether the last gave something back."""
    found = None
    for each in todo:
        found = await connection.fetchval(each.sql, *each.arguments)
    return bool(found)


async def store(connection: Connection, events: Sequence[Written], misfits: frozenset[int]) -> None:
    """The events in their tables, and the end of the audit chain."""
    await execute(connection, *statements(events, misfits))
    last = chain_end(events)
    if last is not None:
        await connection.execute("update audit_head set sequence = $1, sha256 = $2", last.sequence, last.sha256)


def row_of(model: str, row: ModelRow) -> Statement:
    """What stores a model's own row."""
    sql = """
        insert into models (name, spec_revision, predecessors) values ($1, $2, $3)
        on conflict (name) do update set spec_revision = excluded.spec_revision, predecessors = excluded.predecessors
    """
    return Statement(sql, (model, row.spec_revision, list(row.predecessors)))


async def announce(connection: Connection, change: Change, record: Record, out: TopicsOut) -> None:
    """Number the change and put it into the outbox, with the events that it publishes behind it."""
    if not change.model:
        return
    number = await connection.fetchval("update journal_head set number = number + 1 returning number")
    entry = BooksWritten(
        number=number,
        model=change.model,
        row=change.row[1] if change.row else None,
        misfits=tuple(sorted(change.misfits)),
        published=tuple(each.text for each in change.published),
        kept=tuple(Kept(kind=each.kind, event_id=each.event_id, event=each.event.text) for each in change.kept),
        revision=change.revision.text if change.revision else "",
        applied=await applied(connection),
        time=datetime.fromtimestamp(record.timestamp_ms / 1000, UTC),
    )
    await enqueue(connection, [published(each, out) for each in (written(entry), *change.published)])


async def applied(connection: Connection) -> tuple[AppliedLog, ...]:
    """How far each log has been applied, this transaction included."""
    rows = await connection.fetch("select * from applied order by topic, partition")
    return tuple(AppliedLog(**dict(row)) for row in rows)


async def make_again(connection: Connection, change: BooksWritten) -> list[Written]:
    """Write a change into the books as it was written the first time; gives back what it published."""
    events = [read_again(text) for text in change.published]
    if change.row is not None:
        await execute(connection, row_of(change.model, change.row))
    await store(connection, events, frozenset(change.misfits))
    for each in change.kept:
        await execute(connection, kept(change.model, each.kind, each.event_id, read_again(each.event)))
    if change.revision:
        again = read_again(change.revision)
        assert isinstance(again.event, RevisionTrained)  # noqa: S101  # what the field is for
        await execute(connection, newest_revision(again.event, again.text))
    for log in change.applied:
        await execute(connection, _applied_through(log))
    await connection.execute("update journal_head set number = $1", change.number)
    return events


def _applied_through(log: AppliedLog) -> Statement:
    sql = """
        insert into applied (topic, partition, through_offset, timestamp_ms) values ($1, $2, $3, $4)
        on conflict (topic, partition) do update
        set through_offset = excluded.through_offset, timestamp_ms = excluded.timestamp_ms
    """
    return Statement(sql, (log.topic, log.partition, log.through_offset, log.timestamp_ms))
