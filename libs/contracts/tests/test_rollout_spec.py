"""What a spec asks of a rollout: gates and rollbacks that fit the model, or one sentence that says why they do not."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace_contracts import parse_spec
from tailrace_contracts.durations import bucket_of, longer_than, quantile_ms
from tailrace_contracts.spec import Gates, ModelSpec, SpecError

CLASSES = {"name": "left"}
NUMBER = {"name": "watts", "limits": {"min": 0, "max": 100}}


def spec(rollout: dict[str, Any], **parts: Any) -> ModelSpec:
    """A small spec with this rollout."""
    document = {
        "model": "churn",
        "owner": "growth",
        "features": [{"name": "region", "type": "categorical", "categories": ["north", "south"]}],
        "label": CLASSES,
        "rollout": rollout,
    }
    return parse_spec(document | parts)


def test_a_spec_of_before_the_gates_has_none() -> None:
    """An upgrade would hold back every candidate of every model."""
    old = spec({})
    assert old.rollout.gates == Gates()


def test_every_alert_on_a_new_champion_returns_the_version_before_unless_the_spec_says_otherwise() -> None:
    """A bad champion would stay unless somebody had asked; or a spec as it is stored could not be read again."""
    silent, none, some = spec({}), spec({"rollback_on": []}), spec({"rollback_on": ["performance"]})
    assert ModelSpec.model_validate_json(silent.model_dump_json()) == silent
    for kind, asked in (("performance", True), ("errors", False), ("latency", False), ("fairness", False)):
        assert silent.rollout.returns_on(kind)
        assert not none.rollout.returns_on(kind)
        assert some.rollout.returns_on(kind) == asked
    assert not silent.rollout.returns_on("feature-drift")


@pytest.mark.parametrize(
    ("rollout", "parts", "words"),
    [
        ({"gates": {"fairness": {}}}, {}, "rollout asks for fairness, and nothing is protected"),
        ({"rollback_on": ["fairness"]}, {}, "rollout asks for fairness, and nothing is protected"),
        ({"rollback_on": ["latency"]}, {}, "monitors.serving.max_p99_ms does not say what is too slow"),
        (
            {"rollback_on": ["errors"]},
            {"monitors": {"serving": {"max_error_rate": None}}},
            "monitors.serving.max_error_rate does not say how many are too many",
        ),
        ({"gates": {"latency": {}}}, {}, "the latency gate needs max_p99_ms, max_ratio, or both"),
        ({"gates": {"latency": {"p99_ms": 5}}}, {}, "rollout.gates.latency.p99_ms: unknown field"),
        ({"gates": {"speed": {}}}, {}, "rollout.gates.speed: unknown field"),
        (
            {"gates": {"fairness": {"metric": "mae"}}},
            {"protected": ["region"]},
            "a binary model has no mae; name true_positive_rate",
        ),
        (
            {"gates": {"fairness": {"metric": "accuracy"}}},
            {"protected": ["region"], "task": "regression", "label": NUMBER},
            "a regression model has no accuracy; name mae",
        ),
        ({"rollback_on": ["drift"]}, {}, "rollout.rollback_on.0"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(rollout: dict[str, Any], parts: dict[str, Any], words: str) -> None:
    """A gate would stand in a spec and never be judged, or an alert be waited for that never comes."""
    with pytest.raises(SpecError) as refused:
        spec(rollout, **parts)
    assert words in str(refused.value)


def test_groups_are_compared_by_what_fits_the_task() -> None:
    """Every regression with a fairness gate would have to name the only metric that there is."""
    binary = spec({"gates": {"fairness": {}}}, protected=["region"])
    regression = spec({"gates": {"fairness": {}}}, protected=["region"], task="regression", label=NUMBER)
    assert (binary.fairness_gate[1], regression.fairness_gate[1]) == ("true_positive_rate", "mae")


def test_call_times_keep_within_their_buckets() -> None:
    """A limit in milliseconds would be judged against other times than those that were measured."""
    for microseconds in (0.2, 1, 3, 77, 1_000, 250_000, 3_600_000_000):
        bucket = bucket_of(microseconds / 1e6)
        assert bucket >= 0
        read = quantile_ms({bucket: 1}, 0.5)
        assert read is not None
        if microseconds > 1:
            assert read == pytest.approx(microseconds / 1000, rel=0.026)
    assert longer_than({bucket_of(0.05): 3, bucket_of(0.06): 2, bucket_of(0.01): 1}, 50) == 2
