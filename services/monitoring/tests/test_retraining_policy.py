"""When a training is asked for, and on exactly which examples."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.retraining import PATIENCE, QUIET, Cause, Pending, Request, RetrainingState, Situation
from tailrace_monitoring.domain.trail import Step, Trail, ranges_of
from tailrace_monitoring.testing import FIRST_DAY, NOW, tide_spec

LOG = Log("labelled-examples", 1)


def trail_of(count: int, length: int = 1000) -> Trail:
    """The trail after `count` examples, number n at offset n - 1."""
    steps = (Step(n, LOG, n - 1, f"p{n}", 0, FIRST_DAY + timedelta(days=n), 0) for n in range(1, count + 1))
    return Trail(length, steps)


def ask(
    state: RetrainingState, number: int, spec: ModelSpec | None = None, *, has_version: bool = True, trial: bool = False
) -> Request | None:
    """What is asked for at this example."""
    situation = Situation(number, has_version, trial, NOW)
    return state.due(spec or tide_spec(), trail_of(number), situation, lambda: f"run-{number}")


def alert(state: RetrainingState, number: int, since: int | None, cause: Cause = "concept-drift", **spec: Any) -> bool:
    """An alert at this example; whether it leads to a training."""
    pending = Pending(run_id="run-a", since=None, due=0, reason="it moved", requested_by=f"{cause} alert")
    return state.alert(cause, since, number, tide_spec(**spec), pending)


def span(request: Request | None) -> tuple[int, int] | None:
    """The first and last example of a request."""
    return (request.steps[0].number, request.steps[-1].number) if request else None


def test_the_first_training_reads_a_history_whole() -> None:
    """A replayed history would be cut at whatever batch brought the least number of examples."""
    state = RetrainingState(newest_at=NOW)
    assert ask(state, 99, has_version=False) is None
    assert ask(state, 199, has_version=False) is None
    assert span(ask(state, 200, has_version=False)) == (1, 200)
    assert state.outstanding == "run-200"


@pytest.mark.parametrize(
    ("newest", "enough", "seconds"), [(NOW, NOW, QUIET.seconds), (NOW + PATIENCE, NOW, PATIENCE.seconds)]
)
def test_the_first_training_begins_with_fewer_when_no_more_come(
    newest: datetime, enough: datetime, seconds: int
) -> None:
    """A slow stream would wait for its first version for ever."""
    state = RetrainingState(newest_at=newest, enough_at=enough)
    later = Situation(150, False, False, NOW + timedelta(seconds=seconds))  # noqa: FBT003
    just_before = later._replace(now=later.now - timedelta(seconds=1))
    assert state.due(tide_spec(), trail_of(150), just_before, lambda: "run-x") is None
    assert state.waits(tide_spec(), just_before)
    assert span(state.due(tide_spec(), trail_of(150), later, lambda: "run-x")) == (1, 150)
    assert not state.waits(tide_spec(), later)


def test_only_one_run_is_outstanding() -> None:
    """Every further example would ask for the first training again."""
    state = RetrainingState()
    assert ask(state, 200, has_version=False) is not None
    assert ask(state, 350, has_version=False) is None
    assert not alert(state, 350, 340)


def test_a_failed_first_training_is_asked_for_again_after_the_cooldown() -> None:
    """One failure would leave a model without a version for ever, or trainings would fail in a tight circle."""
    state = RetrainingState()
    ask(state, 200, has_version=False)
    state.over("run-200")
    assert ask(state, 299, has_version=False) is None
    assert ask(state, 300, has_version=False) is not None


def test_a_training_after_drift_waits_until_the_regime_has_settled_and_reads_only_it() -> None:
    """The new model would be trained on what no longer holds."""
    state = RetrainingState()
    assert alert(state, 520, 455)
    assert ask(state, 559) is None
    request = ask(state, 560)
    assert span(request) == (455, 560)
    assert request is not None
    assert request.run_id == "run-a"


def test_a_short_regime_is_padded_with_the_newest_examples() -> None:
    """A training on a handful of examples would be refused, and nothing would replace the champion."""
    state = RetrainingState()
    assert alert(state, 520, 500)
    assert span(ask(state, 560)) == (361, 560)
    assert state.follow_up is None


def test_a_long_regime_is_cut_to_the_newest_examples() -> None:
    """A training would read more than the learner's spec allows."""
    state = RetrainingState()
    assert alert(state, 700, 300)
    assert span(ask(state, 740)) == (541, 740)
    assert state.follow_up is None


def test_an_alert_in_the_cooldown_waits_for_its_end() -> None:
    """Alerts in a row would start training after training, or the second would be forgotten."""
    state = RetrainingState()
    alert(state, 520, 440)
    ask(state, 560)
    state.over("run-a")
    assert alert(state, 570, 555)
    assert ask(state, 659) is None
    assert span(ask(state, 660)) == (555, 660)


def test_a_short_training_is_followed_by_one_on_the_whole_regime() -> None:
    """The early repair would stay although far more is known by now."""
    state = RetrainingState()
    alert(state, 520, 461)
    ask(state, 560)
    state.over("run-a")
    assert ask(state, 659) is None
    assert ask(state, 660, trial=True) is None
    assert span(ask(state, 720)) == (521, 720)
    state.over("run-720")
    assert ask(state, 900) is None


@pytest.mark.parametrize(
    ("cause", "changes"),
    [
        ("feature-drift", {}),
        ("concept-drift", {"retraining": {"after": ["performance"]}}),
        ("concept-drift", {"learners": {}}),
    ],
)
def test_alerts_that_the_spec_does_not_name_lead_to_nothing(cause: Cause, changes: dict[str, Any]) -> None:
    """A model would be retrained against its owner's word."""
    assert not alert(RetrainingState(), 520, 500, cause, **changes)


def test_corrections_are_not_more_examples() -> None:
    """A training would be refused for too few examples, because one that was corrected often had counted often."""
    steps = [Step(n, LOG, n - 1, f"p{max(n, 500)}", 0, FIRST_DAY, 0) for n in range(1, 561)]
    state = RetrainingState()
    alert(state, 520, 450)
    request = state.due(tide_spec(), Trail(1000, steps), Situation(560, True, False, NOW), lambda: "run-x")  # noqa: FBT003
    assert span(request) == (361, 560)


def test_a_training_names_every_record_and_no_other() -> None:
    """A training could not be repeated, or would read examples of another model that stand between."""
    steps = [Step(n, LOG, offset, f"p{n}", 0, FIRST_DAY, 0) for n, offset in enumerate([3, 4, 5, 9, 11, 12], 1)]
    assert str(ranges_of(steps)) == "labelled-examples[1]@3..5, labelled-examples[1]@9..9, labelled-examples[1]@11..12"


def test_the_state_survives_being_stored() -> None:
    """A restart between alert and training would forget the training."""
    state = RetrainingState()
    alert(state, 520, 450)
    again = RetrainingState.model_validate_json(state.model_dump_json())
    assert span(ask(again, 560)) == (450, 560)
