"""Kill processes, and Kafka, under load, and count.

    uv run python -m tests.chaos --events 100000 --kills 20          every role of ingestion
    uv run python -m tests.chaos rollout --kills 20                  serving, registry and monitoring during rollouts
    uv run python -m tests.chaos outage --minutes 10                 the broker, absent and then frozen, under serving

Prints what must be on the topics, and what is there; ends with 1 on any difference. Kafka and PostgreSQL are started for
the run. With `--seed` of an earlier run the same kills are made in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tailrace_ingestion.testing import Deployment
from tailrace_local import EmbeddedKafka, EmbeddedPostgres
from tailrace_runtime.settings import KafkaSettings
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load, Script
from tests.chaos.outage import KINDS, Outage
from tests.chaos.points import ROLES
from tests.chaos.readout import Row, table
from tests.chaos.rollouts import Rollouts
from tests.chaos.rollouts import run as run_rollouts
from tests.chaos.scenario import Scenario, run, settings_for
from tests.chaos.world import World

PREDICTIONS_SHARE = 0.58
"""Of a script's events; the others are labels."""


def teller() -> Callable[[str], None]:
    """Says sentences with the seconds since now."""
    began = time.monotonic()

    def say(sentence: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {sentence}", flush=True)

    return say


async def ingestion(chosen: argparse.Namespace, folder: Path) -> bool:
    """Every role of ingestion; whether nothing was lost and nothing doubled."""
    say = teller()

    with EmbeddedKafka(folder / "kafka") as kafka:
        deployment = Deployment(settings_for(kafka.bootstrap, "", folder))
        load = Load(deployment, Script(int(chosen.events * PREDICTIONS_SHARE)), chosen.rate)
        scenario = Scenario(deployment, load, folder, chosen.seed, say)
        groups = {**dict.fromkeys(ROLES, 2), "gateway": 1}
        rows = await run(scenario, groups, lambda: scenario.strike_all(chosen.kills))
    print(f"\n{'process':16}{'starts':>8}{'kills':>8}{'gave up':>9}")
    for member in scenario.everyone:
        print(f"{member.name:16}{member.starts:>8}{member.kills:>8}{member.gave_up:>9}")
    print(
        f"\n{scenario.load.sent:,} events, {scenario.load.repeated} requests to the gateway sent again, seed {chosen.seed}\n"
    )
    print(table(rows))
    return all(row.holds for row in rows)


async def rollout(chosen: argparse.Namespace, folder: Path) -> bool:
    """Serving, registry and monitoring; whether nothing was lost and nothing doubled."""
    with EmbeddedKafka(folder / "kafka") as kafka, EmbeddedPostgres(folder / "postgres", durable=False) as postgres:
        fleet = Fleet(KafkaSettings(kafka_bootstrap=kafka.bootstrap), postgres.admin_url, folder)
        rollouts = Rollouts(fleet, World.around(fleet, chosen.rate), chosen.seed, teller())
        rows = await run_rollouts(rollouts, lambda: rollouts.strike_all(chosen.kills))
    print(f"\n{'process':16}{'starts':>8}{'kills':>8}{'gave up':>9}")
    for name, process in fleet.processes.items():
        print(f"{name:16}{process.starts:>8}{process.kills:>8}{process.gave_up:>9}")
    print(f"\nseed {chosen.seed}\n\n{table(rows)}")
    return all(row.holds for row in rows)


async def outage(chosen: argparse.Namespace, folder: Path) -> bool:
    """A broker that is away, and one that hangs; whether no question failed and every answer is accounted for."""
    verdicts: list[Row] = []
    for kind in KINDS if chosen.kind == "both" else (chosen.kind,):
        place = folder / kind
        place.mkdir()
        with EmbeddedKafka(place / "kafka") as kafka:
            seconds = chosen.minutes * 60
            run = Outage(kafka, place, kind, chosen.rate, teller())
            rows = [*await run.run(seconds, min(120.0, seconds)), *run.felt()]
        print(f"\n{kind}\n{table(rows)}\n", flush=True)
        verdicts += rows
    return all(row.holds for row in verdicts)


SCENARIOS = {"ingestion": ingestion, "rollout": rollout, "outage": outage}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="?", choices=SCENARIOS, default="ingestion")
    parser.add_argument("--events", type=int, default=100_000, help="of ingestion, at least")
    parser.add_argument("--kills", type=int, default=20, help="of each role or service, at random")
    parser.add_argument("--rate", type=float, help="events, or questions, a second while processes are killed")
    parser.add_argument("--minutes", type=float, default=10, help="of an outage")
    parser.add_argument("--kind", choices=[*KINDS, "both"], default="both", help="of an outage")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    chosen = parser.parse_args()
    chosen.rate = chosen.rate or {"ingestion": 300, "rollout": 60, "outage": 300}[chosen.scenario]
    print(f"seed {chosen.seed}")
    with tempfile.TemporaryDirectory(prefix="tailrace-chaos-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if asyncio.run(SCENARIOS[chosen.scenario](chosen, folder)) else 1)


if __name__ == "__main__":
    main()
