"""How long it takes from publishing an event until a statistic of its window that covers it can be read.

    uv run python -m tests.benchmarks.statistics_latency --rate 1000 --seconds 60

`validate` and `aggregate` run as processes of their own on a Kafka of their own, a generator beside them gives the load;
probes among the load are timed: from before an event is handed to the producer until a consumer has a record of
`feature-statistics` that was derived from its offset.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tailrace_contracts.events import SpecApplied, WindowSummarised
from tailrace_ingestion.settings import IngestionSettings
from tailrace_local import EmbeddedKafka
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually
from tests.benchmarks import generator
from tests.chaos.processes import Member

PROBE_EVERY_SECONDS = 0.037
"""Out of step with anything that happens once a second."""
WARM_UP_SECONDS = 10


class Probes:
    """Events on their way: where they stand, since when, and how long it took until they were seen."""

    def __init__(self) -> None:
        self.waiting: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.seconds: list[float] = []

    def sent(self, partition: int, offset: int, at: float) -> None:
        """A probe stands at this place of the log."""
        self.waiting[partition].append((offset, at))

    def seen(self, window: WindowSummarised, at: float) -> None:
        """A statistic says what it was derived from."""
        for each in window.derived_from.root:
            waiting = self.waiting[each.partition]
            self.seconds += [at - sent for offset, sent in waiting if offset <= each.through_offset]
            self.waiting[each.partition] = [probe for probe in waiting if probe[0] > each.through_offset]


async def publish(bootstrap: str, probes: Probes, seconds: float) -> None:
    """Publish probes for so long."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    tasks: set[asyncio.Task[None]] = set()

    async def one(name: bytes, value: bytes) -> None:
        began = time.monotonic()
        placed = await producer.send_and_wait("prediction-events", value, key=name)
        probes.sent(placed.partition, placed.offset, began)

    began = time.monotonic()
    for name, value, _ in generator.events(1 / 600, 1 / PROBE_EVERY_SECONDS):
        if time.monotonic() - began > seconds:
            break
        task = asyncio.create_task(one(b"q" + name[1:], value.replace(name, b"q" + name[1:], 1)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(PROBE_EVERY_SECONDS)
    await asyncio.gather(*tasks)
    await producer.stop()


async def read(bootstrap: str, probes: Probes) -> None:
    """Read statistics until cancelled."""
    consumer = AIOKafkaConsumer("feature-statistics", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async for record in consumer:
            probes.seen(WindowSummarised.model_validate_json(record.value), time.monotonic())
    finally:
        await consumer.stop()


async def measure(settings: IngestionSettings, members: list[Member], rate: float, seconds: float) -> None:
    """Start everything, let it warm up, time the probes, print."""
    producer = Producer(settings)
    await producer.start()
    applied = SpecApplied(
        model=generator.MODEL, spec_revision=1, spec=generator.spec(), applied_by="bench", time=generator.START
    )
    await producer.send_all([outgoing(applied, "model-specs", generator.MODEL)])
    await producer.stop()
    for member in members:
        member.start()
    for member in members:
        await eventually(member.ready, seconds=120)
    load = generator.started(settings.kafka_bootstrap, rate, seconds + WARM_UP_SECONDS + 5)
    probes = Probes()
    reader = asyncio.create_task(read(settings.kafka_bootstrap, probes))
    await publish(settings.kafka_bootstrap, probes, WARM_UP_SECONDS)
    probes.seconds.clear()
    await publish(settings.kafka_bootstrap, probes, seconds)
    await asyncio.sleep(3)
    reader.cancel()
    load.kill()
    load.wait()
    left = sum(len(waiting) for waiting in probes.waiting.values())
    p50, p95, p99 = np.percentile(probes.seconds, [50, 95, 99])
    print(
        f"{rate:>8,.0f} events/s: {len(probes.seconds)} probes, p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s,"
        f" longest {max(probes.seconds):.2f} s, {left} not seen; load average {psutil.getloadavg()[0]:.1f}"
    )


async def run(rate: float, seconds: float) -> None:
    """One rate on a Kafka of its own."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        settings = IngestionSettings(
            kafka_bootstrap=kafka.bootstrap, state_dir=Path(folder) / "state", object_store=Path(folder).as_uri()
        )
        await create_all(settings)
        members = [Member(settings, role, "0", Path(folder)) for role in ("validate", "aggregate")]
        try:
            await measure(settings, members, rate, seconds)
        finally:
            for member in members:
                member.kill()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, nargs="+", default=[1_000, 20_000], help="events a second")
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    for rate in chosen.rate:
        asyncio.run(run(rate, chosen.seconds))


if __name__ == "__main__":
    main()
