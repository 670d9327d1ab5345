"""Gates: a candidate that is better still has to pass them, and one that does not is told at which, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace_contracts.audit import Link
from tailrace_contracts.events import (
    AnswersMeasured,
    ArmsCompared,
    AuditRecorded,
    Bounds,
    GroupWorsened,
    InputMeasured,
    PromoteVersion,
    Stage,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.commands import obey
from tailrace_registry.domain.facts import announce
from tailrace_registry.domain.gates import judged
from tailrace_registry.domain.model import Decision, Model
from tailrace_registry.domain.rollout import compare, version_of
from tailrace_registry.testing import NOON, a_candidate, a_command, a_comparison, a_spec
from tailrace_statistics.intervals import wilson_interval

MEASURED = LogRanges.of(LogRange(topic="serving-measurements", partition=0, from_offset=3, through_offset=90))
SUMMARISED = LogRanges.of(LogRange(topic="predictions", partition=1, from_offset=0, through_offset=999))


def gated(**gates: Any) -> ModelSpec:
    """A spec with these gates."""
    rollout = {"shadow_min_examples": 100, "canary_min_examples": 100, "max_examples": 1000, "standby_examples": 0}
    return a_spec(protected=["humidity"], rollout={**rollout, "gates": gates})


def on_trial(spec: ModelSpec, stage: Stage = "shadow", *, continual: bool = False) -> Model:
    """Champion 1, and candidate 2 in a stage."""
    versions = {
        number: version_of(a_candidate(f"run-{number}", continual=continual and number == 2), number).model_copy(
            update={"stage": each}
        )
        for number, each in ((1, "champion"), (2, stage))
    }
    return Model("rain", spec, 1, versions)


def better(stage: Any = "shadow", examples: int = 200, **parts: Any) -> ArmsCompared:
    """A comparison that says better, with what the gates ask for."""
    return a_comparison(2, 1, "better", stage=stage, examples=examples).model_copy(
        update={"answers_from": MEASURED, **parts}
    )


def group(name: str, examples: int, worsening: float, lower: float, upper: float) -> GroupWorsened:
    """A group of `humidity` that fares so much worse."""
    return GroupWorsened(
        attribute="humidity",
        group=name,
        examples=examples,
        champion=0.7,
        candidate=0.7 - worsening,
        worsening=worsening,
        interval=Bounds(lower=lower, upper=upper),
    )


def answers(version: int, p99_ms: float, *, timed: int = 900, failed: int = 0, spread: float = 0.1) -> AnswersMeasured:
    """How a version answered."""
    return AnswersMeasured(
        version=version,
        answered=1000 - failed,
        failed=failed,
        failed_interval=Bounds(**wilson_interval(failed, 1000)._asdict()),
        timed=timed,
        p50_ms=p99_ms / 2,
        p99_ms=p99_ms,
        p99_interval=Bounds(lower=p99_ms * (1 - spread), upper=p99_ms * (1 + spread)),
    )


def taken_in(events: int = 500, invalid: float = 0.0, missing: float = 0.0) -> InputMeasured:
    """What came in during the trial."""
    rates = {"invalid_rates": {"pressure": invalid}, "missing_rates": {"pressure": missing}}
    return InputMeasured(events=events, windows=1, derived_from=SUMMARISED, **rates)


FAIRNESS = {"fairness": {"metric": "true_positive_rate", "margin": 0.05, "min_group_examples": 100}}
FAIR = (group("a", 500, 0.01, -0.03, 0.05), group("b", 400, 0.04, -0.02, 0.09))
LATENCY = {"latency": {"max_p99_ms": 50, "max_ratio": 2, "min_calls": 500}}
QUALITY = {"data_quality": {"max_invalid_rate": 0.05, "max_missing_rate": 0.2, "min_events": 200}}
ERRORS = {"errors": {"max_error_rate": 0.01, "min_rows": 500}}

STATES: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (FAIRNESS, {}, "waiting", "no example of a protected group has been compared yet"),
    (FAIRNESS, {"groups": FAIR}, "passed", "the metric of humidity=b is 0.66 and the champion's 0.7, worse by +0.040"),
    (FAIRNESS, {"groups": (*FAIR, group("c", 400, 0.2, 0.06, 0.3))}, "failed", "humidity=c is 0.5 and the"),
    (FAIRNESS, {"groups": (group("a", 500, -0.1, -0.2, 0.0),)}, "passed", "worse by -0.100 (-0.200 to +0.000) over"),
    (FAIRNESS, {"groups": (*FAIR, group("c", 400, 0.2, 0.04, 0.3))}, "waiting", "chance may explain it so far"),
    (FAIRNESS, {"groups": (*FAIR, group("c", 99, 0.0, -0.4, 0.4))}, "waiting", "humidity=c has 99 of the 100 examples"),
    (FAIRNESS, {"groups": (*FAIR, group("c", 20, 0.3, -0.4, 0.9))}, "passed", "too rare to be judged: humidity=c"),
    (LATENCY, {}, "waiting", "0 of the 500 calls that it is judged on have been timed"),
    (LATENCY, {"answers": (answers(2, 20),)}, "waiting", "0 of the champion's 500 calls to compare with"),
    (LATENCY, {"answers": (answers(1, 20), answers(2, 20, timed=499))}, "waiting", "499 of the 500 calls"),
    (
        LATENCY,
        {"answers": (answers(1, 20), answers(2, 30))},
        "passed",
        "1.50 times as long, and the spec allows 2 times",
    ),
    (LATENCY, {"answers": (answers(1, 50), answers(2, 80))}, "failed", "80 ms (72 to 88) over 900 calls, and the spec"),
    (
        LATENCY,
        {"answers": (answers(1, 5), answers(2, 20))},
        "failed",
        "4.00 times as long, and the spec allows 2 times",
    ),
    (LATENCY, {"answers": (answers(1, 50), answers(2, 53))}, "waiting", "chance may explain it so far"),
    (QUALITY, {}, "waiting", "no window in which it answered has been summarised yet"),
    (QUALITY, {"input": taken_in(100)}, "waiting", "100 of the 200 events that it is judged on have come in"),
    (QUALITY, {"input": taken_in()}, "passed", "over 500 events"),
    (QUALITY, {"input": taken_in(invalid=0.06)}, "failed", "6.00% of pressure are invalid; the spec allows 5.00%"),
    (QUALITY, {"input": taken_in(missing=0.3)}, "failed", "30.00% of pressure are missing; the spec allows 20.00%"),
    (ERRORS, {}, "waiting", "it was asked 0 of the 500 rows that it is judged on"),
    (ERRORS, {"answers": (answers(2, 1, failed=2),)}, "passed", "it failed on 2 of 1,000 rows, 0.20%"),
    (ERRORS, {"answers": (answers(2, 1, failed=40),)}, "failed", "it failed on 40 of 1,000 rows, 4.00%, and the spec"),
    (ERRORS, {"answers": (answers(2, 1, failed=12),)}, "waiting", "chance may explain it so far"),
]


@pytest.mark.parametrize(("gates", "evidence", "state", "said"), STATES)
def test_a_gate_passes_fails_or_waits_and_says_why(
    gates: dict[str, Any], evidence: dict[str, Any], state: str, said: str
) -> None:
    """A candidate would pass a gate without evidence, be held up by chance, or nobody could say which gate it was."""
    model = on_trial(gated(**gates))
    (found,) = judged(model, better(**evidence))
    assert found.state == state
    assert said in found.reason
    decision = compare(model, better(**evidence))
    assert decision.model.stage(2) == ("canary" if state == "passed" else "shadow")


def test_every_gate_names_itself_in_the_history_with_its_log_ranges() -> None:
    """An auditor could not tell which gate held a version back, nor from which records that was found."""
    model = on_trial(gated(**LATENCY, **QUALITY, **ERRORS))
    compared = better(answers=(answers(1, 50), answers(2, 90)), input=taken_in())
    outcome = announce(compare(model, compared), Link(), NOON)
    entries = [event for event in outcome.events if isinstance(event, AuditRecorded)]
    assert [(each.action, each.subject) for each in entries] == [
        ("gate-passed", "version 2"),
        ("gate-failed", "version 2"),
        ("gate-passed", "version 2"),
    ]
    assert entries[1].reason.startswith(
        "the latency gate failed: its 99th percentile is 90 ms (81 to 99) over 900 calls"
    )
    assert [each.evidence[0].derived_from for each in entries] == [SUMMARISED, MEASURED, MEASURED]
    (version,) = [event for event in outcome.events if isinstance(event, VersionChanged)]
    assert (version.stage, {gate.gate: gate.state for gate in version.gates}) == (
        "shadow",
        {"data-quality": "passed", "latency": "failed", "errors": "passed"},
    )
    again = compare(outcome.model, compared.model_copy(update={"evaluation_id": "later"}))
    assert again.model == outcome.model
    assert "but the latency gate failed: " in again.reason


def test_a_gate_that_opens_lets_the_candidate_through() -> None:
    """One bad minute would hold a good version back for ever."""
    model = on_trial(gated(**QUALITY))
    held = announce(compare(model, better(input=taken_in(invalid=0.5))), Link(), NOON).model
    assert held.stage(2) == "shadow"
    opened = compare(held, better(examples=300, input=taken_in(5_000, invalid=0.01)))
    assert opened.model.stage(2) == "canary"
    assert [(passage.gate.state, passage.was) for passage in opened.passages] == [("passed", "failed")]
    assert [each.derived_from for each in opened.evidence[1:]] == [SUMMARISED]
    assert opened.model.versions[2].gates == ()
    promoted = compare(opened.model, better("canary", input=taken_in()))
    assert promoted.model.champion == 2


@pytest.mark.parametrize(
    ("stage", "continual", "fate"),
    [
        ("shadow", False, "rejected"),
        ("canary", False, "rejected"),
        ("shadow", True, "shadow"),
        ("canary", True, "shadow"),
    ],
)
def test_a_candidate_that_never_passes_makes_room(stage: Stage, continual: bool, fate: Stage) -> None:
    """A version that is better and too slow would keep its arm, and every later candidate, waiting for ever."""
    decision = compare(
        on_trial(gated(**LATENCY), stage, continual=continual),
        better(stage, examples=1000, answers=(answers(1, 50), answers(2, 90))),
    )
    assert decision.model.stage(2) == fate
    assert all("but the latency gate failed: its 99th percentile" in move.why for move in decision.moves)


def test_gates_hold_back_no_return_and_no_person() -> None:
    """The version before could not come back, or a person could not overrule a gate."""
    spec = gated(**LATENCY)
    model = on_trial(spec)
    stands_by = Model("rain", spec, 1, model.versions, predecessors=(2,), standby=2)
    returned = compare(stands_by, better())
    assert returned.model.champion == 2
    assert obey(model, a_command(PromoteVersion(version=2)), NOON).model.champion == 2


def test_gates_that_the_spec_drops_are_forgotten() -> None:
    """A version would be shown at a gate that nobody asks for any more."""
    model = on_trial(gated(**LATENCY))
    held = announce(compare(model, better(answers=(answers(1, 50), answers(2, 90)))), Link(), NOON).model
    dropped = Model("rain", gated(), 1, held.versions)
    decision: Decision = compare(dropped, a_comparison(2, 1, "undecided"))
    (version,) = [event for event in announce(decision, Link(), NOON).events if isinstance(event, VersionChanged)]
    assert version.gates == ()
