"""Questions at a steady rate over a few connections, each with a name of its own, and how long each answer took."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

CONNECTIONS = 8


@dataclass(slots=True)
class Phase:
    """What came of the questions of one stretch of time."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def quantile(self, percent: int) -> float:
        """Of the latencies, in milliseconds."""
        return statistics.quantiles(self.milliseconds, n=100)[percent - 1]

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.name:24}{len(self.milliseconds):>9,} answered{len(self.failures):>6} failed"
            f"{len(self.milliseconds) / self.seconds:>7.0f}/s   p50 {self.quantile(50):.2f} ms, p99 {self.quantile(99):.2f} ms,"
            f" slowest {max(self.milliseconds):.0f} ms   {max(self.megabytes):.0f} MB"
        )


@dataclass(slots=True)
class Caller:
    """Asks the process on a port; remembers who was answered."""

    port: int
    rate: float
    answered: set[str] = field(default_factory=set)

    async def ask(self, phase: Phase, seconds: float) -> None:
        """Ask for so long, and note what came of it."""
        began = time.perf_counter()
        names = iter(f"{phase.name.replace(' ', '-')}-{number}" for number in range(10**9))
        await asyncio.gather(*(self._connection(phase, names, began, number, seconds) for number in range(CONNECTIONS)))
        phase.seconds += time.perf_counter() - began

    async def _connection(self, phase: Phase, names: Iterator[str], began: float, number: int, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        every = CONNECTIONS / self.rate
        due = began + every * number / CONNECTIONS
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            name = next(names)
            asked = time.perf_counter()
            writer.write(question(name))
            status, body = await answer(reader)
            if status == "200":
                phase.milliseconds.append((time.perf_counter() - asked) * 1000)
                self.answered.add(name)
            else:
                phase.failures.append(f"{name}: {status} {body[:100]!r}")
            due = max(due + every, time.perf_counter() - 1.0)  # a client that was held up does not make a burst of it
        writer.close()
        await writer.wait_closed()


def question(name: str) -> bytes:
    """One row for the model `rain` of serving's tests."""
    features = {"humidity": 40.0, "pressure": 1000.0, "wind": 3.0, "sky": "clear"}
    body = json.dumps({"features": features, "prediction_id": name}).encode()
    head = "POST /v1/models/rain/predict HTTP/1.1\r\nhost: serving\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head.split(b" ")[1].decode(), await reader.readexactly(length)
