"""What only a database can get wrong: many writers at once, tampering, and topics that were made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tailrace_contracts.audit import Verification
from tailrace_contracts.events import ApplySpec, Event, PromoteVersion, decode
from tailrace_registry.adapters.postgres import PostgresBooks, PostgresShelf
from tailrace_registry.adapters.rows import topics_out
from tailrace_registry.app import batch_handlers
from tailrace_registry.main import TOPICS_IN, TOPICS_OUT
from tailrace_registry.ports import Which
from tailrace_registry.testing import NOON, a_candidate, a_command, a_revision, a_spec, an_alert
from tailrace_runtime.database import Database, provision
from tailrace_runtime.testing import FixedClock, record


class Process:
    """One registry process: handlers over a pool of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.shelf = PostgresShelf(database)
        books = PostgresBooks(database, topics_out(TOPICS_OUT))
        self._handlers = batch_handlers(TOPICS_IN, books, FixedClock(NOON))

    async def tell(self, topic: str, *events: Event, first: int = 0, partition: int = 0, timestamp_ms: int = 0) -> None:
        """Handle events that stand on a topic from an offset on."""
        batch = [
            record(event, topic, offset=first + i, partition=partition, timestamp_ms=timestamp_ms)
            for i, event in enumerate(events)
        ]
        await self._handlers[topic](batch)

    async def published(self) -> list[Event]:
        """What waits in the outbox, in order."""
        async with self.database.transaction() as connection:
            return [
                decode(row["value"])
                for row in await connection.fetch(
                    "select value from outbox where topic <> 'registry-journal' order by id"
                )
            ]


@pytest.fixture
async def url(database: str) -> str:
    """The registry's own schema in a fresh database."""
    return await provision(database, "registry", "a-password")


@pytest.fixture
async def processes(url: str) -> AsyncIterator[list[Process]]:
    """Four processes that start at the same moment, so that they migrate at the same moment."""
    databases = [Database(url, "tailrace_registry") for _ in range(4)]
    await asyncio.gather(*(each.start() for each in databases))
    yield [Process(each) for each in databases]
    await asyncio.gather(*(each.stop() for each in databases))


async def test_many_writers_at_once(processes: list[Process]) -> None:
    """Two processes that decide at the same moment would give one number twice, or break the chain."""
    commands, candidates, revisions, others = processes
    await commands.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await candidates.tell("candidate-trained", a_candidate("river", continual=True))
    specs = [a_command(ApplySpec(spec=a_spec(owner=f"o{n}")), command_id=f"c-{n}") for n in range(20)]
    promotions = [a_command(PromoteVersion(version=1 + n % 2), command_id=f"p-{n}", reason="x") for n in range(20)]
    await asyncio.gather(
        commands.tell("registry-commands", *specs, first=1),
        others.tell("registry-commands", *promotions, partition=1),
        candidates.tell("candidate-trained", *(a_candidate(f"run-{n}") for n in range(20)), first=1),
        *(revisions.tell("revision-trained", a_revision("river", n), first=n) for n in range(20)),
    )
    *_, first = found = await commands.shelf.versions("rain", Which())
    assert sorted(each.version for each in found) == list(range(1, 22))
    assert first.revision == 19
    deployments = await commands.shelf.deployments("rain", None, 1000)
    assert [each.sequence for each in deployments] == list(range(len(deployments), 0, -1))
    assert [deployments[0].champion] == [each.version for each in found if each.stage == "champion"]
    specs_applied = await commands.shelf.specs("rain")
    assert [each.spec_revision for each in specs_applied] == list(range(1, 22))
    assert (await commands.shelf.verify()).intact


async def test_one_command_in_two_processes(processes: list[Process]) -> None:
    """A process that lost its partition and does not know it yet would do a command a second time."""
    first, second, *_ = processes
    apply = a_command(ApplySpec(spec=a_spec()), command_id="apply")
    await asyncio.gather(first.tell("registry-commands", apply), second.tell("registry-commands", apply, partition=1))
    assert [event.type for event in await first.published()] == ["spec-applied", "audit-recorded"]


async def test_topic_made_anew_is_read_again(processes: list[Process]) -> None:
    """After a topic was lost and made again, commands would be skipped until its offsets had caught up."""
    process = processes[0]
    await process.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="a"), first=500)
    redelivered = a_command(ApplySpec(spec=a_spec(owner="lost")), command_id="b")
    await process.tell("registry-commands", redelivered, first=499)
    anew = a_command(ApplySpec(spec=a_spec(owner="new")), command_id="c")
    await process.tell("registry-commands", anew, first=0, timestamp_ms=1)
    assert [each.spec.owner for each in await process.shelf.specs("rain")] == ["weather-team", "new"]


async def test_audit_cannot_be_rewritten(processes: list[Process]) -> None:
    """Whoever gets at the service's account could make a decision look different, or undone."""
    process = processes[0]
    await process.tell("registry-commands", a_command(ApplySpec(spec=a_spec())))
    for statement in ("update audit set model = 'snow'", "delete from audit", "truncate audit"):
        with pytest.raises(asyncpg.RaiseError, match="never changed or deleted"):
            async with process.database.transaction() as connection:
                await connection.execute(statement)


async def tampered(process: Process, statement: str) -> Verification:
    """What a check finds after an administrator has changed the audit log."""
    async with process.database.transaction() as connection:
        await connection.execute("alter table audit disable trigger audit_is_for_ever")
        await connection.execute(statement)
    return await process.shelf.verify()


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("update audit set entry = replace(entry, '\"ada\"', '\"eve\"') where sequence = 2", 2),
        ("delete from audit where sequence = 2", 2),
        ("delete from audit where sequence = 3", 3),
        ("insert into audit (sequence, model, entry) values (4, 'rain', '{}')", 4),
        ("truncate audit", 1),
    ],
)
async def test_tampering_is_found(processes: list[Process], statement: str, broken_at: int) -> None:
    """An administrator could change, drop, cut off or add entries, and the check would still call the log intact."""
    process = processes[0]
    specs = [a_command(ApplySpec(spec=a_spec(owner=f"o{n}")), command_id=f"c-{n}") for n in range(3)]
    await process.tell("registry-commands", *specs)
    assert (await process.shelf.verify()).intact
    check = await tampered(process, statement)
    assert not check.intact
    assert check.broken_at == broken_at
    assert check.reason


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("update evidence set event = replace(event, 'error rate', 'accuracy')", "is not the one that the chain has"),
        ("delete from evidence", "is lost"),
    ],
)
async def test_evidence_that_was_changed_is_found(processes: list[Process], statement: str, why: str) -> None:
    """An administrator could make an alert say something else than it did when it was judged."""
    process = processes[0]
    await process.tell("registry-commands", a_command(ApplySpec(spec=a_spec())))
    await process.tell("alerts", an_alert("a"))
    assert (await process.shelf.verify()).intact
    async with process.database.transaction() as connection:
        await connection.execute(statement)
    check = await process.shelf.verify()
    assert check.broken_at == 2
    assert why in check.reason


async def test_long_chain_is_checked_in_pieces(processes: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain longer than one piece would be called broken, or only its beginning would be checked."""
    monkeypatch.setattr("tailrace_registry.adapters.postgres.CHAIN_PIECE", 2)
    process = processes[0]
    specs = [a_command(ApplySpec(spec=a_spec(owner=f"o{n}")), command_id=f"c-{n}") for n in range(5)]
    await process.tell("registry-commands", *specs)
    check = await process.shelf.verify()
    assert (check.intact, check.entries, check.head.sequence) == (True, 5, 5)
