"""`validate` beside its peers, in one run, on one broker and the same events of 16 features.

    uv run python -m tests.benchmarks.ingestion_peers

A Faust table updated for every event and feature (of the project's own environment), and Quix Streams doing the same
with state (in an environment of its own), each twice: with count, mean, variance and range alone, and with the same
statistics of a column as `validate` (`peer_statistics`). `validate` also checks every event and keeps outputs, slices
and a sample. The slow ones read fewer events.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path

import structlog
import uvloop

from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Run
from tailrace_runtime.service import collect_seldom
from tailrace_runtime.topics import create_all
from tests.benchmarks.peer_faust import create
from tests.benchmarks.validate import Load, Pace, broker, filled, validate

QUIX = "quixstreams==3.28.1"
SKETCHES = f"datasketches=={version('datasketches')}"
ROOT = Path(__file__).parents[2]


async def peer(*command: str) -> Pace:
    """The pace of another process, as it tells in its last line."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    written, wrong = await asyncio.wait_for(process.communicate(), 600)
    lines = [line for line in written.decode().splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{command[-4]} said nothing:\n{wrong.decode()[-2000:]}")
    said = json.loads(lines[-1])
    return Pace(said["events"] / said["seconds"], said["cpu"] / said["events"] * 1e6)


async def keyed_by_model(settings: IngestionSettings, count: int) -> str:
    """The same events on another topic, under the model's name, which is what Quix keeps state by."""
    await create(settings.kafka_bootstrap, "by-model")
    producer = Producer(settings.model_copy(update={"topic_prefix": ""}))
    await producer.start()
    values = [value for _, value in Load(events=count).values()]
    runs = [
        Run("by-model", partition, [b"bench"] * len(mine), mine, [[] for _ in mine])
        for partition in range(4)
        if (mine := values[partition::4])
    ]
    await producer.send_all([], runs)
    await producer.stop()
    return "by-model"


async def compare(events: int, peers: list[tuple[str, str, int]]) -> None:
    """Measure `validate` and each peer: its name, what it keeps, how many events it reads. Print."""
    load = Load(events=events)
    quix = ("uv", "run", "-q", "--isolated", "--no-project", "--with", QUIX, "--with", SKETCHES, "python")
    python = {"quix": quix, "faust": (sys.executable,)}
    found = []
    with broker(load) as settings:
        await create_all(settings)
        size = await filled(settings, load)
        keyed = await keyed_by_model(settings, max(count for _, _, count in peers))
        topics = {"quix": keyed, "faust": settings.topic("prediction-events")}
        role = await validate(settings, events)
        for name, kept, count in peers:
            program = (*python[name], "-m", f"tests.benchmarks.peer_{name}")
            found.append(await peer(*program, settings.kafka_bootstrap, topics[name], str(count), kept))
    print(f"16 features, {size:.0f} bytes, one process each; load average {os.getloadavg()[0]:.1f}")
    print(f"validate, {events} events      {role}")
    for (name, kept, count), its in zip(peers, found, strict=True):
        ratio, by_cpu = role.rate / its.rate, its.cpu / role.cpu
        print(
            f"{name}, {kept}, {count} events  {its}  validate is {ratio:.0f} times as fast, {by_cpu:.0f} times by CPU"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--faust-events", type=int, default=5_000, help="a Faust table with moments")
    parser.add_argument("--quix-events", type=int, default=50_000, help="Quix with moments")
    parser.add_argument("--same-events", type=int, default=5_000, help="either with the same statistics")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    collect_seldom()
    peers = [
        ("quix", "moments", given.quix_events),
        ("quix", "same", given.same_events),
        ("faust", "moments", given.faust_events),
        ("faust", "same", given.same_events),
    ]
    uvloop.run(compare(given.events, peers))


if __name__ == "__main__":
    main()
