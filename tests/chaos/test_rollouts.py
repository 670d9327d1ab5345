"""`python -m tests.chaos rollout` and `outage` at a size for every day."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace_contracts.events import AuditRecorded
from tailrace_runtime.settings import KafkaSettings
from tailrace_testing import Broker, OwnBroker
from tests.chaos.fleet import STRUCK, Fleet
from tests.chaos.outage import KINDS, Kind, Outage
from tests.chaos.outcome import walked
from tests.chaos.readout import table
from tests.chaos.rollouts import Rollouts, points_of, run
from tests.chaos.world import World

CHOSEN = {
    "serving": "with predictions that were not sent",
    "registry": "after the journal, before the decision's events",
    "monitoring": "after the broker has a comparison",
}
"""One point of each service; the others are for the full run."""


@pytest.mark.timeout(900)
async def test_killed_during_rollouts_nothing_is_lost_and_no_transition_doubled(
    kafka: Broker, database: str, tmp_path: Path
) -> None:
    """A crash in the middle of a rollout would lose predictions or decisions, or take decisions twice."""
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("rollout") + "-")
    fleet = Fleet(settings, database, tmp_path)
    rollouts = Rollouts(fleet, World.around(fleet, 40), seed=7, say=print)

    async def strike() -> None:
        for service in STRUCK:
            await rollouts.kill_at_random(service, 1)
            name = CHOSEN[service]
            await rollouts.strike_at(service, name, points_of(settings.topic_prefix)[service][name])
        await rollouts.lose_database()

    rows = await run(rollouts, strike)
    assert all(row.holds for row in rows), "\n" + table(rows)
    assert [process.gave_up for process in fleet.processes.values()] == [0, 0, 0, 0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_during_an_outage_is_accounted_for(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path, kind: Kind
) -> None:
    """A broker that stops, or hangs, would fail inferences, or leave holes that nobody counted."""
    said: list[str] = []
    outage = Outage(broker_of_its_own().kafka, tmp_path, kind, rate=50, say=said.append, max_events=200)
    rows = await outage.run(8, 3)
    assert all(row.holds for row in rows), "\n" + table(rows)
    assert not any(each.startswith("0 of") for each in said), said


def test_the_verdict_sees_a_lost_and_a_doubled_move() -> None:
    """The full run would say that all is well, whatever happens."""

    def entry(sequence: int, before: str, action: str) -> AuditRecorded:
        reason = f"from {before} to {action}: why" if before else "registered: why"
        given = {"sequence": sequence, "model": "rain", "actor": "registry", "action": action, "subject": "version 1"}
        more = {
            "outcome": "done",
            "reason": reason,
            "previous_sha256": "",
            "sha256": "",
            "time": "2026-01-01T00:00:00Z",
        }
        return AuditRecorded.model_validate({**given, **more})

    whole = [entry(1, "", "registered"), entry(2, "registered", "shadow"), entry(3, "shadow", "canary")]
    assert walked(whole) == (3, ())
    assert walked([whole[0], whole[2]])[0] == 1
    assert walked([*whole, whole[2]])[0] == 3
