"""How many single-row questions one serving process answers in a second, and how fast, over HTTP keep-alive.

    uv run python -m tests.benchmarks.serving_http --bootstrap 127.0.0.1:9092 [--shadow]

The process is the real one (`python -m tailrace_serving.main`), with eight features, an ONNX champion and, with
`--shadow`, a river shadow; it publishes every answer to the broker given. It is held to the machine's first core where
the system can do that. At the end everything answered has to be captured: on the topic, none lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from pathlib import Path

import httpx
import uvloop

from services.serving.tests.test_serving_live import KEY, Site, network, until_ready
from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.spec import OnlineLearner
from tailrace_local import free_port
from tailrace_models import ONNX, RIVER, RiverModel
from tailrace_serving import testing

NAMES = [f"x{number}" for number in range(8)]
BODY = json.dumps(
    {"inputs": [{"name": name, "datatype": "FP64", "shape": [1], "data": [0.5]} for name in NAMES]}
).encode()
HEAD = (
    b"POST /v2/models/rain/infer HTTP/1.1\r\nhost: serving\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
)


def eight_features() -> ModelSpec:
    """A spec as large as the weather demo's."""
    features = [{"type": "numerical", "name": name, "limits": {"min": -5, "max": 5}} for name in NAMES]
    return parse_spec({"model": "rain", "owner": "benchmark", "label": {"name": "rain"}, "features": features})


def shadow(spec: ModelSpec) -> bytes:
    """A river pipeline that has learned a little."""
    model = RiverModel.build(OnlineLearner(), spec)
    for number in range(100):
        model.learn(dict.fromkeys(NAMES, number % 10 / 10), number % 2)
    return model.to_envelope(KEY)


async def deploy(site: Site, *, with_shadow: bool) -> None:
    """Say what the registry would say."""
    spec = eight_features()
    await site.publish(testing.applied(spec))
    await site.publish(testing.versioned(1, await site.artefact(network(spec, 1.0), ONNX)))
    if with_shadow:
        await site.publish(testing.versioned(2, await site.artefact(shadow(spec), RIVER), revision=1))
    await site.publish(testing.deployed(1, shadows=(2,) if with_shadow else ()))


async def ask(port: int, until: float, seconds: list[float]) -> None:
    """One keep-alive connection, one question after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(HEAD + BODY)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
        await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        seconds.append(time.perf_counter() - began)
    writer.close()


async def load(port: int, connections: int, duration: float) -> int:
    """Ask over so many connections for so long; print what came of it."""
    seconds: list[float] = []
    until = time.perf_counter() + duration
    await asyncio.gather(*(ask(port, until, seconds) for _ in range(connections)))
    cuts = statistics.quantiles(seconds, n=100)
    print(
        f"{connections:3d} connections: {len(seconds) / duration:7.0f} requests/s,"
        f" p50 {cuts[49] * 1000:.2f} ms, p95 {cuts[94] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms"
    )
    return len(seconds)


async def start(site: Site, port: int) -> Process:
    """The service as a process, on one core."""
    command = [sys.executable, "-m", "tailrace_serving.main"]
    environment = {**site.environment(port), "TAILRACE_LOG_LEVEL": "warning"}
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {0})
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)) or {0})
    return process


async def measured(arguments: argparse.Namespace) -> None:
    """Start the service, ask, print, stop."""
    prefix = f"bench-{os.getpid()}-{int(time.time())}-"
    with tempfile.TemporaryDirectory() as folder:
        async with Site(arguments.bootstrap, prefix, Path(folder)) as site:
            await site._follower.stop()
            await deploy(site, with_shadow=arguments.shadow)
            port = free_port()
            process = await start(site, port)
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                    await until_ready(client)
                    answered = await load(port, 1, 1)
                    for connections in arguments.connections:
                        answered += await load(port, connections, arguments.seconds)
                    await reconciled(client, answered)
            finally:
                process.terminate()
                await process.wait()


async def reconciled(client: httpx.AsyncClient, answered: int) -> None:
    """Wait until everything answered is captured or counted as lost; print the counters."""
    for _ in range(300):
        text = (await client.get("/metrics")).text
        counters = [
            line
            for line in text.splitlines()
            if line.startswith(("tailrace_capture", "tailrace_shadows", "process_resident"))
        ]
        captured = sum(
            float(line.split()[-1])
            for line in counters
            if line.startswith(("tailrace_captured_total", "tailrace_capture_lost_total"))
        )
        if captured == answered:
            break
        await asyncio.sleep(0.1)
    print(f"answered {answered}")
    print("\n".join(counters))


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--shadow", action="store_true")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16])
    uvloop.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
