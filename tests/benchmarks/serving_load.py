"""Serving under load while something happens to it: a broker that is away, swaps, many models, requests over Kafka.

    uv run python -m tests.benchmarks.serving_load outage [--seconds 600]     # its own broker, stopped for so long
    uv run python -m tests.benchmarks.serving_load swaps [--seconds 300]      # a new version every 2 s
    uv run python -m tests.benchmarks.serving_load models [--count 200]       # memory
    uv run python -m tests.benchmarks.serving_load kafka [--requests 20000]   # requests/s and latency over Kafka

Each starts a broker and one serving process of its own; load over HTTP comes from `wrk` with 16 connections.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import uvloop

from services.serving.tests.test_serving_live import Site, until_ready
from tailrace_contracts.events import Event, InferenceAnswered, InferenceRequested
from tailrace_local import EmbeddedKafka, free_port
from tailrace_models import ONNX
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Record, outgoing
from tailrace_serving import testing
from tests.benchmarks.serving_http import NAMES, eight_features
from tests.benchmarks.serving_peers import TENSORS, Measured, captured, logistic, megabytes, process, wrk

INFER = "/v2/models/rain/infer"


class Running(NamedTuple):
    """A serving process and what is around it."""

    site: Site
    kafka: EmbeddedKafka
    pid: int
    base: str


@asynccontextmanager
async def serving(**environment: str) -> AsyncIterator[Running]:
    """A broker, a deployment with one champion, and a serving process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = EmbeddedKafka(folder / "kafka")
        await asyncio.to_thread(kafka.start)
        try:
            async with Site(kafka.bootstrap, "load-", folder) as site:
                await site._follower.stop()
                claim = await site.artefact(logistic(), ONNX)
                await site.publish(testing.applied(eight_features()), testing.versioned(1, claim), testing.deployed(1))
                port = free_port()
                settings = {**site.environment(port), "TAILRACE_LOG_LEVEL": "error", **environment}
                async with process(folder, sys.executable, "-m", "tailrace_serving.main", environment=settings) as pid:
                    base = f"http://127.0.0.1:{port}"
                    async with httpx.AsyncClient(base_url=base) as client:
                        await until_ready(client)
                    await wrk("warm", base + INFER, TENSORS, pid, 2)
                    yield Running(site, kafka, pid, base)
        finally:
            await asyncio.to_thread(kafka.stop)


def told(made: Measured) -> None:
    """One line for people."""
    print(
        f"{made.name:22s} {made.requests_per_second:7.0f} requests/s, p50 {made.p50_ms:.2f} ms, p99 {made.p99_ms:.2f} ms,"
        f" {made.errors} errors, {made.megabytes:.0f} MB, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


async def outage(arguments: argparse.Namespace) -> None:
    """Before, during and after; and what became of every answer."""
    async with serving() as made:
        url = made.base + INFER
        told(await wrk("before", url, TENSORS, made.pid, min(30, arguments.seconds)))
        await asyncio.to_thread(made.kafka.stop)
        until = time.monotonic() + arguments.seconds
        while time.monotonic() < until:
            left = max(1, min(60, until - time.monotonic()))
            told(await wrk("broker away", url, TENSORS, made.pid, left))
        await asyncio.to_thread(made.kafka.start)
        told(await wrk("after", url, TENSORS, made.pid, min(30, arguments.seconds)))
        async with httpx.AsyncClient(base_url=made.base) as client:
            await captured(client)


async def swaps(arguments: argparse.Namespace) -> None:
    """Without swaps, with one every two seconds, and without again."""
    async with serving() as made:
        url = made.base + INFER
        claims = [await made.site.artefact(logistic(version), ONNX) for version in range(2, 6)]
        without = [await wrk("without swaps", url, TENSORS, made.pid, min(30, arguments.seconds))]
        told(without[0])
        count = 0

        async def swapping() -> None:
            nonlocal count
            while True:
                version = count + 2
                await made.site.publish(
                    testing.versioned(version, claims[count % len(claims)]),
                    testing.deployed(version, sequence=version),
                )
                count += 1
                await asyncio.sleep(2)

        task = asyncio.create_task(swapping())
        during = await wrk("a swap every 2 s", url, TENSORS, made.pid, arguments.seconds)
        told(during)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        without.append(await wrk("without swaps", url, TENSORS, made.pid, min(30, arguments.seconds)))
        told(without[1])
        async with httpx.AsyncClient(base_url=made.base) as client:
            metrics = (await client.get("/metrics")).text
            await captured(client)
        done = next(line for line in metrics.splitlines() if line.startswith("tailrace_swaps_total{"))
        print(f"{count} versions deployed, {done}")
        least = min(each.p99_ms for each in without)
        print(
            f"{during.errors} failed; p99 is {during.p99_ms / least:.2f} of the better one without swaps (wanted: 0; 1.5 at most)"
        )
        if during.errors or during.p99_ms > 1.5 * least:
            sys.exit(1)


async def models(arguments: argparse.Namespace) -> None:
    """Memory without models, with one, and with many."""
    async with serving() as made:
        one = megabytes(made.pid)
        began = time.monotonic()
        names = [f"model-{number}" for number in range(1, arguments.count)]
        for number, name in enumerate(names):
            claim = await made.site.artefact(logistic(number + 10), ONNX)
            spec = eight_features().model_copy(update={"model": name})
            await made.site.publish(
                testing.applied(spec), testing.versioned(1, claim, model=name), testing.deployed(1, model=name)
            )
        async with httpx.AsyncClient(base_url=made.base) as client:
            for name in names:
                while (await client.get(f"/v2/models/{name}/ready")).status_code != 200:  # noqa: ASYNC110  # over HTTP
                    await asyncio.sleep(0.05)
            seconds = time.monotonic() - began
            for name in names:
                answer = await client.post(f"/v2/models/{name}/infer", json=TENSORS)
                answer.raise_for_status()
        many = megabytes(made.pid)
        print(f"1 model {one:.0f} MB, {arguments.count} models {many:.0f} MB: {(many - one) / len(names):.2f} MB each")
        print(f"published, loaded and ready in {seconds:.1f} s; load {os.getloadavg()[0]:.1f}")
        told(await wrk("with many models", made.base + INFER, TENSORS, made.pid, 5))


async def over_kafka(arguments: argparse.Namespace) -> None:
    """As many requests as it takes at once, and then latencies at a modest rate."""
    async with serving() as made:
        sent: dict[str, float] = {}
        taken: dict[str, float] = {}

        def note(event: Event | None, _: Record) -> None:
            assert isinstance(event, InferenceAnswered)
            assert event.error is None, event.error
            taken[event.request_id] = time.perf_counter() - sent[event.request_id]

        follower = Follower(made.site.settings, "inference-replies", note)
        await follower.start()
        row = dict.fromkeys(NAMES, 0.5)

        async def send(ids: list[str]) -> None:
            asked = [InferenceRequested(request_id=each, model="rain", rows=(row,)) for each in ids]
            records = [outgoing(each, "inference-requests", each.request_id) for each in asked]
            now = time.perf_counter()
            sent.update(dict.fromkeys(ids, now))
            await made.site.producer.send_all(records)

        async def answered(count: int) -> None:
            while len(taken) < count:  # noqa: ASYNC110  # coarse on purpose: the times are taken elsewhere
                await asyncio.sleep(0.005)

        await send([f"warm-{number}" for number in range(200)])
        await answered(200)
        began, total = time.perf_counter(), arguments.requests
        for start in range(0, total, 1000):
            await send([f"bulk-{start + number}" for number in range(min(1000, total - start))])
        await answered(200 + total)
        print(f"{total} requests in one go: {total / (time.perf_counter() - began):.0f} requests/s")
        taken.clear()
        for number in range(500):
            await send([f"one-{number}"])
            await asyncio.sleep(0.01)
        await answered(500)
        cuts = statistics.quantiles(taken.values(), n=100)
        print(
            f"about 50 to 100 a second: p50 {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms,"
            f" p99 {cuts[98] * 1000:.1f} ms; load {os.getloadavg()[0]:.1f}"
        )
        await follower.stop()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(required=True)
    for name, work, option, default in (
        ("outage", outage, "--seconds", 600),
        ("swaps", swaps, "--seconds", 300),
        ("models", models, "--count", 200),
        ("kafka", over_kafka, "--requests", 20_000),
    ):
        each = what.add_parser(name)
        each.add_argument(option, type=int, default=default)
        each.set_defaults(work=work)
    arguments = parser.parse_args()
    uvloop.run(arguments.work(arguments))


if __name__ == "__main__":
    main()
