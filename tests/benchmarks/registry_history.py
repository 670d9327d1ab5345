"""How quickly the registry says who answered at a moment, and decides, of a model with many versions.

    uv run python -m tests.benchmarks.registry_history --versions 100000

A real PostgreSQL is filled with versions that each were champion once; the newest is champion, the one before in shadow.
Each learned from 2,000 examples of four partitions, ten newer than the one before. Then the HTTP API is asked, one request after
the other, for moments and records chosen at random: who answered then, how the versions stood then, which saw this record. The
figure is the time of a request, in milliseconds. Last, the registry reads comparisons and commands, each a record with a transaction of its own,
as its consumer does: an undecided comparison, a promotion of an old version, a rollback.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from tailrace_contracts.events import DeploymentChanged, Event, PromoteVersion, RollbackModel, SpecApplied
from tailrace_local import EmbeddedPostgres
from tailrace_registry.adapters.postgres import PostgresBooks, PostgresShelf
from tailrace_registry.adapters.rows import topics_out
from tailrace_registry.app import batch_handlers
from tailrace_registry.domain.rollout import version_of
from tailrace_registry.http import create_api
from tailrace_registry.main import TOPICS_IN, TOPICS_OUT
from tailrace_registry.testing import NOON, a_candidate, a_command, a_comparison, a_desk, a_spec
from tailrace_runtime.database import Database, provision
from tailrace_runtime.testing import FixedClock, record

REQUESTS = 300
BETWEEN, LEARNED = 10, 2_000
"""Examples of a partition between two versions, and those that each learned from."""
DECISIONS = 20


async def fill(database: Database, count: int) -> None:
    """One model with so many versions, of which one after the other was champion for a minute."""
    version = version_of(a_candidate("run"), 1).model_copy(update={"stage": "retired"})
    deployment = DeploymentChanged(model="rain", sequence=1, spec_revision=1, champion=1, reason="bench", time=NOON)
    async with database.transaction() as sql:
        await sql.execute("insert into models (name, spec_revision) values ('rain', 1)")
        applied = SpecApplied(model="rain", spec_revision=1, spec=a_spec(), applied_by="bench", time=NOON)
        await sql.execute(
            "insert into specs (model, revision, event, applied_at) values ('rain', 1, $1, $2)",
            applied.model_dump_json(),
            NOON,
        )
        await sql.execute(
            """
            insert into versions (model, version, run_id, stage, fits, event)
            select 'rain', n, 'run-' || n, 'retired', true,
                jsonb_set(jsonb_set($1::jsonb, '{version}', to_jsonb(n)), '{lineage,trained_on}', (
                    select jsonb_agg(jsonb_build_object('topic', 'labelled-examples', 'partition', p,
                        'from_offset', n * $3, 'through_offset', n * $3 + $4)) from generate_series(0, 3) p
                ))
            from generate_series(1, $2::integer) n
            """,
            version.model_dump_json(),
            count,
            *(BETWEEN, LEARNED),
        )
        await sql.execute(
            """
            insert into moves (model, version, sequence, stage, moved_at)
            select 'rain', n, 3 * (n - $1) + k - 10, (array['registered', 'champion', 'retired'])[k],
                $2::timestamptz + (n + k / 3) * interval '1 minute'
            from generate_series(1, $1::integer) n, generate_series(1, 3) k where n < $1 or k < 3
            """,
            count,
            NOON,
        )
        await sql.execute("analyze versions")
        await sql.execute("analyze moves")
        for number, stage in ((count, "champion"), (count - 1, "shadow")):
            await sql.execute(
                "update versions set stage = $2, event = jsonb_set(event, '{stage}', to_jsonb($2::text)) where version = $1",
                number,
                stage,
            )
        await sql.execute("update models set predecessors = array(select generate_series(1, $1::integer))", count - 1)
        await sql.execute(
            """
            insert into deployments (model, sequence, event, announced_at)
            select 'rain', n, jsonb_set(jsonb_set($1::jsonb, '{sequence}', to_jsonb(n)), '{champion}', to_jsonb(n)),
                $3::timestamptz + n * interval '1 minute'
            from generate_series(1, $2::integer) n
            """,
            deployment.model_dump_json(),
            count,
            NOON,
        )


async def asked(api: httpx.AsyncClient, count: int, chance: random.Random) -> dict[str, list[float]]:
    """Milliseconds of each request, by what was asked; every answer is checked."""
    spent: dict[str, list[float]] = {}

    async def ask(what: str, path: str, **query: str) -> Any:
        began = time.perf_counter()
        answer = await api.get(f"/v1/models/rain{path}", params=query)
        spent.setdefault(what, []).append((time.perf_counter() - began) * 1000)
        return answer.raise_for_status().json()

    for _ in range(REQUESTS):
        moment = NOON + timedelta(minutes=chance.uniform(2, count))
        number, then = int((moment - NOON).total_seconds() // 60), {"as_of": moment.isoformat()}
        (deployment,) = (await ask("who answered at a moment", "/deployments", limit="1", **then))["deployments"]
        lines = (await ask("100 versions as of a moment", "/versions", **then))["versions"]
        champion = await ask("the champion of a moment, whole", "/versions/champion", **then)
        offset = chance.randrange(LEARNED, count * BETWEEN)
        saw = (await ask("100 versions that saw a record", "/versions", saw=f"labelled-examples[2]@{offset}"))[
            "versions"
        ]
        found = (deployment["champion"], lines[0]["version"], lines[1]["stage"], champion["version"]["version"])
        newest = min(offset // BETWEEN, count)
        if found != (number, number, "retired", number) or saw[0]["version"] != newest:
            raise SystemExit(f"at {moment} the API says {found}, and {saw[0]['version']} for {newest}")
    return spent


async def decided(database: Database, count: int) -> dict[str, list[float]]:
    """Milliseconds of each decision, by what was decided."""
    clock = FixedClock(NOON)
    handlers = batch_handlers(TOPICS_IN, PostgresBooks(database, topics_out(TOPICS_OUT)), clock)
    spent: dict[str, list[float]] = {"an undecided comparison": [], "a promotion": [], "a rollback": []}

    async def read(what: str, topic: str, event: Event, offset: int) -> None:
        began = time.perf_counter()
        await handlers[topic]([record(event, topic, offset=offset)])
        spent[what].append((time.perf_counter() - began) * 1000)

    for step in range(DECISIONS):
        compared = a_comparison(count - 1, count, "undecided", evaluation_id=f"e-{step}")
        await read("an undecided comparison", "evaluations", compared, step)
    for step in range(DECISIONS):
        promote = a_command(PromoteVersion(version=7 + step), command_id=f"p-{step}")
        await read("a promotion", "registry-commands", promote, 2 * step)
        await read("a rollback", "registry-commands", a_command(RollbackModel(), command_id=f"r-{step}"), 2 * step + 1)
    return spent


async def run(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        database = Database(await provision(postgres.admin_url, "registry", "a-password"), "tailrace_registry")
        await database.start()
        await fill(database, count)
        transport = httpx.ASGITransport(create_api(PostgresShelf(database), a_desk()))
        async with httpx.AsyncClient(transport=transport, base_url="http://registry") as api:
            spent = await asked(api, count, random.Random(7))
            began = time.perf_counter()
            (await api.get("/v1/models/rain")).raise_for_status()
            page = (time.perf_counter() - began) * 1000
        decisions = await decided(database, count)
        await database.stop()
    print(f"load average {os.getloadavg()[0]:.1f}; the model's own page took {page:.0f} ms")
    for what, each in decisions.items():
        print(f"{what}: median {statistics.median(each):.1f} ms, slowest {max(each):.1f} ms of {len(each)}")
    print(f"{count:,} versions, {REQUESTS} requests each:")
    for what, each in spent.items():
        cuts = statistics.quantiles(each, n=100)
        print(f"{what}: p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=int, default=100_000)
    asyncio.run(run(parser.parse_args().versions))
