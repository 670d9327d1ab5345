"""The books in PostgreSQL.

One record is one transaction: the inbox mark, the state, the audit entries, the change's place in the journal and the
events to be published are committed together. Rows are locked in one order (the record's log, a model, the end of the
audit chain, that of the journal), so two processes wait for each other and never for ever. While the database is away every call raises RetryLater: the record stays in hand, uncommitted, and
comes again; whatever was half done is undone by the database.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from tailrace_contracts.audit import Link, Verification, digest, verify_chain
from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    AuditRecorded,
    DeploymentChanged,
    Event,
    ModelRow,
    RevisionTrained,
    SpecApplied,
    VersionChanged,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.adapters.journal import Change, Noted, announce, execute, row_of, store
from tailrace_registry.adapters.rows import (
    ACTING,
    MODELS,
    VERSIONS,
    VERSIONS_NOW,
    VERSIONS_THAT_SAW,
    VERSIONS_THEN,
    TopicsOut,
    any_event,
    event_of,
    kept,
    model_of,
    newest_revision,
    version_of_row,
    written,
)
from tailrace_registry.domain.model import Model
from tailrace_registry.domain.noted import EvidenceName, unfaithful, vouched
from tailrace_registry.ports import Entry, Evidenced, Which
from tailrace_runtime.database import Connection, Database
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.records import Record

CHAIN_PIECE = 1000
"""Audit entries that are in memory at once while the chain is checked."""


class PostgresEntry:
    """One transaction."""

    def __init__(self, connection: Connection) -> None:
        self._sql = connection
        self.change = Change()

    async def model(self, name: str, named: Sequence[int] = ()) -> Model | None:
        """The model, its row locked, with the versions that a decision may need."""
        await self._lock(name)
        row = await self._sql.fetchrow(f"{MODELS} where m.name = $1", name)
        if row is None:
            return None
        numbers = [*row["predecessors"], *named]
        versions = await self._sql.fetch(
            f"{VERSIONS} where model = $1 and {ACTING} union {VERSIONS} where model = $1 and version = any($2)",
            *(name, numbers),
        )
        return model_of(row, versions)

    async def found(self, name: str) -> None:
        """A row for the model, locked."""
        sql = "insert into models (name) values ($1) on conflict do nothing returning true"
        if await self._sql.fetchval(sql, name):
            self.change.row = (name, ModelRow(spec_revision=0))
        await self._lock(name)

    async def _lock(self, name: str) -> None:
        """A statement of its own: what is read after it shows what the holder before us has committed."""
        await self._sql.execute("select from models where name = $1 for update", name)

    async def spec(self, model: str, revision: int) -> ModelSpec | None:
        """A revision of the model's spec."""
        text = await self._sql.fetchval("select event from specs where model = $1 and revision = $2", model, revision)
        applied: SpecApplied | None = event_of(SpecApplied, text) if text else None
        return applied.spec if applied else None

    async def newest_revision(self, model: str, run_id: str) -> RevisionTrained | None:
        """The newest revision heard of a run."""
        text = await self._sql.fetchval("select event from revisions where model = $1 and run_id = $2", model, run_id)
        return event_of(RevisionTrained, text) if text else None

    async def answered(self, command_id: str) -> bool:
        """Whether the command has its audit entry."""
        return bool(await self._sql.fetchval("select exists (select from audit where command_id = $1)", command_id))

    async def has_evidence(self, model: str, kind: str, event_id: str) -> bool:
        """Whether the event was noted before."""
        sql = "select exists (select from evidence where model = $1 and kind = $2 and event_id = $3)"
        return bool(await self._sql.fetchval(sql, model, kind, event_id))

    async def alerts(self, model: str, versions: Sequence[int]) -> list[AlertRaised]:
        """The noted alerts about these versions."""
        sql = """
            select event from evidence
            where model = $1 and kind = 'alert'
            and (event::jsonb ->> 'version' = any($2) or event::jsonb ->> 'subject' = any($3))
            order by said_at
        """
        numbers = [str(number) for number in versions]
        rows = await self._sql.fetch(sql, model, numbers, [f"version {number}" for number in numbers])
        return [event_of(AlertRaised, row["event"]) for row in rows]

    async def head(self) -> Link:
        """The end of the audit chain, locked."""
        row = await self._sql.fetchrow("select sequence, sha256 from audit_head for update")
        return Link(row["sequence"], row["sha256"])

    async def save(self, model: Model, events: Sequence[Event]) -> None:
        """The model's row, and everything in `publish`."""
        row = ModelRow(spec_revision=model.spec_revision, predecessors=model.predecessors)
        self.change.row, self.change.misfits = (model.name, row), model.misfits
        await execute(self._sql, row_of(model.name, row))
        await self._store(events, model.misfits)

    async def publish(self, events: Sequence[Event]) -> None:
        """The events in their tables and in the outbox."""
        await self._store(events, frozenset())

    async def note(self, model: str, kind: str, event_id: str, event: Event) -> None:
        """Evidence, once."""
        each = written(event)
        if await execute(self._sql, kept(model, kind, event_id, each)):
            self.change.kept.append(Noted(model, kind, event_id, each))

    async def newer(self, revision: RevisionTrained) -> bool:
        """The revision as the newest of its run, its model locked."""
        await self._lock(revision.model)
        each = written(revision)
        newer = await execute(self._sql, newest_revision(revision, each.text))
        if newer:
            self.change.revision = each
        return newer

    async def version_of_run(self, model: str, run_id: str) -> VersionChanged | None:
        """The version that a run made."""
        text = await self._sql.fetchval("select event from versions where model = $1 and run_id = $2", model, run_id)
        return event_of(VersionChanged, text) if text else None

    async def _store(self, events: Sequence[Event], misfits: frozenset[int]) -> None:
        made = [written(event) for event in events]
        await store(self._sql, made, misfits)
        self.change.published += made


class PostgresBooks:
    """Where decisions are kept."""

    def __init__(self, database: Database, topics_out: TopicsOut) -> None:
        self._database = database
        self._topics_out = topics_out

    @asynccontextmanager
    async def entry(self, record: Record) -> AsyncIterator[Entry | None]:
        """A transaction, committed when the block ends well; None where this record has been through it."""
        try:
            async with self._database.transaction() as connection:
                if await _applied(connection, record):
                    yield None
                    return
                entry = PostgresEntry(connection)
                yield entry
                await _mark(connection, record)
                await announce(connection, entry.change, record, self._topics_out)
        except asyncpg.UniqueViolationError as error:
            raise RetryLater(f"another process was faster: {error}") from error


async def _applied(connection: Connection, record: Record) -> bool:
    """Whether this record has been applied; its log stays locked until the end of the transaction.

    A topic that was deleted and made again counts from 0 again: an offset that is low but a record that is newer than
    the last one applied is not taken for the old one, and the handlers know a repeated fact by its identity anyway.
    """
    sql = """
        insert into applied (topic, partition) values ($1, $2)
        on conflict (topic, partition) do update set topic = excluded.topic
        returning through_offset, timestamp_ms
    """
    last = await connection.fetchrow(sql, record.topic, record.partition)
    return bool(record.offset <= last["through_offset"] and record.timestamp_ms <= last["timestamp_ms"])


async def _mark(connection: Connection, record: Record) -> None:
    sql = "update applied set through_offset = $3, timestamp_ms = $4 where topic = $1 and partition = $2"
    await connection.execute(sql, record.topic, record.partition, record.offset, record.timestamp_ms)


class PostgresShelf:
    """The books, for readers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """The books as of one moment."""
        async with self._database.transaction() as connection:
            await connection.execute("set transaction isolation level repeatable read read only")
            yield connection

    async def models(self) -> list[Model]:
        """Every model, by name."""
        async with self._snapshot() as connection:
            rows = await connection.fetch(f"{MODELS} order by m.name")
            versions = await connection.fetch(f"{VERSIONS} where {ACTING}")
        return [model_of(row, [each for each in versions if each["model"] == row["name"]]) for row in rows]

    async def model(self, name: str) -> Model | None:
        """One model, as of one moment."""
        async with self._snapshot() as connection:
            row = await connection.fetchrow(f"{MODELS} where m.name = $1", name)
            acting = f"{VERSIONS} where model = $1 and {ACTING}"
            return model_of(row, await connection.fetch(acting, name)) if row else None

    async def knows(self, name: str) -> bool:
        """Whether there is such a model; its versions are not read."""
        async with self._snapshot() as connection:
            sql = "select exists (select from models where name = $1 and spec_revision > 0)"
            return bool(await connection.fetchval(sql, name))

    async def versions(self, model: str, which: Which) -> list[VersionChanged]:
        """Versions, newest first. The lineage is looked through in place, so none but the found ones are read."""
        async with self._snapshot() as connection:
            numbers = None
            if which.saw is not None:
                place = which.saw.model_dump_json()
                saw = await connection.fetch(VERSIONS_THAT_SAW, model, which.saw.offset, place)
                numbers = [row["version"] for row in saw]
            asked = (model, which.before, which.limit, numbers)
            if which.as_of is None:
                rows = await connection.fetch(VERSIONS_NOW, *asked)
            else:
                rows = await connection.fetch(VERSIONS_THEN, *asked, which.as_of)
        return [version_of_row(row) for row in rows]

    async def compared(self, model: str, a: int, b: int) -> list[ArmsCompared]:
        """Comparisons of two versions, oldest first."""
        sql = """
            select event from evidence
            where model = $1 and kind = 'comparison'
            and (event::jsonb ->> 'candidate', event::jsonb ->> 'champion') in (($2::text, $3::text), ($3::text, $2::text))
            order by said_at
        """
        async with self._snapshot() as connection:
            rows = await connection.fetch(sql, model, str(a), str(b))
        return [event_of(ArmsCompared, row["event"]) for row in rows]

    async def specs(self, model: str) -> list[SpecApplied]:
        """Every revision of the model's spec, oldest first."""
        async with self._snapshot() as connection:
            rows = await connection.fetch("select event from specs where model = $1 order by revision", model)
        return [event_of(SpecApplied, row["event"]) for row in rows]

    async def deployments(self, model: str, as_of: datetime | None, limit: int) -> list[DeploymentChanged]:
        """Deployments announced until a moment, newest first."""
        sql = """
            select event from deployments where model = $1 and ($2::timestamptz is null or announced_at <= $2)
            order by sequence desc limit $3
        """
        async with self._snapshot() as connection:
            rows = await connection.fetch(sql, model, as_of, limit)
        return [event_of(DeploymentChanged, row["event"]) for row in rows]

    async def evidence(self, model: str, limit: int) -> list[Evidenced]:
        """Evidence, newest first."""
        sql = "select kind, event_id, said_at, event from evidence where model = $1 order by said_at desc limit $2"
        async with self._snapshot() as connection:
            rows = await connection.fetch(sql, model, limit)
        return [Evidenced(row["kind"], row["event_id"], row["said_at"], any_event(row["event"])) for row in rows]

    async def audit(self, model: str, subject: str | None, after: int, limit: int) -> list[AuditRecorded]:
        """Audit entries of a model, oldest first."""
        sql = """
            select entry from audit
            where model = $1 and sequence > $2 and ($3::text is null or entry::jsonb ->> 'subject' = $3)
            order by sequence limit $4
        """
        async with self._snapshot() as connection:
            rows = await connection.fetch(sql, model, after, subject, limit)
        return [event_of(AuditRecorded, row["entry"]) for row in rows]

    async def answer(self, command_id: str) -> AuditRecorded | None:
        """The audit entry that answers a command."""
        async with self._snapshot() as connection:
            text = await connection.fetchval("select entry from audit where command_id = $1", command_id)
        return event_of(AuditRecorded, text) if text else None

    async def verify(self) -> Verification:
        """Check the chain in pieces, as of one moment, its end, and the evidence by the digests in it."""
        async with self._snapshot() as connection:
            row = await connection.fetchrow("select sequence, sha256 from audit_head")
            found, written = Verification(0, Link()), Link(row["sequence"], row["sha256"])
            while found.intact:
                rows = await connection.fetch(
                    "select entry from audit where sequence > $1 order by sequence limit $2",
                    found.head.sequence,
                    CHAIN_PIECE,
                )
                if not rows:
                    return _ended(found, written)
                piece = verify_chain([each["entry"] for each in rows], after=found.head)
                if piece.intact:
                    piece = await _with_evidence(connection, piece, [each["entry"] for each in rows])
                found = piece._replace(entries=found.entries + piece.entries)
        return found


async def _with_evidence(connection: Connection, piece: Verification, texts: Sequence[str]) -> Verification:
    """The check of a piece of the chain, with that of the kept events that its entries vouch for."""
    entries = [event_of(AuditRecorded, text) for text in texts]
    names = {kept for entry in entries for kept, _ in vouched(entry)}
    sql = """
        select model, kind, event_id, event from evidence
        where (model, kind, event_id) in (select * from unnest($1::text[], $2::text[], $3::text[]))
    """
    columns = [[name[column] for name in names] for column in range(3)]
    kept = {
        EvidenceName(row["model"], row["kind"], row["event_id"]): digest(json.loads(row["event"]))
        for row in await connection.fetch(sql, *columns)
    }
    for entry in entries:
        if fault := unfaithful(dict(vouched(entry)), kept):
            return piece._replace(broken_at=entry.sequence, reason=f"audit entry {entry.sequence}: {fault}")
    return piece


def _ended(found: Verification, written: Link) -> Verification:
    if found.head == written:
        return found
    reason = f"the chain ends at entry {found.head.sequence}, and entry {written.sequence} was written down as its end"
    return found._replace(broken_at=found.head.sequence + 1, reason=reason)
