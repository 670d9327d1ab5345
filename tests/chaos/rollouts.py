"""Rollouts under load while serving, registry and monitoring are killed, at random and at named points; then the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tailrace_testing import eventually
from tests.chaos.fleet import READY_SECONDS, STRUCK, Fleet
from tests.chaos.outcome import READ, judged
from tests.chaos.readout import Readout, Row
from tests.chaos.worker import LOAD, Point
from tests.chaos.world import MODELS, World

STRIKE_SECONDS, END_SECONDS = 600, 120
Say = Callable[[str], None]


def points_of(prefix: str) -> Mapping[str, Mapping[str, Point]]:
    """For each service the moments at which a death could lose or double something."""
    journal, entries, decide = f"{prefix}registry-journal", f"{prefix}audit-entries", f"{prefix}registry-decide"
    predictions, compared = f"{prefix}prediction-events", f"{prefix}evaluations"
    return {
        "registry": {
            "between transaction and publication": Point("ProduceRequest", journal, "before", 3),
            "after the journal, before the decision's events": Point("ProduceRequest", journal, "after", 3),
            "after publication, before the outbox knows": Point("ProduceRequest", entries, "after", 3),
            "after the decision, before the commit": Point("OffsetCommitRequest", decide, "before", 3),
        },
        "serving": {
            "with predictions that were not sent": Point("ProduceRequest", predictions, "before", 20),
            "after the broker has them, before it knows": Point("ProduceRequest", predictions, "after", 20),
            "in a swap, before the artefact is read": Point(LOAD, "", "before", 5),
            "in a swap, with the artefact in hand": Point(LOAD, "", "after", 5),
        },
        "monitoring": {
            "with a comparison that was not sent": Point("ProduceRequest", compared, "before", 3),
            "after the broker has a comparison": Point("ProduceRequest", compared, "after", 3),
            "after the examples, before the commit": Point(
                "OffsetCommitRequest", f"{prefix}monitoring-watch", "before", 3
            ),
        },
    }


@dataclass(slots=True)
class Rollouts:
    """One run."""

    fleet: Fleet
    world: World
    seed: int
    say: Say

    async def strike_all(self, kills: int, services: Sequence[str] = STRUCK) -> None:
        """Each service: so many kills at random, then each of its points. The services are struck beside one another.

        At the very end the registry loses its database, too.
        """

        async def one(service: str) -> None:
            await self.kill_at_random(service, kills)
            for name, point in points_of(self.fleet.settings.topic_prefix)[service].items():
                await self.strike_at(service, name, point)

        async with asyncio.TaskGroup() as tasks:
            for service in services:
                tasks.create_task(one(service))
        await self.lose_database()

    async def lose_database(self) -> None:
        """The registry is killed and its database is gone: it comes back from the topics, under load."""
        began = time.monotonic()
        await self.fleet.lose_database("registry")
        await self.fleet.begin_again("registry")
        await asyncio.sleep(5)
        self.say(f"registry rebuilt from the topics, after {time.monotonic() - began:.0f} s")

    async def kill_at_random(self, service: str, kills: int) -> None:
        """Kill it, wait until it is ready again, and so on."""
        chance, process = random.Random(f"{self.seed} {service}"), self.fleet.processes[service]
        for number in range(kills):
            await asyncio.sleep(chance.uniform(0.5, 10.0))
            process.kill()
            await self.fleet.begin_again(service)
            self.say(f"{service} killed at random, {number + 1} of {kills}; champions of round {self._rounds()}")

    async def strike_at(self, service: str, name: str, point: Point) -> None:
        """Let it run into the point, and start it again."""
        began, process = time.monotonic(), self.fleet.processes[service]
        await self.fleet.strike_at(service, point)

        async def struck() -> bool:
            return process.ended is not None

        try:
            await eventually(struck, seconds=STRIKE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{service} did not come to the point {name!r} ({point})") from error
        process.kills += 1
        await self.fleet.begin_again(service)
        self.say(f"{service} killed {name}, after {time.monotonic() - began:.0f} s")

    def _rounds(self) -> str:
        return " and ".join(f"{self.world.rounds[model] - 1}" for model in MODELS)

    async def end(self, loading: asyncio.Task[None]) -> list[Row]:
        """Stop the world, wait until everything has come through, and judge."""
        self.world.over.set()
        await loading
        answered = sum(len(each) for each in self.world.answers.values())
        self.say(f"{answered:,} answers, {self.world.refused} questions asked again; waiting for the end of the work")
        for process in self.fleet.processes.values():
            await eventually(process.ready, seconds=READY_SECONDS)
        async with Readout(self.fleet.settings, READ) as readout:
            deadline = time.monotonic() + END_SECONDS
            while True:
                rows = await judged(readout, self.fleet, self.world)
                if all(row.holds for row in rows) or time.monotonic() > deadline:
                    break
                await asyncio.sleep(1)
        for process in self.fleet.processes.values():
            await process.told_to_stop()
        return rows


async def run(rollouts: Rollouts, strike: Callable[[], Awaitable[None]]) -> list[Row]:
    """Begin, strike under load, judge, and leave nothing running."""
    fleet, world = rollouts.fleet, rollouts.world
    try:
        await fleet.begin()
        await world.producer.start()
        world.serving = fleet.processes["serving"].base
        loading = asyncio.create_task(world.run())
        try:
            await eventually(lambda: min(world.rounds.values()) > 1, seconds=READY_SECONDS)
            await strike()
            return await rollouts.end(loading)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
    finally:
        fleet.clean_up()
        await world.producer.stop()
