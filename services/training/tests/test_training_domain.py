"""The pure parts of training: which examples, which ranges, which run, how good."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_contracts.spec import BatchLearner, ModelSpec, OnlineLearner, parse_spec
from tailrace_training.domain.datasets import Example, Untrainable, check, distinct, held_out
from tailrace_training.domain.metrics import Prequential, PrequentialErrors, area_under_curve, errors, scores
from tailrace_training.domain.newest import Search, Sighting
from tailrace_training.domain.runs import continues, fingerprint, online_run_id

RAIN = parse_spec(
    {
        "model": "rain",
        "owner": "weather",
        "features": [
            {"type": "numerical", "name": "humidity"},
            {"type": "numerical", "name": "pressure", "limits": {"min": 0}},
        ],
        "label": {"name": "rained"},
        "learners": {"batch": {"min_examples": 4}, "online": {}},
    }
)
ONLINE = OnlineLearner()
BATCH = BatchLearner(min_examples=4, evaluation_share=0.25)


def changed(**parts: object) -> ModelSpec:
    """RAIN with other parts."""
    return parse_spec({**RAIN.model_dump(mode="json"), **parts})


def test_a_run_goes_on_when_limits_or_pace_change() -> None:
    """A looser limit or a quicker pace would throw away everything that the learner has learned."""
    run_id = online_run_id(RAIN, ONLINE, 3)
    looser = changed(
        features=[
            {"type": "numerical", "name": "humidity"},
            {"type": "numerical", "name": "pressure", "limits": {"min": -10}},
        ]
    )
    assert continues(run_id, looser, OnlineLearner(revision_seconds=9, min_examples=9, checkpoint_examples=9))


@pytest.mark.parametrize(
    "spec",
    [
        changed(features=[{"type": "numerical", "name": "humidity"}]),
        changed(features=[{"type": "numerical", "name": "pressure"}, {"type": "numerical", "name": "humidity"}]),
        changed(label={"name": "rained", "positive": 0}),
    ],
)
def test_a_run_ends_when_the_question_changes(spec: ModelSpec) -> None:
    """A learner of other features or classes would go on answering the old question."""
    assert not continues(online_run_id(RAIN, ONLINE, 3), spec, ONLINE)


def test_a_run_ends_when_the_learner_changes() -> None:
    """A new algorithm or seed in the spec would never take effect."""
    run_id = online_run_id(RAIN, ONLINE, 3)
    assert not continues(run_id, RAIN, OnlineLearner(seed=8))
    assert not continues(run_id, RAIN, OnlineLearner(algorithm="hoeffding-adaptive-tree"))


def test_a_run_is_named_alike_by_everybody() -> None:
    """After a crash the same run would be registered as a second version."""
    assert online_run_id(RAIN, ONLINE, 3) == f"rain-online-3-{fingerprint(RAIN, OnlineLearner())}"


def example(name: str, label: int, label_revision: int = 0) -> Example:
    """An example whose features do not matter."""
    return Example(name, label_revision, label, {"humidity": 1.0, "pressure": 1.0})


def test_the_newest_correction_of_an_example_is_trained_on_once() -> None:
    """A corrected label would be trained on beside the wrong one."""
    found = distinct([example("a", 0), example("b", 1), example("a", 1, 2), example("a", 0, 1), example("b", 1)])
    assert [(each.prediction_id, each.label) for each in found] == [("a", 1), ("b", 1)]


def test_too_few_examples_are_refused_with_one_sentence() -> None:
    """A version trained on a handful of examples would be offered."""
    with pytest.raises(Untrainable, match=r"holds 3 examples of model 'rain', expected at least 4"):
        check([example(str(i), i % 2) for i in range(3)], RAIN, BATCH, "labelled-examples[0]@0..2")


def test_a_single_class_is_refused_with_one_sentence() -> None:
    """A version that has only ever seen dry days would be offered."""
    with pytest.raises(Untrainable, match=r"only negative examples"):
        check([example(str(i), 0) for i in range(9)], RAIN, BATCH, "here")


def test_a_class_that_stands_only_in_the_evaluation_is_not_enough() -> None:
    """The network to be measured would be trained on one class."""
    with pytest.raises(Untrainable, match=r"only negative examples"):
        check([example(str(i), int(i == 7)) for i in range(8)], RAIN, BATCH, "here")


def test_some_examples_are_always_held_out() -> None:
    """A version of few examples would have no metrics."""
    assert held_out(4, BatchLearner(evaluation_share=0.01)) == 1
    assert held_out(2_000, BatchLearner(evaluation_share=0.1)) == 200


def test_metrics_of_known_answers() -> None:
    """The console would show wrong metrics for every version."""
    found = scores(np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False]))
    assert found["accuracy"] == 0.5
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.9) + 2 * math.log(0.4)) / 4)
    assert found["auc"] == 0.75


def test_metrics_of_one_class_have_no_auc() -> None:
    """A training would crash because the newest tenth of the days was dry."""
    assert "auc" not in scores(np.array([0.2, 0.3]), np.array([False, False]))


def test_auc_counts_ties_half() -> None:
    """A model that answers the same for all would look better or worse than chance."""
    assert area_under_curve(np.full(6, 0.5), np.array([True, False] * 3)) == 0.5


def test_prequential_metrics_survive_a_dump() -> None:
    """After a restart an online learner's accuracy would begin at zero again."""
    before = Prequential()
    for probability, positive in [(0.9, True), (0.2, True), (0.1, False)]:
        before.add(probability, positive)
    assert Prequential(**before.dump()).metrics() == before.metrics()
    assert before.metrics()["accuracy"] == pytest.approx(2 / 3)


def test_the_errors_of_a_regression_by_hand() -> None:
    """A version would be shown with errors that nobody can check."""
    found = errors(np.array([1.0, 4.0, 5.0]), np.array([1.0, 2.0, 6.0]))
    assert found == {"mae": 1.0, "rmse": pytest.approx((5 / 3) ** 0.5), "r2": pytest.approx(1 - 5 / 14)}
    assert set(errors(np.array([1.0, 2.0]), np.array([3.0, 3.0]))) == {"mae", "rmse"}
    huge = errors(np.array([1.7e308, 0.0]), np.array([-1.7e308, 1.0]))
    assert all(math.isfinite(each) for each in huge.values())


def test_prequential_errors_survive_a_dump() -> None:
    """After a restart an online regression's errors would begin at zero again."""
    before = PrequentialErrors()
    for prediction, label in [(1.0, 1.0), (4.0, 2.0), (5.0, 6.0)]:
        before.add(prediction, label)
    again = PrequentialErrors(**json.loads(json.dumps(before.dump())))
    assert again.metrics() == before.metrics()
    assert before.metrics()["mae"] == 1.0


A, B = Log("labelled-examples", 0), Log("labelled-examples", 1)


def searched(logs: dict[Log, list[tuple[int, str]]], wanted: int, stretch: int = 3) -> tuple[LogRanges, int]:
    """The ranges found in logs of (time, prediction id or "" for another model), and how many offsets were read."""
    search = Search(wanted, dict.fromkeys(logs, 0), {log: len(records) for log, records in logs.items()}, stretch)
    read = 0
    while stretches := search.next_ranges():
        for each in stretches:
            records = [(time, offset, name) for offset, (time, name) in enumerate(logs[each.log]) if offset in each]
            read += len(records)
            found = [Sighting(time, offset, name) for time, offset, name in records if name]
            search.saw(each, min(time for time, _, _ in records), found)
    return search.ranges(), read


def test_the_newest_examples_are_found_from_the_end() -> None:
    """`tailrace train` would read the oldest examples, or all of them."""
    ranges, read = searched({A: [(i, f"p{i}") for i in range(100)]}, wanted=10)
    assert ranges == LogRanges.of(LogRange(topic=A.topic, partition=0, from_offset=90, through_offset=99))
    assert read <= 15


def test_the_newest_examples_of_all_partitions_are_taken_by_time() -> None:
    """Training would miss the partition that holds the newest examples."""
    ranges, _ = searched({A: [(i, f"a{i}") for i in range(10)], B: [(i + 5, f"b{i}") for i in range(10)]}, wanted=7)
    assert [str(each) for each in ranges] == ["labelled-examples[0]@9..9", "labelled-examples[1]@4..9"]


def test_a_partition_without_the_model_is_not_read_to_its_beginning() -> None:
    """A training of a small model would first read everything that other models ever saw."""
    ranges, read = searched({A: [(i, f"p{i}") for i in range(1000)], B: [(i, "") for i in range(1000)]}, wanted=10)
    assert [str(each) for each in ranges] == ["labelled-examples[0]@990..999"]
    assert read < 60


def test_a_correction_counts_as_its_prediction() -> None:
    """Corrections would crowd out examples, and a training would see fewer than it asked for."""
    log = [(i, f"p{i}") for i in range(10)] + [(10, "p8"), (11, "p9")]
    ranges, _ = searched({A: log}, wanted=4)
    assert [str(each) for each in ranges] == ["labelled-examples[0]@6..11"]
