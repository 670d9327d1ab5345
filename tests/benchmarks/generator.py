"""A process that publishes events of about 540 bytes with 16 features at a given rate, and their labels if wanted.

    uv run python -m tests.benchmarks.generator --bootstrap HOST:PORT --rate 1000 --seconds 60 --labels

The other benchmarks start it beside what they measure. Bodies are rendered once and only their ids and times differ, and
partitions are taken in turn (an event's and its label's are the same), so that the generator costs as little as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from aiokafka import AIOKafkaProducer

from tailrace_contracts.spec import ModelSpec, parse_spec

FEATURES = 16
PARTITIONS = 4
TURN_SECONDS = 0.02
MODEL = "bench"
START = datetime(2024, 1, 8, tzinfo=UTC)
_BODIES = 997


def spec() -> ModelSpec:
    """Sixteen numbers. Windows and horizon are measured in the generator's event time."""
    features = [{"type": "numerical", "name": f"f{n:02d}", "limits": {"min": -10, "max": 10}} for n in range(FEATURES)]
    return parse_spec(
        {
            "model": MODEL,
            "owner": "bench",
            "features": features,
            "label": {"name": "y", "horizon_days": 1},
            "time": {"clock": "stream"},
            "monitors": {"window_days": 1, "allowed_lateness_days": 0.5},
        }
    )


def bodies() -> list[tuple[bytes, bytes]]:
    """Events without their ids and times: what stands between the two, and what follows."""
    values = np.random.default_rng(7).normal(size=(_BODIES, FEATURES)).round(6)
    middle = b'","model":"' + MODEL.encode() + b'","time":"'
    rendered = []
    for number, row in enumerate(values.tolist()):
        features = ",".join(f'"f{n:02d}":{value}' for n, value in enumerate(row))
        served = f'{{"arm":"champion","prediction":{number % 2},"probability":0.5{number},"version":1}}'
        tail = f'","features":{{{features}}},"served":{served},"latency_ms":1.{number},"type":"prediction-made"}}'
        rendered.append((middle, tail.encode()))
    return rendered


def events(days_per_second: float, rate: float) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Id, prediction and label of one event after another; event time goes on with the number of events."""
    stock, step = bodies(), timedelta(days=days_per_second / rate)
    for number in itertools.count():
        middle, tail = stock[number % _BODIES]
        name, moment = b"p%010d" % number, (START + step * number).isoformat().encode()
        label = b'{"prediction_id":"%s","model":"%s","time":"%s","label":%d}' % (
            name,
            MODEL.encode(),
            moment,
            number % 2,
        )
        yield name, b'{"prediction_id":"' + name + middle + moment + tail, label


class Sender:
    """Packs records into batches by partition, and sends them."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._batches: dict[int, object] = {}
        self._full: list[tuple[int, object]] = []

    def add(self, partition: int, key: bytes, value: bytes) -> None:
        """Put a record into its partition's batch."""
        while True:
            batch = self._batches.get(partition)
            if batch is None:
                batch = self._batches[partition] = self._producer.create_batch()
            if batch.append(timestamp=None, key=key, value=value, headers=[]) is not None:  # type: ignore[attr-defined]
                return
            self._full.append((partition, self._batches.pop(partition)))

    async def send(self) -> None:
        """Send what is there, and wait for the acknowledgements."""
        ready, self._full = [*self._full, *self._batches.items()], []
        self._batches = {}
        futures = []
        for partition, batch in ready:
            batch.close()  # type: ignore[attr-defined]
            futures.append(await self._producer.send_batch(batch, self._topic, partition=partition))
        await asyncio.gather(*futures)


async def generate(chosen: argparse.Namespace) -> None:
    """Publish until the time is over; say how many."""
    producer = AIOKafkaProducer(
        bootstrap_servers=chosen.bootstrap, acks="all", enable_idempotence=True, max_batch_size=256 * 1024
    )
    await producer.start()
    predictions, labels = Sender(producer, "prediction-events"), Sender(producer, "label-events")
    source = events(chosen.days_per_second, chosen.rate)
    began, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < chosen.seconds:
        due = int(elapsed * chosen.rate) - sent
        for key, prediction, label in itertools.islice(source, min(due, int(chosen.rate))):
            predictions.add(sent % PARTITIONS, key, prediction)
            if chosen.labels:
                labels.add(sent % PARTITIONS, key, label)
            sent += 1
        await asyncio.gather(predictions.send(), labels.send())
        await asyncio.sleep(TURN_SECONDS)
    await producer.stop()
    print(sent, flush=True)


def started(bootstrap: str, rate: float, seconds: float, *more: str) -> subprocess.Popen[bytes]:
    """This program, running beside the caller."""
    program = (sys.executable, "-m", "tests.benchmarks.generator", "--bootstrap", bootstrap)
    return subprocess.Popen([*program, "--rate", str(rate), "--seconds", str(seconds), *more])


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--days-per-second", type=float, default=1 / 600, help="of event time")
    asyncio.run(generate(parser.parse_args()))


if __name__ == "__main__":
    main()
