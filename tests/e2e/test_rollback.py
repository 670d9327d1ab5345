"""A bad champion is found out and replaced by the one before, without a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Running
from tests.e2e.rollbacks import TRIGGERS, Trigger, rolled_back

WORDS: dict[Trigger, str] = {
    "errors": "version 2 failed on",
    "latency": "calls of version 2 took longer than 40 ms",
    "fairness": "the true positive rate for c=y is",
    "loss": "version 1 did better on",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trigger", TRIGGERS)
async def test_a_bad_champion_makes_room_for_the_one_before(
    tailrace: Running, tmp_path: Path, trigger: Trigger
) -> None:
    """A version that fails, is slow, unfair or wrong would serve until a person wakes up, and the next one follow it."""
    found = await rolled_back(tailrace, tmp_path, trigger)
    assert found.stage == "rolled-back"
    assert WORDS[trigger] in found.reason
    assert "batch" in found.paused
