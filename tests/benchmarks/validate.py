"""How many events a second one process of `validate` takes: checks, statistics of every feature, forwarding and all.

    uv run python -m tests.benchmarks.validate rate --events 1000000
    uv run python -m tests.benchmarks.validate rate --words 4 --protected 2 --arms 2
    uv run python -m tests.benchmarks.validate curve

Beside it, in the same run, on the same broker and records: the ceiling, which is a bare `getmany` of aiokafka that looks
at nothing, and a loop that decodes each value with the typed decoder and does nothing with it. CPU is that of this
process, which is the client; the broker is another process on the same machine. `curve` tells how cost grows with
features, with events, and with the length of the history that a window has already seen.
"""

import argparse
import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_ingestion import app
from tailrace_ingestion.domain.wire import decode_prediction
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import START, applied
from tailrace_local import EmbeddedKafka
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Run, outgoing
from tailrace_runtime.service import collect_seldom
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually

BATCH = 5_000
PARTITIONS = 4
WORDS = ("red", "green", "blue", "violet")
FETCH_BYTES = 4 * 1024 * 1024
PARTS = 5
"""Of a long window, for `curve`."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the events are like."""

    events: int = 200_000
    features: int = 16
    words: int = 0
    protected: int = 0
    arms: int = 1
    days_per_million: float = 0.1

    def spec(self) -> ModelSpec:
        """A model with so many features, the last ones words, the first words protected."""
        numbers = [
            {"type": "numerical", "name": f"f{n}", "limits": {"min": -10, "max": 10}}
            for n in range(self.features - self.words)
        ]
        words = [{"type": "categorical", "name": f"w{n}", "categories": [*WORDS]} for n in range(self.words)]
        return parse_spec(
            {
                "model": "bench",
                "owner": "b",
                "features": [*numbers, *words],
                "label": {"name": "y"},
                "protected": [f"w{n}" for n in range(self.protected)],
                "time": {"clock": "stream"},
            }
        )

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values: with 16 numbers, 540 bytes each."""
        random = np.random.default_rng(7)
        count = self.features - self.words
        for first in range(0, self.events, BATCH):
            size = min(BATCH, self.events - first)
            rows = random.normal(size=(size, count)).round(5).tolist()
            words = random.integers(0, len(WORDS), size=(size, self.words)).tolist()
            probable = random.beta(2, 3, size=size).round(4).tolist()
            for at, (row, word, probability) in enumerate(zip(rows, words, probable, strict=True)):
                number = first + at
                features = ",".join(
                    [
                        *(f'"f{n}":{value}' for n, value in enumerate(row)),
                        *(f'"w{n}":"{WORDS[code]}"' for n, code in enumerate(word)),
                    ]
                )
                moment = (START + timedelta(days=number / 1e6 * self.days_per_million)).isoformat()
                version = 1 + number % self.arms
                arm = "champion" if version == 1 else "canary"
                key = f"prediction-{number:012d}"
                value = (
                    f'{{"type":"prediction-made","prediction_id":"{key}","model":"bench","time":"{moment}",'
                    f'"features":{{{features}}},"served":{{"arm":"{arm}","prediction":{int(probability > 0.5)},'
                    f'"probability":{probability},"version":{version},"revision":null}},"shadows":[],'
                    f'"entity":"customer-{number % 5000:05d}-of-the-northern-region-eu-1","latency_ms":{1 + number % 7}.25}}'
                )
                yield key.encode(), value.encode()


def spec() -> ModelSpec:
    """A model with 16 numerical features."""
    return Load().spec()


def events(count: int) -> Iterator[Outgoing]:
    """So many events of it."""
    return (Outgoing("prediction-events", value, key) for key, value in Load(events=count).values())


async def filled(settings: IngestionSettings, load: Load) -> float:
    """Put the spec and the events on their topics; the events' mean size in bytes."""
    producer = Producer(settings)
    await producer.start()
    await producer.send_all([outgoing(applied(load.spec()), "model-specs", "bench")])
    size, rows = 0, load.values()
    while batch := [row for _, row in zip(range(BATCH), rows, strict=False)]:
        size += sum(len(value) for _, value in batch)
        runs = []
        for partition in range(PARTITIONS):
            mine = batch[partition::PARTITIONS]
            keys, values = [key for key, _ in mine], [value for _, value in mine]
            runs.append(Run("prediction-events", partition, keys, values, [[] for _ in mine]))
        await producer.send_all([], runs)
    await producer.stop()
    return size / load.events


async def end_of(settings: IngestionSettings, topic: str) -> int:
    """How many records are on a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    ends = await consumer.end_offsets([TopicPartition(settings.topic(topic), each) for each in range(PARTITIONS)])
    await consumer.stop()
    return sum(ends.values())


@dataclass(slots=True)
class Pace:
    """Events a second, and this process's CPU seconds for a million of them."""

    rate: float = 0.0
    cpu: float = 0.0

    def __str__(self) -> str:
        return f"{self.rate:10,.0f} events/s  {self.cpu:6.2f} CPU s a million"


@contextmanager
def pace(count: int) -> Iterator[Pace]:
    """Measures what happens inside."""
    found = Pace()
    began, cpu = time.perf_counter(), process_seconds()
    yield found
    found.rate = count / (time.perf_counter() - began)
    found.cpu = (process_seconds() - cpu) / count * 1e6


async def bare(settings: IngestionSettings, count: int, look: Callable[[Any], Any] | None) -> Pace:
    """The pace of aiokafka alone, with something done to each value, or nothing."""
    consumer = AIOKafkaConsumer(
        settings.topic("prediction-events"),
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    seen = 0
    with pace(count) as found:
        while seen < count:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                if look is not None:
                    for record in batch:
                        look(record.value)
                seen += len(batch)
    await consumer.stop()
    return found


async def validate(settings: IngestionSettings, count: int) -> Pace:
    """The pace of the role, from its first batch on."""
    return (await paces(settings, count, 1))[0]


async def paces(settings: IngestionSettings, count: int, parts: int) -> list[Pace]:
    """The pace of the role in each of so many equal parts of the log, from its first batch on."""
    stop = asyncio.Event()
    service = app.create_service(HTTP_IN, TOPICS_IN, settings)
    task = asyncio.create_task(service.run(stop))
    done = {"role": "validate", "topic": "prediction-events", "outcome": "done"}

    def seen() -> int:
        return int(service.metrics.value("tailrace_events_total", **done))

    await eventually(lambda: seen() > 0, 60, 0.005)
    found = []
    for part in range(parts):
        first, until = seen(), count * (part + 1) // parts
        began, cpu = time.perf_counter(), process_seconds()
        await eventually(partial(_reached, seen, until), 600, 0.02)
        passed = seen() - first
        rate, spent = passed / (time.perf_counter() - began), process_seconds() - cpu
        found.append(Pace(rate, spent / passed * 1e6))
    stop.set()
    await task
    forwarded = await end_of(settings, "predictions")
    if forwarded != count:
        raise SystemExit(f"{forwarded} events were forwarded, not {count}")
    return found


def _reached(seen: Callable[[], int], count: int) -> bool:
    return seen() >= count


def process_seconds() -> float:
    """CPU seconds of this process."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


@contextmanager
def broker(load: Load) -> Iterator[IngestionSettings]:
    """A broker of its own."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        yield IngestionSettings(
            kafka_bootstrap=kafka.bootstrap,
            state_dir=Path(folder) / "state",
            port=0,
            roles="validate",
            topic_prefix=f"b{load.events}-{load.features}-",
        )


async def rate(load: Load) -> None:
    """Measure the ceiling, the decode loop and the role; print."""
    with broker(load) as settings:
        await create_all(settings)
        size = await filled(settings, load)
        ceiling = await bare(settings, load.events, None)
        decoding = await bare(settings, load.events, decode_prediction)
        role = await validate(settings, load.events)
    print(f"{load} of {size:.0f} bytes, one process; load average {os.getloadavg()[0]:.1f}")
    print(f"bare getmany           {ceiling}")
    print(f"getmany and decoder    {decoding}")
    print(f"validate               {role}")
    print(
        f"                       {role.rate / ceiling.rate:.2f} of getmany, {role.rate / decoding.rate:.2f} of decoding"
    )


async def curve(load: Load) -> None:
    """Cost by features, with as many values in all; then by the length of the history, all of it in one window."""
    for features in (4, 16, 64, 256):
        each = Load(events=max(load.events * 4 // features, 20_000), features=features)
        with broker(each) as settings:
            await create_all(settings)
            size = await filled(settings, each)
            found = await validate(settings, each.events)
        by_value = found.cpu / features
        print(
            f"{features} features, {each.events} events of {size:.0f} bytes: {found}, {by_value:.3f} a million values"
        )
    with broker(load) as settings:
        await create_all(settings)
        await filled(settings, load)
        for part, found in enumerate(await paces(settings, load.events, PARTS), 1):
            print(f"{load.features} features, through event {load.events * part // PARTS} of one window: {found}")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["rate", "curve"])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--words", type=int, default=0, help="so many of the features are words")
    parser.add_argument("--protected", type=int, default=0, help="so many of the words are protected attributes")
    parser.add_argument("--arms", type=int, default=1, help="versions that serve")
    given = parser.parse_args()
    load = Load(given.events, given.features, given.words, given.protected, given.arms)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    collect_seldom()
    uvloop.run({"rate": rate, "curve": curve}[given.what](load))


if __name__ == "__main__":
    main()
