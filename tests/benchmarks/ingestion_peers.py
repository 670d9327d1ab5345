"""`validate` beside its peers, in one run, on one broker and the same events of 16 features.

    uv run python -m tests.benchmarks.ingestion_peers

A Faust table updated for every event and feature (of the project's own environment), and Quix Streams doing the same
with state (in an environment of its own). They keep count, mean, variance and range; `validate` also checks every event,
and keeps quantiles, distinct counts, frequent values, slices and a sample. The slow ones read fewer events.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
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
HERE = Path(__file__).parent


async def peer(*command: str) -> Pace:
    """The pace of another process, as it tells in its last line."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
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


async def compare(events: int, faust_events: int, quix_events: int) -> None:
    """Measure all three; print."""
    load = Load(events=events)
    with broker(load) as settings:
        await create_all(settings)
        size = await filled(settings, load)
        source = settings.topic("prediction-events")
        uv = ("uv", "run", "-q", "--isolated", "--no-project", "--with", QUIX, "python")
        keyed = await keyed_by_model(settings, quix_events)
        role = await validate(settings, events)
        quix = await peer(*uv, str(HERE / "peer_quix.py"), settings.kafka_bootstrap, keyed, str(quix_events))
        python = (sys.executable, str(HERE / "peer_faust.py"))
        faust = await peer(*python, settings.kafka_bootstrap, source, str(faust_events))
    print(f"16 features, {size:.0f} bytes, one process each; load average {os.getloadavg()[0]:.1f}")
    print(f"validate, {events} events      {role}")
    for name, count, found in (("Quix with state", quix_events, quix), ("Faust table", faust_events, faust)):
        ratio, by_cpu = role.rate / found.rate, found.cpu / role.cpu
        print(f"{name}, {count} events  {found}  validate is {ratio:.0f} times as fast, {by_cpu:.0f} times by CPU")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--faust-events", type=int, default=5_000)
    parser.add_argument("--quix-events", type=int, default=20_000)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    collect_seldom()
    uvloop.run(compare(given.events, given.faust_events, given.quix_events))


if __name__ == "__main__":
    main()
