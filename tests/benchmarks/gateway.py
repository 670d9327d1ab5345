"""How many events a second one process of `gateway` takes over HTTP, acknowledged by a real broker.

    uv run python -m tests.benchmarks.gateway --seconds 8

The service runs as a process of its own; 16 connections of this one send predictions of 16 features and about 540 bytes,
one, 100 or 1,000 in a request. The figures are events a second and the service's CPU seconds for a million of them.
Beside it, in this process and without HTTP, what decoding alone costs: by the contracts' classes, and as the gateway
does it.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import httpx
import psutil
import pydantic_core

from tailrace_contracts.events import PredictionMade
from tailrace_ingestion.domain.intake import JSON, PREDICTION, parse
from tailrace_local import EmbeddedKafka
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually
from tests.benchmarks.validate import events

CONNECTIONS = 16
SIZES = (1, 100, 1_000)


def body(size: int) -> bytes:
    """A request's body."""
    documents = [json.loads(each.value or b"{}") for each in islice(events(size), size)]
    return json.dumps({"events": documents}, separators=(",", ":")).encode()


def cpu_of(work: object, seconds: float = 1.0) -> float:
    """How often a call is made in a CPU second."""
    assert callable(work)
    calls, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        work()
        calls += 1
    return calls / (time.process_time() - began)


def by_contracts(sent: bytes) -> list[bytes]:
    """The events of a body, decoded and written by the contracts' classes."""
    documents = pydantic_core.from_json(sent, allow_inf_nan=False)["events"]
    return [PredictionMade.model_validate(each).encode() for each in documents]


async def taken(port: int, sent: bytes, seconds: float) -> int:
    """How many requests are acknowledged in so many seconds."""
    head = f"POST /v1/predictions HTTP/1.1\r\nhost: g\r\ncontent-type: {JSON}\r\ncontent-length: {len(sent)}\r\n\r\n"
    until, request = time.perf_counter() + seconds, head.encode() + sent

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.perf_counter() < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            count += answer.split(b" ")[1] == b"202"
        writer.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))


async def run(seconds: float) -> None:
    """Measure and print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        await create_all(ServiceSettings(kafka_bootstrap=kafka.bootstrap))
        given = {
            "TAILRACE_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "TAILRACE_PORT": str(port),
            "TAILRACE_ROLES": "gateway",
            "TAILRACE_STATE_DIR": folder,
            "TAILRACE_OBJECT_STORE": Path(folder).as_uri(),
        }
        command = (sys.executable, "-m", "tailrace_ingestion.main")
        service = await asyncio.create_subprocess_exec(*command, env={**os.environ, **given})
        try:
            await eventually(lambda: ready(port), 60, 0.2)
            for size in SIZES:
                sent, process = body(size), psutil.Process(service.pid)
                before, began = process.cpu_times(), time.perf_counter()
                count = await taken(port, sent, seconds) * size
                spent, after = time.perf_counter() - began, process.cpu_times()
                used = after.user + after.system - before.user - before.system
                print(
                    f"{size:5} in a request  {count / spent:9,.0f} events/s  {used / count * 1e6:7.0f} CPU s a million"
                )
        finally:
            service.terminate()
            await service.wait()
    sent = body(1_000)
    contracts, gateway = cpu_of(lambda: by_contracts(sent)), cpu_of(lambda: parse(sent, JSON, PREDICTION, 1_000))
    print(f"decoding, events a CPU second: contracts {contracts * 1000:,.0f}, gateway {gateway * 1000:,.0f}")
    print(f"({gateway / contracts:.1f} times); load average {psutil.getloadavg()[0]:.1f}")


def ready(port: int) -> bool:
    """Whether the service says so."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    asyncio.run(run(parser.parse_args().seconds))
