"""A broker that is away, or that hangs, while questions come at a steady rate: none fails, and every answer is accounted for.

absent   the broker is stopped in good order, and started again on the same data
frozen   the broker stands still (SIGSTOP): connections stay open and nothing answers
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from services.serving.tests.test_serving_live import Site
from tailrace_local import EmbeddedKafka
from tailrace_runtime.settings import KafkaSettings
from tailrace_testing import ServiceProcess, eventually
from tests.chaos.readout import Readout, Row
from tests.chaos.steady import Caller, Phase

Kind = Literal["absent", "frozen"]
KINDS: tuple[Kind, ...] = ("absent", "frozen")
READY_SECONDS, SETTLE_SECONDS = 120, 300
SLOWER_AT_MOST = 1.05
MORE_MEGABYTES_AT_MOST = 135
"""`capture_max_bytes`, whose default is 134,217,728."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Outage:
    """One run with one kind of outage."""

    kafka: EmbeddedKafka
    folder: Path
    kind: Kind
    rate: float
    say: Say
    max_events: int = 100_000
    """What serving may hold; beyond that it loses answers, and counts them."""
    phases: list[Phase] = field(default_factory=list)
    """Before, without the broker, and after."""

    async def run(self, seconds: float, beside_seconds: float) -> list[Row]:
        """So long away, so long before and after; the phases are told, and the verdict given back."""
        async with Site(self.kafka.bootstrap, f"{self.kind}-", self.folder) as site:
            await site._follower.stop()
            await site.champion()
            serving = site.process(TAILRACE_LOG_LEVEL="error", TAILRACE_CAPTURE_MAX_EVENTS=str(self.max_events))
            serving.start()
            try:
                await eventually(serving.ready, seconds=READY_SECONDS)
                caller = Caller(serving.port, self.rate)
                await self._phase(caller, serving, "warm", min(5.0, beside_seconds))
                before = await self._phase(caller, serving, "before", beside_seconds)
                await asyncio.to_thread(self._take_away)
                away = await self._phase(caller, serving, f"broker {self.kind}", seconds)
                await asyncio.to_thread(self._bring_back)
                after = await self._phase(caller, serving, "after", beside_seconds)
                self.phases = [before, away, after]
                return await self._verdict(site.settings, serving, caller)
            finally:
                serving.kill()

    async def _phase(self, caller: Caller, serving: ServiceProcess, name: str, seconds: float) -> Phase:
        phase = Phase(name)
        watching = asyncio.create_task(_watch(phase, serving.pid))
        await caller.ask(phase, seconds)
        watching.cancel()
        if name != "warm":
            self.say(f"{phase}   load {os.getloadavg()[0]:.1f}")
        return phase

    def _take_away(self) -> None:
        if self.kind == "absent":
            self.kafka.stop()
        elif self.kafka.process is not None:
            os.kill(self.kafka.process.id.pid, signal.SIGSTOP)

    def _bring_back(self) -> None:
        if self.kind == "absent":
            self.kafka.start()
        elif self.kafka.process is not None:
            os.kill(self.kafka.process.id.pid, signal.SIGCONT)

    def felt(self) -> list[Row]:
        """Whether anybody felt it: only of a run that is long enough, on a machine that does nothing else."""
        before, away, after = self.phases
        slower = away.quantile(99) / before.quantile(99)
        more = max(*away.megabytes, *after.megabytes) - max(before.megabytes)
        self.say(f"p99 while {self.kind} is {slower:.3f} of that before; {more:.0f} MB more are held at most")
        return [
            Row(f"p99 more than {SLOWER_AT_MOST} of that before", 0, int(slower > SLOWER_AT_MOST)),
            Row(
                f"memory more than {MORE_MEGABYTES_AT_MOST} MB above that before", 0, int(more > MORE_MEGABYTES_AT_MOST)
            ),
        ]

    async def _verdict(self, settings: KafkaSettings, serving: ServiceProcess, caller: Caller) -> list[Row]:
        """Wait until serving holds nothing any more; then count what is on the topic."""

        async def settled() -> bool:
            done = [await serving.metric(f"tailrace_{name}_total{{") for name in ("captured", "capture_lost")]
            return sum(done) >= len(caller.answered)

        await eventually(settled, seconds=SETTLE_SECONDS, every_seconds=0.5)
        captured, lost = [await serving.metric(f"tailrace_{name}_total{{") for name in ("captured", "capture_lost")]
        async with Readout(settings, ("prediction-events",)) as readout:
            logs = await readout.catch_up()
        keys = [(record.key or b"").decode() for records in logs["prediction-events"].values() for record in records]
        published = set(keys)
        failures = [each for phase in self.phases for each in phase.failures]
        self.say(f"{int(lost):,} of {len(caller.answered):,} answers are counted as lost")
        self.say(f"{len(keys) - len(published)} events stand on the topic twice, under the same id")
        return [
            Row("failed questions", 0, len(failures), tuple(failures[:3])),
            Row("answered = published + lost", len(caller.answered), len(published) + int(lost)),
            Row("published, as serving counts it", int(captured), len(published)),
            Row("published that nobody was told of", 0, len(published - caller.answered)),
        ]


async def _watch(phase: Phase, pid: int) -> None:
    """How much memory serving has, every half a second."""
    process = psutil.Process(pid)
    while True:
        phase.megabytes.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(0.5)
