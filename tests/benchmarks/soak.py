"""Half an hour of load on every role of ingestion, each a process of its own: does memory grow?

    uv run python -m tests.benchmarks.soak --rate 3000 --minutes 30
    uv run python -m tests.benchmarks.soak --rate 40000 --minutes 30 --roles validate,aggregate

A generator publishes events at a steady rate, with labels where `join` takes part. Every few seconds each process's own memory is measured (USS:
pages that it shares with nobody). After a warm-up a straight line is laid through the samples; their errors are
correlated, so the interval of the slope is that of means over blocks (batch means: Law, Simulation Modeling and
Analysis, 9.5.3). A role grows when the interval lies above zero *and* the line rises by more than the bound over the time
measured; then the run ends with 1, as it does when a role falls behind or ends.

Event time passes quickly, so that windows close and joined predictions pass their horizon within minutes; retention is
short and old archive files are removed, so that the disk stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from scipy import stats

from tailrace_contracts.events import SpecApplied
from tailrace_ingestion.settings import IngestionSettings
from tailrace_local import EmbeddedKafka
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually
from tests.benchmarks import generator
from tests.chaos.processes import Member

ROLES = ("validate", "aggregate", "join", "archive", "gateway")
RETENTION = {"retention.ms": "60000", "segment.ms": "30000", "segment.bytes": str(64 * 1024 * 1024)}
SAMPLE_SECONDS = 5.0
BLOCKS = 12
ARCHIVE_KEPT_SECONDS = 60
MAX_LAG_SECONDS = 30
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """Events a second, for so many minutes after a warm-up, on these roles."""

    rate: float
    minutes: float
    warm_up: float
    roles: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return (self.minutes + self.warm_up) * 60

    @property
    def records(self) -> float:
        """Records a second: an event, and its label where there is one."""
        return self.rate * (2 if "join" in self.roles else 1)

    def started(self, bootstrap: str) -> subprocess.Popen[bytes]:
        """The generator; it goes on a little longer than it is needed."""
        labels = ("--labels",) if "join" in self.roles else ()
        return generator.started(bootstrap, self.rate, self.seconds + 30, *labels, "--days-per-second", str(1 / 60))


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through samples of memory: MiB an hour, with the ends of its 95 % interval."""

    slope: float
    low: float
    high: float

    @classmethod
    def of(cls, hours: np.ndarray, mebibytes: np.ndarray) -> Trend:
        """Through the means of consecutive blocks, by least squares."""
        blocks = min(BLOCKS, len(hours))
        x = np.array([part.mean() for part in np.array_split(hours, blocks)])
        y = np.array([part.mean() for part in np.array_split(mebibytes, blocks)])
        fit = stats.linregress(x, y)
        margin = float(stats.t.ppf(0.975, blocks - 2) * fit.stderr)
        return cls(float(fit.slope), float(fit.slope) - margin, float(fit.slope) + margin)


@dataclass(slots=True)
class Samples:
    """What was measured of each process."""

    idle: dict[str, float] = field(default_factory=dict)
    hours: list[float] = field(default_factory=list)
    mebibytes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, float] = field(default_factory=dict)

    def take(self, at: float, members: list[Member]) -> None:
        """Measure now."""
        self.hours.append(at / 3600)
        for member in members:
            self.mebibytes[member.name].append(uss(member))


def uss(member: Member) -> float:
    """A process's own memory in MiB."""
    return float(psutil.Process(member.pid).memory_full_info().uss) / _MIB


def cpu_seconds(member: Member) -> float:
    """What a process has used."""
    times = psutil.Process(member.pid).cpu_times()
    return float(times.user + times.system)


async def short_retention(settings: IngestionSettings) -> None:
    """Let the broker forget quickly what only passes through."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    names = ("prediction-events", "label-events", "predictions", "labels", "labelled-examples", "feature-statistics")
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=RETENTION) for name in names])
    await admin.close()


def remove_old_files(folder: Path) -> None:
    """Keep the archive small."""
    before = time.time() - ARCHIVE_KEPT_SECONDS
    for each in folder.rglob("*.parquet"):
        if each.stat().st_mtime < before:
            each.unlink(missing_ok=True)


async def lag(members: list[Member]) -> dict[str, float]:
    """Records that each role has not read yet."""
    found = {}
    for member in members:
        _, text = await member.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith("tailrace_consumer_lag{")]
        found[member.name] = sum(float(line.split()[-1]) for line in lines)
    return found


async def soak(settings: IngestionSettings, folder: Path, load: Load) -> bool:
    """The load, the samples, the verdict."""
    members = [Member(settings, role, "0", folder) for role in load.roles]
    for member in members:
        member.start()
    generating: subprocess.Popen[bytes] | None = None
    samples = Samples()
    try:
        for member in members:
            await eventually(member.ready, seconds=120)
        samples.idle = {member.name: uss(member) for member in members}
        generating = load.started(settings.kafka_bootstrap)
        began = time.monotonic()
        used: dict[str, float] = {}
        while (elapsed := time.monotonic() - began) < load.seconds:
            await asyncio.sleep(SAMPLE_SECONDS)
            remove_old_files(folder / "objects")
            gone = [member.name for member in members if member.ended is not None]
            if gone or generating.poll() is not None:
                print(f"ended: {gone or 'the generator'}")
                return False
            if elapsed > load.warm_up * 60:
                used = used or {member.name: cpu_seconds(member) for member in members}
                samples.take(elapsed, members)
        samples.cpu = {member.name: cpu_seconds(member) - used[member.name] for member in members}
        late = load.records * MAX_LAG_SECONDS
        behind = {name: count for name, count in (await lag(members)).items() if count > late}
    finally:
        if generating is not None:
            generating.kill()
            generating.wait()
        for member in members:
            member.kill()
    return verdict(samples, load.rate, behind)


BOUND_MIB = {"validate": 16.0, "aggregate": 16.0, "join": 48.0, "archive": 48.0, "gateway": 8.0}
"""What a role may rise over the time measured before it counts as growing."""


def verdict(samples: Samples, rate: float, behind: dict[str, float]) -> bool:
    """Print the table; whether no role grows and none is behind."""
    hours = np.array(samples.hours)
    span = float(hours[-1] - hours[0])
    print(f"\n{rate:,.0f} events/s, {span * 60:.1f} min measured, load average {psutil.getloadavg()[0]:.1f}")
    print(
        f"{'role':12}{'idle':>8}{'mean':>8}{'peak':>8}{'first':>8}{'last':>8}{'MiB/h':>9}{'95 % interval':>20}{'CPU':>7}"
    )
    good = not behind
    for name, found in samples.mebibytes.items():
        values, trend = np.array(found), Trend.of(hours, np.array(found))
        fifth = max(len(values) // 5, 1)
        first, last = values[:fifth].mean(), values[-fifth:].mean()
        grows = trend.low > 0 and trend.slope * span > BOUND_MIB[name.partition("-")[0]]
        good &= not grows
        print(
            f"{name:12}{samples.idle[name]:>8.0f}{values.mean():>8.0f}{values.max():>8.0f}{first:>8.0f}{last:>8.0f}"
            f"{trend.slope:>9.1f}{f'{trend.low:.1f} to {trend.high:.1f}':>20}"
            f"{samples.cpu[name] / (span * 3600):>6.0%}{'  GROWS' if grows else ''}"
        )
    for name, count in behind.items():
        print(f"{name} is {count:,.0f} records behind")
    return good


async def run(load: Load) -> bool:
    """A soak on a Kafka of its own."""
    with tempfile.TemporaryDirectory(prefix="tailrace-soak-") as temporary:
        folder = Path(temporary)
        with EmbeddedKafka(folder / "kafka") as kafka:
            settings = IngestionSettings(
                kafka_bootstrap=kafka.bootstrap, state_dir=folder / "state", object_store=(folder / "objects").as_uri()
            )
            await create_all(settings)
            await short_retention(settings)
            producer = Producer(settings)
            await producer.start()
            applied = SpecApplied(
                model=generator.MODEL, spec_revision=1, spec=generator.spec(), applied_by="bench", time=generator.START
            )
            await producer.send_all([outgoing(applied, "model-specs", generator.MODEL)])
            await producer.stop()
            return await soak(settings, folder, load)


def main() -> None:
    """Parse, run, exit with 1 where memory grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, required=True, help="events a second; as many labels come with them")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm-up-minutes", type=float, default=3)
    parser.add_argument("--roles", default=",".join(ROLES), help="some of them")
    chosen = parser.parse_args()
    load = Load(chosen.rate, chosen.minutes, chosen.warm_up_minutes, tuple(chosen.roles.split(",")))
    sys.exit(0 if asyncio.run(run(load)) else 1)


if __name__ == "__main__":
    main()
