"""The loop's own figures: how long `up` takes and how much memory, and how soon a label is learned and served.

    uv run python -m tests.benchmarks.loop up
    uv run python -m tests.benchmarks.loop latency --rate 100 --seconds 60

The demo reports its own time: `uv run tailrace demo weather --report report.json`.

`latency` plays the weather stream at a rate. For each label it takes the time from publishing it until a revision that
has learned it answers an inference over HTTP, as a gateway would see it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from aiokafka import AIOKafkaConsumer

from tailrace_cli import stack
from tailrace_cli.connection import Connection, connect
from tailrace_cli.demo import datasets
from tailrace_cli.demo.datasets import Row
from tailrace_cli.demo.run import apply
from tailrace_cli.demo.weather import HISTORY, LABEL_DELAY, prediction_id, publish_history, publish_label, until
from tailrace_cli.registry import tail
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import ExampleLabelled, RevisionTrained, VersionChanged, decode
from tailrace_contracts.spec import ModelSpec
from tailrace_local import Home, silent

MEBIBYTE = 1 << 20


def resident(home: Home) -> dict[str, float]:
    """MiB resident of each process that runs from this home, its children counted in (shared pages counted once each)."""
    return {
        entry.name: sum(
            process.memory_full_info().pss / MEBIBYTE
            for process in (psutil.Process(entry.pid), *psutil.Process(entry.pid).children(recursive=True))
        )
        for entry in home.running()
    }


def measure_up(rounds: int) -> None:
    """`up` on a fresh home, timed as a command, and what it then takes of memory."""
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder) / "home")
            environment = {"TAILRACE_HOME": str(home.folder), "PATH": str(Path(sys.executable).parent)}
            started = time.monotonic()
            subprocess.run(["tailrace", "up"], env=environment, check=True, capture_output=True)
            seconds = time.monotonic() - started
            sizes = resident(home)
            stack.take_down(home)
        each = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
        print(f"up in {seconds:.1f} s; {sum(sizes.values()):.0f} MiB resident ({each})")


class Learned:
    """When each label was published, in which order the examples came, and which revision had learned how many."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.published: dict[str, float] = {}
        self.order: list[str] = []
        self.examples_of: dict[int, int] = {}
        self.served_at: dict[int, float] = {}
        self.version = 0
        self.champion = False

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Read the topics until cancelled."""
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    self._tell(record.value)

    def _tell(self, value: bytes) -> None:
        match decode(value):
            case ExampleLabelled(model=self.model) as example:
                self.order.append(example.prediction_id)
            case RevisionTrained(model=self.model) as revision:
                self.examples_of[revision.revision] = revision.examples
            case VersionChanged(model=self.model, continual=True) as version:
                self.version = version.version
            case VersionChanged(model=self.model, stage="champion"):
                self.champion = True
            case _:
                pass

    def latencies(self) -> list[float]:
        """Seconds from each label's publishing to the first answer of a revision that has learned it."""
        first_with = sorted(
            (self.examples_of[revision], at) for revision, at in self.served_at.items() if revision in self.examples_of
        )
        found = []
        for place, question in enumerate(self.order, start=1):
            at = next((at for examples, at in first_with if examples >= place), None)
            if at is not None and question in self.published:
                found.append(at - self.published[question])
        return found


async def ask(client: httpx.AsyncClient, learned: Learned, row: Row) -> None:
    """Ask the online version until cancelled, and note when each of its revisions answers first."""
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in row.features.items()]
    while True:
        if learned.version:
            body = {"inputs": inputs, "parameters": {"time": row.time.isoformat()}}
            answer = await client.post(f"/v2/models/{learned.model}/versions/{learned.version}/infer", json=body)
            if answer.status_code == httpx.codes.OK:
                revision = int(answer.json()["model_version"].partition(".")[2] or 0)
                learned.served_at.setdefault(revision, time.monotonic())
        await asyncio.sleep(0.02)


async def measure_latency(connection: Connection, spec: ModelSpec, rate: float, seconds: float) -> None:
    """Play at this rate for this long and print the distribution."""
    learned = Learned(spec.model)
    rows = datasets.weather()
    live = rows[HISTORY : HISTORY + LABEL_DELAY + int(rate * seconds)]
    consumer = await tail(connection, "labelled-examples", "revision-trained", "model-versions")
    await apply(connection, spec)
    async with (
        httpx.AsyncClient(base_url=connection.serving_url) as client,
        AsyncPublisher(connection.bootstrap) as publisher,
    ):
        tasks = [asyncio.create_task(learned.follow(consumer)), asyncio.create_task(ask(client, learned, live[-1]))]
        await publish_history(publisher, spec, rows[:HISTORY])
        # The label's way is measured in a loop that runs: both learners have a version, the online one answers.
        await until(lambda: learned.champion and bool(learned.served_at), "serving both versions")
        started = time.monotonic()
        for place, row in enumerate(live):
            await asyncio.sleep(max(0.0, started + place / rate - time.monotonic()))
            name = prediction_id(spec.model, row.number)
            await publisher.prediction(model=spec.model, features=row.features, prediction_id=name, time=row.time)
            if place >= LABEL_DELAY:
                labelled = live[place - LABEL_DELAY]
                learned.published[prediction_id(spec.model, labelled.number)] = time.monotonic()
                await publish_label(publisher, spec, labelled)
        await asyncio.sleep(5)
        for task in tasks:
            task.cancel()
    await consumer.stop()
    found = learned.latencies()
    cuts = statistics.quantiles(found, n=100)
    print(
        f"{len(found)} labels at {rate:g}/s: published to served revision p50 {cuts[49]:.2f} s, "
        f"p95 {cuts[94]:.2f} s, p99 {cuts[98]:.2f} s; {len(learned.served_at)} revisions"
    )


def early(spec: ModelSpec) -> ModelSpec:
    """The same spec, with an online learner that offers its version during history."""
    if spec.learners.online is None:
        return spec
    online = spec.learners.online.model_copy(update={"min_examples": 500})
    return spec.model_copy(update={"learners": spec.learners.model_copy(update={"online": online})})


def main() -> None:
    """Run one of the measurements."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("what", choices=["up", "latency"])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--rate", type=float, default=100)
    arguments.add_argument("--seconds", type=float, default=60)
    chosen = arguments.parse_args()
    if chosen.what == "up":
        measure_up(chosen.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        spec = early(datasets.spec("rain"))
        with stack.bring_up(home, detached=False, report=silent):
            asyncio.run(measure_latency(connect(home), spec, chosen.rate, chosen.seconds))


if __name__ == "__main__":
    main()
