"""How many events a second one process of `validate` takes: checks, statistics of 16 features, forwarding and all.

    uv run python -m tests.benchmarks.validate --events 200000

Beside it, in the same run on the same broker, the peer: a bare loop of aiokafka and a typed decoder that reads the same
records and does nothing with them. The figures are events a second; the ratio is what validation costs.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.events import ArmOutput, PredictionMade
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_ingestion import app
from tailrace_ingestion.domain.wire import decode_prediction
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import START, applied
from tailrace_local import EmbeddedKafka
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually

FEATURES = 16
BATCH = 5_000


def spec() -> ModelSpec:
    """A model with 16 numerical features."""
    features = [{"type": "numerical", "name": f"f{n}", "limits": {"min": -10, "max": 10}} for n in range(FEATURES)]
    label = {"name": "y"}
    return parse_spec(
        {"model": "bench", "owner": "b", "features": features, "label": label, "time": {"clock": "stream"}}
    )


def events(count: int) -> Iterator[Outgoing]:
    """Events of about 540 bytes, a hundred to the second of event time."""
    values = np.random.default_rng(7).normal(size=(count, FEATURES)).round(5)
    for number, row in enumerate(values.tolist()):
        event = PredictionMade(
            prediction_id=f"p{number:09d}",
            model="bench",
            time=START + timedelta(seconds=number / 100),
            features={f"f{n}": value for n, value in enumerate(row)},
            served=ArmOutput(arm="champion", prediction=number % 2, probability=0.5, version=1),
        )
        yield Outgoing("prediction-events", event.encode(), event.prediction_id.encode())


async def filled(settings: IngestionSettings, count: int) -> float:
    """Put the events on their topic; their mean size in bytes."""
    producer = Producer(settings)
    await producer.start()
    await producer.send_all([outgoing(applied(spec()), "model-specs", "bench")])
    batch: list[Outgoing] = []
    size = 0
    for event in events(count):
        size += len(event.value or b"")
        batch.append(event)
        if len(batch) == BATCH:
            await producer.send_all(batch)
            batch.clear()
    await producer.send_all(batch)
    await producer.stop()
    return size / count


async def end_of(settings: IngestionSettings, topic: str) -> int:
    """How many records are on a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(4)])
    await consumer.stop()
    return sum(ends.values())


async def bare(settings: IngestionSettings, count: int) -> float:
    """The peer's events a second."""
    consumer = AIOKafkaConsumer(
        settings.topic("prediction-events"), bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    began, seen = time.perf_counter(), 0
    while seen < count:
        for batch in (await consumer.getmany(timeout_ms=500, max_records=2_000)).values():
            for record in batch:
                decode_prediction(record.value)
            seen += len(batch)
    seconds = time.perf_counter() - began
    await consumer.stop()
    return count / seconds


async def validate(settings: IngestionSettings, count: int) -> tuple[float, float]:
    """Events a second of the role, from its first one on, and the process's CPU seconds for a million of them."""
    stop = asyncio.Event()
    service = app.create_service(HTTP_IN, TOPICS_IN, settings)
    task = asyncio.create_task(service.run(stop))
    done = {"role": "validate", "topic": "prediction-events", "outcome": "done"}
    await eventually(lambda: service.metrics.value("tailrace_events_total", **done) > 0, 60, 0.005)
    first, began, cpu = service.metrics.value("tailrace_events_total", **done), time.perf_counter(), process_seconds()
    await eventually(lambda: service.metrics.value("tailrace_events_total", **done) >= count, 300, 0.01)
    seconds, used = time.perf_counter() - began, process_seconds() - cpu
    stop.set()
    await task
    if await end_of(settings, settings.topic("predictions")) != count:
        raise SystemExit(f"not every event was forwarded: {await end_of(settings, settings.topic('predictions'))}")
    return (count - first) / seconds, used / (count - first) * 1e6


def process_seconds() -> float:
    """CPU seconds of this process."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


async def run(count: int) -> None:
    """Measure both and print."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        settings = IngestionSettings(
            kafka_bootstrap=kafka.bootstrap, state_dir=Path(folder) / "state", port=0, roles="validate"
        )
        await create_all(settings)
        size = await filled(settings, count)
        peer = await bare(settings, count)
        rate, cpu = await validate(settings, count)
    print(f"{count} events of {size:.0f} bytes, {FEATURES} features, one process")
    print(f"bare aiokafka and decoder  {peer:10,.0f} events/s")
    print(f"validate                   {rate:10,.0f} events/s  ({rate / peer:.2f} of it; {cpu:.0f} CPU s a million)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    uvloop.run(run(parser.parse_args().events))
