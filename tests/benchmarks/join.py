"""How many records a second one process of `join` takes: predictions and labels in, examples out, state on disk.

    uv run python -m tests.benchmarks.join --events 100000

The predictions are those of `validate`'s benchmark (16 features, about 540 bytes), each with one label in random order.
Beside it, in the same run on the same broker, a bare loop of aiokafka and typed decoders over the same records. The
figures are records (predictions and labels) a second, and CPU seconds of this process for a million of them.
"""

import argparse
import asyncio
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from random import Random

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.events import LabelGiven
from tailrace_ingestion import app
from tailrace_ingestion.domain.wire import decode_joinable, decode_label
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import START, applied
from tailrace_local import EmbeddedKafka
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually
from tests.benchmarks.validate import events, spec

BATCH = 5_000
DECODERS = {"predictions": decode_joinable, "labels": decode_label}


async def filled(settings: IngestionSettings, count: int) -> None:
    """Put valid predictions and their labels on their topics, as `validate` does."""
    producer = Producer(settings)
    await producer.start()
    await producer.send_all([outgoing(applied(spec()), "model-specs", "bench")])
    order = list(range(count))
    Random(7).shuffle(order)
    made = events(count)
    for first in range(0, count, BATCH):
        chosen = [next(made) for _ in range(min(BATCH, count - first))]
        await producer.send_all([Outgoing("predictions", each.value, each.key) for each in chosen])
        await producer.send_all([label(number) for number in order[first : first + BATCH]])
    await producer.stop()


def label(number: int) -> Outgoing:
    """The label of one prediction, an hour later."""
    moment = START + timedelta(seconds=number / 100, hours=1)
    event = LabelGiven(prediction_id=f"p{number:09d}", model="bench", time=moment, label=number % 2)
    return Outgoing("labels", event.encode(), event.prediction_id.encode())


async def bare(settings: IngestionSettings, count: int) -> float:
    """The peer's records a second."""
    consumer = AIOKafkaConsumer(
        *DECODERS, bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50
    )
    await consumer.start()
    began, seen = time.perf_counter(), 0
    while seen < 2 * count:
        for partition, batch in (await consumer.getmany(timeout_ms=500, max_records=2_000)).items():
            decode = DECODERS[partition.topic]
            for record in batch:
                decode(record.value)
            seen += len(batch)
    seconds = time.perf_counter() - began
    await consumer.stop()
    return 2 * count / seconds


async def joined(settings: IngestionSettings) -> int:
    """How many examples there are."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    ends = await consumer.end_offsets([TopicPartition("labelled-examples", number) for number in range(4)])
    await consumer.stop()
    return sum(ends.values())


async def join(settings: IngestionSettings, count: int) -> tuple[float, float]:
    """Records a second of the role, from its first ones on, and this process's CPU seconds for a million of them."""
    stop = asyncio.Event()
    service = app.create_service(HTTP_IN, TOPICS_IN, settings)
    task = asyncio.create_task(service.run(stop))

    def done() -> float:
        labels = ({"role": "join", "topic": topic, "outcome": "done"} for topic in DECODERS)
        return sum(service.metrics.value("tailrace_events_total", **each) for each in labels)

    await eventually(lambda: done() > 0, 60, 0.005)
    first, began, cpu = done(), time.perf_counter(), process_seconds()
    await eventually(lambda: done() >= 2 * count, 600, 0.01)
    seconds, used = time.perf_counter() - began, process_seconds() - cpu
    stop.set()
    await task
    if await joined(settings) != count:
        raise SystemExit("not every prediction met its label once")
    return (2 * count - first) / seconds, used / (2 * count - first) * 1e6


def process_seconds() -> float:
    """CPU seconds of this process."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


async def run(count: int) -> None:
    """Measure both and print."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        settings = IngestionSettings(
            kafka_bootstrap=kafka.bootstrap, state_dir=Path(folder) / "state", port=0, roles="join"
        )
        await create_all(settings)
        await filled(settings, count)
        peer = await bare(settings, count)
        rate, cpu = await join(settings, count)
    print(f"{count} predictions and as many labels, one process, load average {psutil.getloadavg()[0]:.1f}")
    print(f"bare aiokafka and decoders {peer:10,.0f} records/s")
    print(f"join                       {rate:10,.0f} records/s  ({rate / peer:.2f} of it; {cpu:.0f} CPU s a million)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    asyncio.run(run(parser.parse_args().events))
