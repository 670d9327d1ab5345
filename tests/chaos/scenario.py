"""One run: a deployment under load, its processes killed at random and at every named point, and the verdict.

The load goes on as long as processes are struck, so every strike meets events on their way, however slow the machine.
Roles are struck beside one another; within a role a strike follows the other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tailrace_ingestion.adapters.faust_app import SESSION_SECONDS
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import Deployment, applied
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import eventually
from tests.chaos.archive import archived_through, read_back
from tests.chaos.load import Load, spec
from tests.chaos.points import points
from tests.chaos.processes import Member
from tests.chaos.readout import Readout, Row
from tests.chaos.truth import READ, verdict
from tests.chaos.worker import Point

READY_SECONDS, STRIKE_SECONDS, END_SECONDS = 120, 180, 300
ALONE_AFTER_SECONDS = 60
_TURN_SECONDS = 0.2

Say = Callable[[str], None]


def settings_for(bootstrap: str, prefix: str, folder: Path) -> IngestionSettings:
    """Settings with short intervals, so that a run has many of each."""
    return IngestionSettings(
        kafka_bootstrap=bootstrap,
        topic_prefix=prefix,
        object_store=(folder / "objects").as_uri(),
        state_dir=folder / "state",
        port=0,
        idle_source_seconds=30,
        archive_seconds=2,
    )


@dataclass(slots=True)
class Scenario:
    """The processes and what is done to them."""

    deployment: Deployment
    load: Load
    folder: Path
    seed: int
    say: Say
    alone_after_seconds: float = ALONE_AFTER_SECONDS
    members: dict[str, list[Member]] = field(default_factory=dict)

    async def begin(self, groups: Mapping[str, int]) -> None:
        """Start the processes: for each set of roles (comma separated) so many. Then the gateway's clients know it."""
        await create_all(self.deployment.settings)
        await self.deployment.producer.start()
        await self.deployment.send(outgoing(applied(spec()), "model-specs", "rain"))
        for roles, count in groups.items():
            self.members[roles] = [
                Member(self.deployment.settings, roles, str(number), self.folder) for number in range(count)
            ]
        for member in self.everyone:
            member.start()
        for member in self.everyone:
            await eventually(member.ready, seconds=READY_SECONDS)
        if "gateway" in self.members:
            self.load.gateway = f"http://127.0.0.1:{self.members['gateway'][0].port}"

    @property
    def everyone(self) -> list[Member]:
        """All processes."""
        return [member for group in self.members.values() for member in group]

    @property
    def gave_up(self) -> list[str]:
        """Processes that ended by themselves: a crash elsewhere should not bring another process down."""
        return [member.name for member in self.everyone if member.gave_up]

    # ------------------------------------------------------------ strikes

    async def kill_at_random(self, roles: str, kills: int) -> None:
        """Kill one or another of the group's processes, start it again at once or after the others took over."""
        chance, group = random.Random(f"{self.seed} {roles}"), self.members[roles]
        for number in range(kills):
            await asyncio.sleep(chance.uniform(0.5, 5.0))
            for each in group:
                each.tend()
            victim = chance.choice(group)
            victim.kill()
            if chance.random() < 0.25:
                await asyncio.sleep(SESSION_SECONDS + 2)
            victim.start()
            self.say(f"{victim.name} killed at random, {number + 1} of {kills}")

    async def strike_at(self, roles: str, name: str, point: Point) -> None:
        """Let a process of the group run into the point. A frozen one wakes when the others have its partitions.

        All that the point waits for may lie in another process's partitions (the partials of one model lie in one). After
        a while the others are killed, so that the victim gets them, and come back when it is there.
        """
        victim, *others = self.members[roles]
        began, alone = time.monotonic(), False
        victim.kill()
        victim.start_at(point)
        while victim.ended is None and not victim.frozen:
            waited = time.monotonic() - began
            if waited > STRIKE_SECONDS:
                raise AssertionError(f"{victim.name} did not come to the point {name!r} ({point})")
            if waited > self.alone_after_seconds and not alone:
                alone = True
                for other in others:
                    other.kill()
            await asyncio.sleep(_TURN_SECONDS)
        if alone:
            for other in others:
                other.start()
                await eventually(other.ready, seconds=READY_SECONDS)
        if victim.frozen:
            await asyncio.sleep(SESSION_SECONDS + 4)
            victim.thaw()
        else:
            victim.kill()
            victim.kills += 1
            victim.start()
        self.say(f"{victim.name} {name}, after {time.monotonic() - began:.0f} s{', alone' if alone else ''}")

    async def strike_at_points(self, roles: str, chosen: Sequence[tuple[str, str, Point]]) -> None:
        """Strike at each of these (role, name, point), one after another."""
        for role, name, point in chosen:
            for each in self.members[roles]:
                each.tend()
            await self.strike_at(roles, f"{role}: {name}", point)

    async def strike_all(self, kills: int) -> None:
        """Every role: so many kills at random, then every point."""

        async def one(role: str) -> None:
            await self.kill_at_random(role, kills)
            named = points(self.deployment.settings, role)
            await self.strike_at_points(role, [(role, name, point) for name, point in named.items()])

        async with asyncio.TaskGroup() as roles:
            for role in self.members:
                roles.create_task(one(role))

    # ------------------------------------------------------------ the end

    async def end(self, loading: asyncio.Task[None]) -> list[Row]:
        """Publish the rest, wait until everything is done, stop everything in good order, and judge."""
        self.load.hurry.set()
        await loading
        self.say(f"{self.load.sent} events published; waiting for the end of the work")
        async with Readout(self.deployment.settings, READ) as readout:
            rows = await self._settled(readout)
            for member in self.everyone:
                await member.told_to_stop()
            rows = verdict(await readout.catch_up()) if all(row.holds for row in rows) else rows
            return rows + await read_back(self.deployment.settings, readout.logs)

    async def _settled(self, readout: Readout) -> list[Row]:
        """The verdict, as soon as it is good; after the deadline as it is."""
        deadline = time.monotonic() + END_SECONDS
        while True:
            for member in self.everyone:
                member.tend()
            logs = await readout.catch_up()
            rows = verdict(logs)
            if all(row.holds for row in rows) and await archived_through(self.deployment.settings, logs):
                return rows
            if time.monotonic() > deadline:
                return rows
            await asyncio.sleep(2)

    async def clean_up(self) -> None:
        """Leave nothing running."""
        for member in self.everyone:
            member.kill()
        await self.deployment.producer.stop()


async def run(scenario: Scenario, groups: Mapping[str, int], strike: Callable[[], Awaitable[None]]) -> list[Row]:
    """Begin, strike under load, and judge."""
    try:
        await scenario.begin(groups)
        loading = asyncio.create_task(scenario.load.run())
        try:
            await strike()
            return await scenario.end(loading)
        finally:
            loading.cancel()
    finally:
        await scenario.clean_up()
