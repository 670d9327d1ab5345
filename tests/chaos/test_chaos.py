"""The chaos of `python -m tests.chaos` at a size for every day: every role at each of its points, the gateway too.

All roles run in two processes, and die together. What the full command adds: two processes for each role, which die by themselves
and beside one another; twenty kills at random of each; a hundred thousand events.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tailrace_ingestion.testing import Deployment
from tailrace_testing import Broker
from tests.chaos.load import Load, Script
from tests.chaos.points import BEFORE_ACK, BEFORE_COMMIT, IN_REBALANCE, IN_RECOVERY, ROLES, ZOMBIE, points
from tests.chaos.readout import table
from tests.chaos.scenario import Scenario, run, settings_for

ALL = ",".join(ROLES)


@pytest.mark.timeout(1_200)
async def test_killed_at_random_and_at_every_named_point_nothing_is_lost_and_nothing_doubled(
    kafka: Broker, tmp_path: Path
) -> None:
    """A crash would lose events, labels or statistics, or count them twice."""
    settings = settings_for(kafka.bootstrap, kafka.unique("chaos") + "-", tmp_path)
    deployment = Deployment(settings)
    load = Load(deployment, Script(1_500), rate=100)
    scenario = Scenario(deployment, load, tmp_path, seed=7, say=print, alone_after_seconds=20)

    async def strike(group: str, *roles: str) -> None:
        await scenario.kill_at_random(group, 2)
        named = [(role, *point) for role in roles for point in points(settings, role).items()]
        await scenario.strike_at_points(group, named)

    async def strike_all() -> None:
        await asyncio.gather(strike(ALL, *ROLES), strike("gateway", "gateway"))

    rows = await run(scenario, {ALL: 2, "gateway": 1}, strike_all)
    assert all(row.holds for row in rows), "\n" + table(rows)
    assert scenario.gave_up == []


def test_every_role_has_every_point() -> None:
    """A role could be left out of the full run without anybody noticing."""
    settings = settings_for("127.0.0.1:9092", "", Path("/nowhere"))
    wanted = {BEFORE_COMMIT, IN_RECOVERY, IN_REBALANCE, ZOMBIE}
    for role in ROLES:
        assert wanted <= points(settings, role).keys()
    for role in ("validate", "aggregate", "join", "gateway"):
        assert BEFORE_ACK in points(settings, role)
