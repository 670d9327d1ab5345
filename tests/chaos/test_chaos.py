"""The chaos of `python -m tests.chaos` at a size for every day: all roles in two processes, and each kind of point once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace_ingestion.testing import Deployment
from tailrace_testing import Broker
from tests.chaos.load import Load, Script
from tests.chaos.points import BEFORE_ACK, BEFORE_COMMIT, IN_REBALANCE, IN_RECOVERY, ROLES, ZOMBIE, points
from tests.chaos.readout import table
from tests.chaos.scenario import Scenario, run, settings_for

ALL = ",".join(ROLES)
CHOSEN = [
    ("validate", BEFORE_ACK),
    ("aggregate", BEFORE_COMMIT),
    ("join", BEFORE_ACK),
    ("archive", BEFORE_COMMIT),
    ("validate", IN_RECOVERY),
    ("aggregate", IN_REBALANCE),
    ("join", ZOMBIE),
]


@pytest.mark.timeout(900)
async def test_killed_at_random_and_at_named_points_nothing_is_lost_and_nothing_doubled(
    kafka: Broker, tmp_path: Path
) -> None:
    """A crash would lose events, labels or statistics, or count them twice."""
    settings = settings_for(kafka.bootstrap, kafka.unique("chaos") + "-", tmp_path)
    deployment = Deployment(settings)
    scenario = Scenario(deployment, Load(deployment, Script(1_500), rate=100), tmp_path, seed=7, say=print)

    async def strike() -> None:
        await scenario.kill_at_random(ALL, 2)
        await scenario.strike_at_points(ALL, [(role, name, points(settings, role)[name]) for role, name in CHOSEN])

    rows = await run(scenario, {ALL: 2, "gateway": 1}, strike)
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
