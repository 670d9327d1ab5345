"""Kafka killed under load, and disks that are full: ingestion waits, or ends loudly, and loses nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace_ingestion.testing import Deployment
from tailrace_testing import Broker, OwnBroker, eventually
from tests.chaos.load import Load, Script
from tests.chaos.points import ROLES
from tests.chaos.readout import table
from tests.chaos.scenario import Scenario, run, settings_for


@pytest.mark.timeout(600)
async def test_kafka_is_killed_under_load_and_returns(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """A restart of the broker would lose what was on its way, or leave roles behind that never go on."""
    broker = broker_of_its_own()
    deployment = Deployment(settings_for(broker.bootstrap, "", tmp_path))
    scenario = Scenario(deployment, Load(deployment, Script(800), rate=150), tmp_path, seed=1, say=print)

    async def strike() -> None:
        for _ in range(2):
            await asyncio.sleep(2)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)

    rows = await run(scenario, {",".join(ROLES): 1, "gateway": 1}, strike)
    assert all(row.holds for row in rows), "\n" + table(rows)
    assert scenario.gave_up == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("role", "file_bytes"), [("join", 32_768), ("archive", 1_024)])
async def test_a_full_disk_is_told_and_loses_nothing(kafka: Broker, tmp_path: Path, role: str, file_bytes: int) -> None:
    """A disk that was full overnight would have cost examples, or stretches of the archive."""
    settings = settings_for(kafka.bootstrap, kafka.unique("disk") + "-", tmp_path)
    deployment = Deployment(settings)
    scenario = Scenario(deployment, Load(deployment, Script(800), rate=150), tmp_path, seed=1, say=print)

    async def strike() -> None:
        (member,) = scenario.members[role]
        member.kill()
        member.start_with_full_disk(file_bytes)

        async def told() -> bool:
            """It ended with 1, which may be at its first write; or it waits, says for what, and lives."""
            status, said = await member.get("/readyz")
            waits = status == 503 and os.strerror(errno.EFBIG) in said
            return member.ended == 1 or (waits and (await member.get("/livez"))[0] == 200)

        await eventually(told, seconds=120)
        member.kill()
        member.start()

    groups = {role: 1, ",".join(each for each in ROLES if each != role): 1}
    rows = await run(scenario, groups, strike)
    assert all(row.holds for row in rows), "\n" + table(rows)
