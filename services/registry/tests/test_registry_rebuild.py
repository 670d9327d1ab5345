"""A registry whose database is gone, or was put back to an older day: it comes back from the topics."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from services.registry.tests.test_registry_service import Deployment
from tailrace_contracts.events import (
    AppliedLog,
    ApplySpec,
    BooksWritten,
    DeploymentChanged,
    Event,
    MuteAlerts,
    PauseRollout,
    PromoteVersion,
    RollbackModel,
    TrainingRequested,
    TrainModel,
    VersionChanged,
)
from tailrace_registry.adapters.rebuild import in_order
from tailrace_registry.domain.unsent import Unsent, fingerprint
from tailrace_registry.testing import NOON, a_candidate, a_command, a_comparison, a_revision, a_spec, an_alert
from tailrace_runtime.database import provision
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all
from tailrace_testing import Broker, ServiceProcess, eventually

TABLES = {
    "models": "name",
    "specs": "model, revision",
    "versions": "model, version",
    "revisions": "model, run_id",
    "deployments": "model, sequence",
    "mutes": "model, sequence",
    "moves": "model, version, sequence",
    "evidence": "model, kind, event_id",
    "audit": "sequence",
    "audit_head": "sequence",
    "applied": "topic, partition",
}
"""Every table that the registry decides by, and the order in which it is compared."""


@pytest.fixture
async def registry(kafka: Broker, database: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment whose registry has not been started."""
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("rebuild") + "-")
    deployment = Deployment(settings, await provision(database, "registry", "a-password"), tmp_path)
    await deployment.open()
    yield deployment
    await deployment.close()


async def dump(registry: Deployment) -> dict[str, list[str]]:
    """Every row of every table as PostgreSQL writes it."""
    async with registry.database() as sql:
        return {
            table: [row[0] for row in await sql.fetch(f"select t::text from {table} t order by {order}")]  # noqa: S608
            for table, order in TABLES.items()
        }


async def emptied(registry: Deployment) -> None:
    """Every table is gone, as after a lost disk."""
    async with registry.database() as sql:
        tables = await sql.fetch("select tablename from pg_tables where schemaname = 'registry'")
        await sql.execute("drop table " + ", ".join(row["tablename"] for row in tables) + " cascade")
        await sql.execute("drop function audit_is_for_ever, learned_from, offsets_learned")


async def outbox_is_empty(registry: Deployment) -> None:
    """Return once everything decided is published."""
    async with registry.database() as sql:

        async def empty() -> bool:
            return not await sql.fetchval("select count(*) from outbox")

        await eventually(empty, seconds=60)


async def a_long_story(registry: Deployment) -> None:
    """Something in every table: specs, rollouts, a rollback, mutes, a continual version, evidence, refusals."""
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"), a_candidate("r", continual=True))
    await eventually(lambda: 3 in {each.version for each in registry.of(VersionChanged)}, seconds=60)
    await registry.tell("revision-trained", *(a_revision("r", number) for number in range(1, 6)))
    await registry.tell("evaluations", a_comparison(2, 1, "better"), a_comparison(2, 1, "better", stage="canary"))
    await eventually(lambda: 2 in {each.champion for each in registry.of(DeploymentChanged)}, seconds=60)
    await registry.tell("alerts", an_alert("alert-1"))
    await registry.tell("evaluations", a_comparison(3, 2, "undecided"))
    mute = MuteAlerts(owner="ada", until=datetime.now(UTC) + timedelta(days=30))
    await registry.tell(
        "registry-commands",
        a_command(ApplySpec(spec=a_spec(owner="another")), command_id="again"),
        a_command(RollbackModel(), command_id="back"),
        a_command(PauseRollout(), command_id="pause", reason="holidays"),
        a_command(mute, command_id="mute", reason="noise"),
        a_command(PromoteVersion(version=9), command_id="refused"),
        a_command(TrainModel(), command_id="train"),
    )
    await registry.answered("train")
    await eventually(lambda: 5 in {e.revision for e in registry.of(VersionChanged) if e.version == 3}, seconds=60)
    await outbox_is_empty(registry)


async def settled(registry: Deployment, process: ServiceProcess, wanted: dict[str, list[str]]) -> None:
    """Return once the database is as it was: inputs that decide nothing have been read once more, too."""
    await eventually(process.ready, seconds=60)

    async def same() -> None:
        found = await dump(registry)
        for table, rows in wanted.items():
            assert found[table] == rows, table

    await eventually(same, seconds=60)


async def test_an_empty_database_comes_back_byte_for_byte(registry: Deployment) -> None:
    """A lost database would be the end of every version, decision and audit entry, or the beginning of others."""
    process = registry.start()
    await a_long_story(registry)
    before, published = await dump(registry), len(registry.heard)
    assert [table for table in TABLES if not before[table]] == []
    process.kill()
    await emptied(registry)
    await settled(registry, registry.start(), before)
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec(owner="third")), command_id="after"))
    assert (await registry.answered("after")).outcome == "done"
    assert (await registry.get("/v1/audit/verify"))["intact"]
    registry.chain_is_whole_and_single()
    sequences = [sequence for sequence, _ in await registry.champion_sequence()]
    assert sequences == list(range(1, len(sequences) + 1))
    again = [event for event in registry.heard[published:] if isinstance(event, TrainingRequested)]
    assert again == []


async def test_an_outdated_database_is_brought_up_to_date(registry: Deployment) -> None:
    """A database put back from a backup would decide by what is no longer so, and fork the audit chain."""
    process = registry.start()
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    await outbox_is_empty(registry)
    process.kill()
    async with registry.database() as sql:
        backup = await backed_up(sql)
    process = registry.start()
    await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await eventually(lambda: len(registry.of(DeploymentChanged)) >= 2, seconds=60)
    await registry.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="p"))
    await registry.answered("p")
    await outbox_is_empty(registry)
    before, published = await dump(registry), len(registry.heard)
    process.kill()
    async with registry.database() as sql:
        await put_back(sql, backup)
    await settled(registry, registry.start(), before)
    await registry.tell("registry-commands", a_command(PromoteVersion(version=1), command_id="q"))
    await registry.answered("q")
    assert [each.champion for each in registry.heard[published:] if isinstance(each, DeploymentChanged)] == [1]
    registry.chain_is_whole_and_single()


Backup = dict[str, list[dict[str, Any]]]


async def backed_up(sql: asyncpg.Connection) -> Backup:
    """What the tables have now."""
    tables = [*TABLES, "journal_head"]
    return {table: [dict(row) for row in await sql.fetch(f"select * from {table}")] for table in tables}  # noqa: S608


async def put_back(sql: asyncpg.Connection, backup: Backup) -> None:
    """The tables as they were."""
    await sql.execute("alter table audit disable trigger user")
    for table in reversed(backup):
        await sql.execute(f"delete from {table}")  # noqa: S608
    await sql.execute("alter table audit enable trigger user")
    for table, rows in backup.items():
        for row in rows:
            names, places = ", ".join(row), ", ".join(f"${number}" for number in range(1, len(row) + 1))
            await sql.execute(f"insert into {table} ({names}) values ({places})", *row.values())  # noqa: S608


async def test_what_was_decided_and_not_published_is_decided_once_more(registry: Deployment) -> None:
    """A command that was taken and whose answer died with the database would never be answered."""
    process = registry.start()
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    await outbox_is_empty(registry)
    assert await process.told_to_stop() == 0
    process = registry.start(roles="decide")
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec(owner="b")), command_id="lost"))
    async with registry.database() as sql:

        async def decided() -> bool:
            return bool(await sql.fetchval("select count(*) from audit where command_id = 'lost'"))

        await eventually(decided, seconds=60)
    assert await process.told_to_stop() == 0
    await emptied(registry)
    registry.start()
    assert (await registry.answered("lost")).outcome == "done"
    registry.chain_is_whole_and_single()


async def test_events_that_never_left_the_outbox_are_sent(registry: Deployment) -> None:
    """Serving would go on with a champion that was replaced in the second in which the database died."""
    process = registry.start()
    await a_long_story(registry)
    assert await process.told_to_stop() == 0
    last = registry.of(DeploymentChanged)[-1]
    held = last.model_copy(update={"sequence": last.sequence + 1, "reason": "the last word before the fire"})
    change = await another_change(registry, held)
    await registry.tell("registry-journal", change, change)
    await emptied(registry)
    registry.start()
    await eventually(lambda: registry.of(DeploymentChanged)[-1] == held, seconds=60)
    assert registry.of(DeploymentChanged).count(held) == 1


async def another_change(registry: Deployment, event: Event) -> BooksWritten:
    """The next change of the journal, of which nothing but the journal's record was sent."""
    async with registry.database() as sql:
        number = await sql.fetchval("select number from journal_head")
        applied = [AppliedLog(**dict(row)) for row in await sql.fetch("select * from applied")]
    published = (event.model_dump_json(),)
    return BooksWritten(number=number + 1, model="rain", published=published, applied=tuple(applied), time=NOON)


def test_only_what_is_behind_the_last_event_of_its_key_is_sent() -> None:
    """Compaction took older events from the topic: they would be sent again, behind the newer ones."""
    texts = [json.dumps({"n": n}) for n in range(5)]
    unsent = Unsent[str]({"deployments": {fingerprint(json.dumps({"n": 2}, indent=1))}})
    for text in texts:
        unsent.take("deployments", "rain", text, text)
        unsent.take("deployments", "snow", text, text, forgotten=text == texts[3])
    assert unsent.found == [texts[3], texts[4], texts[4]]


async def test_changes_that_were_sent_twice_are_made_once_and_in_order() -> None:
    """After a crash of the relay the database could never be rebuilt again."""

    async def journal(*numbers: int) -> AsyncGenerator[bytes, None]:
        for number in numbers:
            yield BooksWritten(number=number, model="rain", time=NOON).encode()

    numbers = (1, 3, 4, 2, 3, 4, 5, 5, 6, 8, 7, 9)
    assert [each.number async for each in in_order(journal(*numbers), 1, 3)] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [each.number async for each in in_order(journal(*numbers), 9)] == []


async def forget_the_journal(registry: Deployment) -> None:
    """The journal's topic is made anew, as in a deployment from before there was one."""
    admin = AIOKafkaAdminClient(bootstrap_servers=registry.settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_topics([registry.settings.topic("registry-journal")])
    await admin.close()

    async def made_anew() -> bool:
        return "registry-journal" in await create_all(registry.settings)

    await eventually(made_anew, seconds=30)


async def test_books_from_before_the_journal_begin_it(registry: Deployment) -> None:
    """A deployment that was upgraded could never be rebuilt, and nobody would know until it is needed."""
    process = registry.start()
    await a_long_story(registry)
    before, published = await dump(registry), len(registry.heard)
    assert await process.told_to_stop() == 0
    async with registry.database() as sql:
        await sql.execute("update journal_head set number = 0")
    await forget_the_journal(registry)
    process = registry.start()
    await eventually(process.ready, seconds=60)
    await outbox_is_empty(registry)
    assert await process.told_to_stop() == 0
    await emptied(registry)
    await settled(registry, registry.start(), before)
    assert len(registry.heard) == published


async def test_an_empty_database_beside_an_audit_log_without_a_journal_is_refused(registry: Deployment) -> None:
    """A registry that begins anew beside an old audit log would fork its chain."""
    process = registry.start()
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    assert await process.told_to_stop() == 0
    await emptied(registry)
    await forget_the_journal(registry)
    process = registry.start()
    assert await process.end(60) == 1
    assert "restore the database from a backup" in process.written().splitlines()[-1]


async def test_a_backup_from_before_the_journal_is_refused(registry: Deployment) -> None:
    """The registry would make changes again that the backup has, and end at each start with an error of the database."""
    process = registry.start()
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    await outbox_is_empty(registry)
    assert await process.told_to_stop() == 0
    async with registry.database() as sql:
        await sql.execute("update journal_head set number = 0")
    process = registry.start()
    assert await process.end(60) == 1
    assert "start on an empty database instead" in process.written().splitlines()[-1]


async def test_a_journal_that_lost_its_end_is_told_of_at_the_next_start(registry: Deployment) -> None:
    """Nobody would know that the database cannot be rebuilt any more before it has to be."""
    process = registry.start()
    await registry.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await registry.answered("apply")
    await outbox_is_empty(registry)
    assert await process.told_to_stop() == 0
    process = registry.start()
    await eventually(process.ready, seconds=60)
    assert await process.told_to_stop() == 0
    assert "has lost changes" not in process.written()
    await forget_the_journal(registry)
    process = registry.start()
    await eventually(process.ready, seconds=60)
    assert "registry-journal has lost changes" in process.written()
