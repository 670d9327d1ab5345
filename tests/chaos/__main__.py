"""Kill every role of ingestion at random and at every named point, under load, and count.

    uv run python -m tests.chaos --events 100000 --kills 20

Prints what must be on the topics and in the archive, and what is there; ends with 1 on any difference. Kafka is started
for the run. With `--seed` of an earlier run the same kills are made in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tailrace_ingestion.testing import Deployment
from tailrace_local import EmbeddedKafka
from tests.chaos.load import Load, Script
from tests.chaos.points import ROLES
from tests.chaos.scenario import Scenario, run, settings_for, table

PREDICTIONS_SHARE = 0.58
"""Of a script's events; the others are labels."""


async def chaos(chosen: argparse.Namespace, folder: Path) -> bool:
    """One run; whether nothing was lost and nothing doubled."""
    began = time.monotonic()

    def say(sentence: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {sentence}", flush=True)

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


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000, help="at least")
    parser.add_argument("--kills", type=int, default=20, help="of each role, at random")
    parser.add_argument("--rate", type=float, default=300, help="events a second while processes are killed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    with tempfile.TemporaryDirectory(prefix="tailrace-chaos-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if asyncio.run(chaos(chosen, folder)) else 1)


if __name__ == "__main__":
    main()
