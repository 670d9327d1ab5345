"""The registry as a process, on a real broker and a real PostgreSQL: the whole way, killed at each moment, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tailrace_contracts.audit import verify_chain
from tailrace_contracts.events import (
    ApplySpec,
    AuditRecorded,
    DeploymentChanged,
    Event,
    PromoteVersion,
    SpecApplied,
    VersionChanged,
)
from tailrace_local import EmbeddedPostgres
from tailrace_registry.testing import a_candidate, a_command, a_comparison, a_spec
from tailrace_runtime.database import provision
from tailrace_runtime.follower import Follower
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all
from tailrace_testing import Broker, ServiceProcess, environment_of, eventually

OUT = ("model-specs", "model-versions", "deployments", "training-requested", "audit-entries", "dead-letters")


class Deployment:
    """Topics, a database, and the registry's processes between them."""

    def __init__(self, settings: KafkaSettings, database_url: str, logs: Path) -> None:
        self.settings = settings
        self.database_url = database_url
        self.heard: list[Event] = []
        self._logs = logs
        self._producer = Producer(settings)
        self._processes: list[ServiceProcess] = []

    async def open(self) -> None:
        """Create the topics and listen to those that the registry writes."""
        await create_all(self.settings)
        await self._producer.start()

        def hear(event: Event | None, record: Record) -> None:
            del record
            if event is not None:
                self.heard.append(event)

        self._followers = [Follower(self.settings, topic, hear) for topic in OUT]
        for follower in self._followers:
            await follower.start()

    async def close(self) -> None:
        """Leave nothing behind; pytest shows the processes' logs where the test failed."""
        for process in self._processes:
            process.kill()
        for follower in self._followers:
            await follower.stop()
        await self._producer.stop()
        for process in self._processes:
            print(process.name, process.written(), sep="\n")

    def start(self, roles: str = "", instance: str = "0", **more: str) -> ServiceProcess:
        """A registry process, with more settings. `get` asks the one that was started last."""
        given = {**environment_of(self.settings), "TAILRACE_ROLES": roles, "TAILRACE_INSTANCE": instance}
        given |= {f"TAILRACE_{name.upper()}": value for name, value in more.items()}
        name = f"registry-{len(self._processes)}"
        made = ServiceProcess(
            name,
            ["-m", "tailrace_registry.main"],
            self._logs / f"{name}.log",
            **given,
            TAILRACE_DATABASE_URL=self.database_url,
        )
        made.start()
        self._processes.append(made)
        return made

    async def tell(self, topic: str, *events: Event) -> None:
        """Publish events, acknowledged."""
        await self._producer.send_all([outgoing(event, topic, "rain") for event in events])

    def of(self, kind: type[Event]) -> list[Any]:
        """What was published of a class, in order."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def answered(self, command_id: str) -> AuditRecorded:
        """The answer to a command, once it is there."""

        def answers() -> list[AuditRecorded]:
            return [entry for entry in self.of(AuditRecorded) if entry.command_id == command_id]

        return (await eventually(answers, seconds=60))[0]

    async def get(self, path: str) -> Any:
        """What the registry answers over HTTP."""
        async with httpx.AsyncClient() as client:
            return (await client.get(self._processes[-1].base + path)).json()

    async def post(self, path: str, body: dict[str, Any], token: str) -> Any:
        """What the registry answers to a command."""
        async with httpx.AsyncClient() as client:
            headers = {"authorization": f"Bearer {token}"}
            return (await client.post(self._processes[-1].base + path, json=body, headers=headers)).json()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """The registry's own tables."""
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def stored(self, table: str) -> None:
        """Return once something stands in a table."""
        async with self.database() as watch:

            async def is_stored() -> bool:
                exists = await watch.fetchval("select to_regclass($1) is not null", table)
                return bool(exists and await watch.fetchval(f"select count(*) from {table}"))  # noqa: S608

            await eventually(is_stored, seconds=60)

    async def champion_sequence(self) -> list[tuple[int, int | None]]:
        """Every deployment published, with its champion."""
        return [(each.sequence, each.champion) for each in self.of(DeploymentChanged)]

    def chain_is_whole_and_single(self) -> None:
        """Every audit entry was published, and none of them twice under another number."""
        by_sequence = {entry.sequence: entry for entry in self.of(AuditRecorded)}
        assert all(entry == by_sequence[entry.sequence] for entry in self.of(AuditRecorded))
        assert verify_chain(by_sequence[number].encode() for number in sorted(by_sequence)).intact
        commands = [entry.command_id for entry in by_sequence.values() if entry.command_id]
        assert len(commands) == len(set(commands))
        moves = [(e.subject, e.reason) for e in by_sequence.values() if e.command_id is None]
        assert len(moves) == len(set(moves))


@pytest.fixture
async def registry(kafka: Broker, database: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment whose registry has not been started."""
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("registry") + "-")
    deployment = Deployment(settings, await provision(database, "registry", "a-password"), tmp_path)
    await deployment.open()
    yield deployment
    await deployment.close()


APPLY = a_command(ApplySpec(spec=a_spec()), command_id="apply")


async def test_whole_way_on_the_real_broker(registry: Deployment) -> None:
    """Candidates would not become champions on evidence, or other services would not hear of it."""
    process = registry.start()
    await registry.tell("registry-commands", APPLY)
    assert (await registry.answered("apply")).outcome == "done"
    await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await eventually(lambda: len(registry.of(DeploymentChanged)) == 2, seconds=60)
    await registry.tell("evaluations", a_comparison(2, 1, "better"), a_comparison(2, 1, "better", stage="canary"))
    await eventually(lambda: len(registry.of(DeploymentChanged)) == 4, seconds=60)
    assert await registry.champion_sequence() == [(1, 1), (2, 1), (3, 1), (4, 2)]
    await registry.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="again"))
    assert (await registry.answered("again")).outcome == "refused"
    registry.chain_is_whole_and_single()
    assert [(v.version, v.stage) for v in registry.of(VersionChanged)][-2:] == [(1, "retired"), (2, "champion")]
    assert (await registry.get("/v1/models"))["models"][0]["champion"] == 2
    assert (await registry.get("/v1/audit/verify"))["intact"]
    assert (await registry.get("/readyz"))["waiting"] == {}
    assert await process.told_to_stop(20) == 0


async def test_command_over_http_goes_the_way_of_all_commands(registry: Deployment, tmp_path: Path) -> None:
    """A command over HTTP would be promised and never done, or done past the topic that the audit can be replayed from."""
    token = "t" * 40
    (tmp_path / "tokens").write_text(f"ci-cd {token}\n")
    registry.start(commands_token_file=str(tmp_path / "tokens"))
    await registry.tell("registry-commands", APPLY)
    await registry.answered("apply")
    await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await eventually(lambda: len(registry.of(DeploymentChanged)) == 2, seconds=60)
    asked = {"command": "promote", "version": 2, "reason": "reviewed"}
    taken = await registry.post("/v1/models/rain/commands", asked, token)
    answer = await registry.answered(taken["command_id"])
    assert (answer.outcome, answer.actor, answer.action) == ("done", "ci-cd", "promote")
    assert (await registry.get(taken["outcome"]))["outcome"] == "done"
    assert (await registry.post("/v1/models/rain/commands", asked, "x" * 40))["error"].startswith("a command needs")
    registry.chain_is_whole_and_single()


async def test_killed_before_commit(registry: Deployment) -> None:
    """A registry killed in the middle of a decision would leave half of it behind, or never take it again."""
    process = registry.start()
    await registry.tell("registry-commands", APPLY)
    await registry.answered("apply")
    async with registry.database() as ours, registry.database() as watch:
        async with ours.transaction():
            await ours.execute("select from audit_head for update")
            await registry.tell("candidate-trained", a_candidate("a"))

            async def waits_for_our_lock() -> bool:
                return bool(await watch.fetchval("select count(*) from pg_locks where not granted"))

            await eventually(waits_for_our_lock, seconds=60)
            process.kill()
        assert await watch.fetchval("select count(*) from versions") == 0
    registry.start()
    await eventually(lambda: registry.of(DeploymentChanged), seconds=60)
    assert await registry.champion_sequence() == [(1, 1)]
    registry.chain_is_whole_and_single()


async def test_killed_after_commit_before_relay(registry: Deployment) -> None:
    """A decision that is stored and was never published would leave serving with a champion that is none."""
    process = registry.start(roles="decide")
    await registry.tell("registry-commands", APPLY)
    await registry.stored("specs")
    await registry.tell("candidate-trained", a_candidate("a"))
    await registry.stored("versions")
    process.kill()
    assert registry.heard == []
    registry.start()
    await eventually(lambda: registry.of(DeploymentChanged), seconds=60)
    await registry.answered("apply")
    assert [event.spec_revision for event in registry.of(SpecApplied)] == [1]
    assert await registry.champion_sequence() == [(1, 1)]
    registry.chain_is_whole_and_single()


async def test_killed_at_any_moment_under_load(registry: Deployment) -> None:
    """Somewhere between two steps a kill would lose a decision, or take it twice."""
    process = registry.start()
    await registry.tell("registry-commands", APPLY)
    await registry.answered("apply")
    for turn in range(3):
        first = 2 + turn * 40
        commands = [
            a_command(ApplySpec(spec=a_spec(owner=f"owner-{n}")), command_id=f"c-{n}") for n in range(first, first + 40)
        ]
        await registry.tell("registry-commands", *commands)
        await eventually(lambda first=first: len(registry.of(SpecApplied)) >= first)  # type: ignore[misc]  # a late binding made early
        process.kill()
        process = registry.start()
    await registry.answered("c-121")
    revisions = {event.spec_revision: event.spec.owner for event in registry.of(SpecApplied)}
    assert revisions == {1: "weather-team"} | {n: f"owner-{n}" for n in range(2, 122)}
    registry.chain_is_whole_and_single()


async def test_second_process_takes_over(registry: Deployment) -> None:
    """An SRE who runs two registries would still lose the service with the first of them, or get decisions twice."""
    first = registry.start()
    await registry.tell("registry-commands", APPLY)
    await registry.answered("apply")
    registry.start(instance="1")
    await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    first.kill()
    await eventually(lambda: len(registry.of(DeploymentChanged)) >= 2, seconds=60)
    await registry.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="p"))
    assert (await registry.answered("p")).outcome == "done"
    assert {champion for _, champion in await registry.champion_sequence()} == {1, 2}
    registry.chain_is_whole_and_single()


async def test_database_down_at_start_and_away_later(
    kafka: Broker, database_of_its_own: Callable[[], EmbeddedPostgres], tmp_path: Path
) -> None:
    """A database that restarts would take the registry down with it, or cost it an event."""
    server = await asyncio.to_thread(database_of_its_own)
    url = await provision(server.admin_url, "registry", "a-password")
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("registry") + "-")
    registry = Deployment(settings, url, tmp_path)
    await registry.open()
    try:
        await asyncio.to_thread(server.stop)
        process = registry.start()
        await registry.tell("registry-commands", APPLY)

        async def says_why() -> bool:
            try:
                return "database" in str((await registry.get("/readyz"))["waiting"]).lower()
            except httpx.ConnectError:
                return False

        await eventually(says_why, seconds=60)
        await asyncio.to_thread(server.start)
        await registry.answered("apply")

        await asyncio.to_thread(server.kill)
        await registry.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
        await eventually(says_why, seconds=60)
        await asyncio.to_thread(server.start)
        await eventually(lambda: len(registry.of(DeploymentChanged)) >= 2, seconds=60)
        assert await registry.champion_sequence() == [(1, 1), (2, 1)]
        assert process.ended is None
        registry.chain_is_whole_and_single()
    finally:
        await registry.close()
