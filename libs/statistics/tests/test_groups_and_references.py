"""Protected groups, intervals, references."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.events import NumericalSummary
from tailrace_contracts.spec import FairnessMonitor
from tailrace_statistics import (
    Counted,
    GroupCounts,
    Reference,
    ReferenceInvalid,
    compare_groups,
    count_groups,
    group_rates,
    koopman_interval,
    merge_groups,
    newcombe_interval,
    ratio_score,
    selection_gap,
    wilson_interval,
)
from tailrace_statistics.labels import column_of_classes

example = st.tuples(st.sampled_from(["f", "m", "x", None]), st.sampled_from([0, 1]), st.sampled_from([0, 1]))


def spec() -> ModelSpec:
    """One number, one word, classes 3 and 5."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "weather",
            "features": [
                {"name": "wind", "type": "numerical", "on_missing": "flag"},
                {"name": "sky", "type": "categorical", "categories": ["blue", "grey"]},
            ],
            "label": {"name": "rain", "classes": [3, 5], "positive": 5},
        }
    )


def columns(examples: list[tuple[str | None, int, int]]) -> Any:
    """Groups, predictions and labels as parallel columns."""
    return zip(*examples, strict=True) if examples else ([], [], [])


@settings(max_examples=50, deadline=None)
@given(examples=st.lists(example, max_size=60), cut=st.integers(0, 60))
def test_group_counts_are_those_of_a_plain_loop(examples: list[tuple[str | None, int, int]], cut: int) -> None:
    """Fairness would be judged on wrong counts, or counts would depend on the batches."""
    counts = merge_groups(count_groups(*columns(examples[:cut])), count_groups(*columns(examples[cut:])))
    for group in ("f", "m", "x"):
        pairs = [(prediction, label) for name, prediction, label in examples if name == group]
        expected = GroupCounts(
            tp=pairs.count((1, 1)), fp=pairs.count((1, 0)), tn=pairs.count((0, 0)), fn=pairs.count((0, 1))
        )
        assert counts.get(group, GroupCounts()) == expected
        assert expected.examples == len(pairs)
    assert "None" not in counts


def test_rates_are_the_textbooks() -> None:
    """The console would show swapped rates."""
    (rates,) = group_rates("SEX", {"1": GroupCounts(tp=30, fp=10, tn=40, fn=20)})
    assert (rates.attribute, rates.group, rates.examples) == ("SEX", "1", 100)
    assert rates.selection_rate == pytest.approx(0.4)
    assert rates.true_positive_rate == pytest.approx(0.6)
    assert rates.false_positive_rate == pytest.approx(0.2)
    assert rates.accuracy == pytest.approx(0.7)


def test_a_rate_without_examples_is_unknown() -> None:
    """A group without positives would show a true positive rate of 0."""
    (rates,) = group_rates("SEX", {"1": GroupCounts(tn=5)})
    assert rates.true_positive_rate is None
    assert rates.false_positive_rate == 0


def test_the_positive_class_need_not_be_one() -> None:
    """Models with other classes would have every selection counted as none."""
    assert count_groups(["f", "f"], [5, 3], [5, 5], positive=5) == {"f": GroupCounts(tp=1, fn=1)}


def test_the_gap_leaves_out_small_groups() -> None:
    """One person in a group of their own would raise the fairness alarm."""
    rates = group_rates(
        "RACE", {"a": GroupCounts(tp=60, tn=40), "b": GroupCounts(tp=45, tn=55), "c": GroupCounts(tn=1)}
    )
    assert selection_gap(rates, 50) == pytest.approx(0.15)
    assert selection_gap(rates) == pytest.approx(0.6)
    assert selection_gap(rates[:1]) == 0


@pytest.mark.parametrize(("successes", "examples"), [(0, 10), (10, 10), (75, 100), (1, 3), (822, 1_000)])
def test_wilsons_interval_is_scipys(successes: int, examples: int) -> None:
    """Accuracies would be shown with wrong intervals."""
    truth = stats.binomtest(successes, examples).proportion_ci(method="wilson")
    assert tuple(wilson_interval(successes, examples)) == pytest.approx((truth.low, truth.high))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_reference_says_what_the_rows_were() -> None:
    """Drift would be measured against something else than the training set."""
    rows = [{"wind": float(number), "sky": "blue" if number % 4 else "grey"} for number in range(2_000)]
    reference = Reference.build(spec(), rows, labels=[5, 3, 3, 3] * 500)
    assert reference.examples == 2_000
    assert reference.label_rate == pytest.approx(0.25)
    wind, sky = reference.columns["wind"], reference.columns["sky"]
    assert isinstance(wind, NumericalSummary)
    assert wind.mean == pytest.approx(np.arange(2_000).mean())
    assert sky.model_dump()["counts"] == {"blue": 1_500, "grey": 500}
    assert len(reference.sample) == 500
    assert [row["wind"] for row in reference.sample[:3]] == [0.0, 4.0, 8.0]


def test_a_reference_comes_back_from_its_bytes() -> None:
    """Monitoring could not read what training wrote."""
    reference = Reference.build(spec(), [{"wind": 1e300, "sky": "blue"}, {"wind": None, "sky": "?"}])
    assert Reference.from_bytes(reference.to_bytes()) == reference
    assert reference.label_rate is None


def test_a_reference_says_what_was_answered() -> None:
    """Drift of a version's own answers could not be measured against its training."""
    reference = Reference.from_bytes(
        Reference.build(spec(), [], evaluated=[0.2, 0.4, 0.9, 0.5]).to_bytes(),
    )
    assert reference.answers["prediction"].model_dump()["counts"] == {"3": 3, "5": 1}
    assert reference.answers["probability"].count == 4
    assert reference.answer_columns()["prediction"] == ["3", "3", "5", "3"]
    assert np.asarray(reference.answer_columns()["probability"]).tolist() == pytest.approx([0.2, 0.4, 0.9, 0.5])
    assert Reference.build(spec(), []).answers == {}


def test_a_reference_says_what_the_labels_were() -> None:
    """Label drift would be measured against something else than the training set."""
    reference = Reference.build(spec(), [{}] * 4, labels=[5, 3, 3, 3])
    assert reference.label_column == column_of_classes(1, 4)
    assert sorted(map(str, reference.label_values())) == ["0", "0", "0", "1"]
    assert Reference.build(spec(), []).label_column is None


def test_a_reference_of_tomorrow_is_readable() -> None:
    """A monitoring that is upgraded last would lose all references."""
    reference = Reference.build(spec(), [])
    document = json.loads(reference.to_bytes()) | {"later": 1}
    assert Reference.from_bytes(json.dumps(document).encode()) == reference


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"model": 3}'])
def test_damaged_references_are_refused_in_one_sentence(data: bytes) -> None:
    """A broken artefact would end in a page of validation errors."""
    with pytest.raises(ReferenceInvalid, match=r"^reference of \d+ bytes: .*train the version again$"):
        Reference.from_bytes(data)


# ---------------------------------------------------------------- differences and ratios

NEWCOMBE = {  # as statsmodels 0.14 gives them: confint_proportions_2indep(..., compare="diff", method="newcomb")
    ((36, 40), (16, 80), 0.95): (0.53529546, 0.79473902),
    ((36, 40), (16, 80), 0.999): (0.39465278, 0.83196208),
    ((430, 1000), (380, 1200), 0.95): (0.07279189, 0.15351939),
    ((7, 20), (9, 25), 0.95): (-0.26777722, 0.25826329),
    ((3, 30), (60, 61), 0.999): (-0.96632368, -0.54890307),
    ((5, 56), (0, 29), 0.95): (-0.03813715, 0.19256001),
    ((10, 10), (0, 10), 0.95): (0.60750935, 1.0),
    ((0, 10), (0, 20), 0.95): (-0.16112516, 0.2775328),
}
KOOPMAN = {  # and compare="ratio", method="score", correction=False
    ((36, 40), (16, 80), 0.95): (2.93956919, 7.15222343),
    ((36, 40), (16, 80), 0.999): (2.25899658, 9.80393634),
    ((430, 1000), (380, 1200), 0.95): (1.21713036, 1.51525561),
    ((7, 20), (9, 25), 0.999): (0.26089055, 3.40938262),
    ((3, 30), (60, 61), 0.95): (0.0351626, 0.26066841),
}


@pytest.mark.parametrize(("case", "expected"), NEWCOMBE.items())
def test_newcombes_interval_is_statsmodels(case: Any, expected: tuple[float, float]) -> None:
    """Differences between groups would be called real, or chance, wrongly."""
    one, other, confidence = case
    assert newcombe_interval(Counted(*one), Counted(*other), confidence) == pytest.approx(expected, abs=1e-7)
    lower, upper = newcombe_interval(Counted(*other), Counted(*one), confidence)
    assert (-upper, -lower) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("case", "expected"), KOOPMAN.items())
def test_koopmans_interval_is_statsmodels(case: Any, expected: tuple[float, float]) -> None:
    """Ratios between groups would be called real, or chance, wrongly."""
    one, other, confidence = case
    assert koopman_interval(Counted(*one), Counted(*other), confidence) == pytest.approx(expected, rel=1e-6)
    lower, upper = koopman_interval(Counted(*other), Counted(*one), confidence)
    assert (1 / upper, 1 / lower) == pytest.approx(expected, rel=1e-6)


def test_a_ratio_of_nothing_to_something_has_an_honest_interval() -> None:
    """A group of which nobody was selected would raise a division by zero, or an alert on ten people."""
    assert koopman_interval(Counted(0, 10), Counted(0, 20)) == (0.0, math.inf)
    assert koopman_interval(Counted(0, 0), Counted(5, 20)) == (0.0, math.inf)
    lower, upper = koopman_interval(Counted(0, 10), Counted(5, 20))
    assert lower == 0.0
    assert 1.0 < upper < 2.0
    lower, upper = koopman_interval(Counted(5, 20), Counted(0, 10))
    assert 0.5 < lower < 1.0
    assert upper == math.inf
    assert newcombe_interval(Counted(0, 0), Counted(5, 20)) == (-1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200),
    m=st.integers(1, 200),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ratio=st.floats(0.05, 20),
)
def test_a_ratio_is_in_its_interval_where_its_score_does_not_reject_it(
    n: int, m: int, shares: tuple[float, float], ratio: float
) -> None:
    """The limit of the spec would be judged by one rule and the interval shown by another."""
    one, other = Counted(round(shares[0] * n), n), Counted(round(shares[1] * m), m)
    lower, upper = koopman_interval(one, other)
    if not (one.part or other.part) or min(abs(ratio - end) for end in (lower, upper)) < 1e-6 * ratio:
        return
    assert (lower < ratio < upper) == (ratio_score(one, other, ratio) <= 1.959963984540054**2)


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.5, 0.5, 60, 300), (0.1, 0.3, 100, 100), (0.02, 0.05, 400, 200)])
def test_intervals_cover_the_truth_as_often_as_they_say(p: float, q: float, n: int, m: int) -> None:
    """Intervals that are too narrow would raise alerts on noise; those too wide would hide unfairness."""
    draw, runs, differences, ratios = np.random.default_rng(3), 2_000, 0, 0
    for x, y in zip(draw.binomial(n, p, runs), draw.binomial(m, q, runs), strict=True):
        one, other = Counted(int(x), n), Counted(int(y), m)
        lower, upper = newcombe_interval(one, other, 0.9)
        differences += lower <= p - q <= upper
        ratios += ratio_score(one, other, p / q) <= 1.6448536269514722**2
    assert 0.88 <= differences / runs <= 0.93
    assert 0.88 <= ratios / runs <= 0.93


def limits(**changes: Any) -> FairnessMonitor:
    """A monitor of which small groups are judged."""
    return FairnessMonitor.model_validate({"min_group_examples": 10, **changes})


def test_groups_are_compared_with_the_largest_and_small_ones_are_left_out() -> None:
    """A person could not see how far a group lies from the others, or would see chance."""
    groups = {"race": {"a": GroupCounts(60, 0, 40, 0), "b": GroupCounts(9, 0, 21, 0), "c": GroupCounts(5, 0, 0, 0)}}
    selection, *_ = compare_groups(groups, limits(max_difference=0.5))
    assert (selection.attribute, selection.group, selection.reference) == ("race", "b", "a")
    assert selection.difference == pytest.approx(-0.3)
    assert selection.ratio == pytest.approx(0.5)
    assert selection.over == ()
    assert selection.confidence == pytest.approx(0.95)
    assert tuple(selection.difference_interval.model_dump().values()) == pytest.approx(
        newcombe_interval(Counted(9, 30), Counted(60, 100), 0.95)
    )


def test_the_two_that_break_a_limit_are_shown_though_neither_is_the_largest_group() -> None:
    """The worst treated pair would be missing from the page because a third group is larger."""
    groups = {
        "race": {
            "a": GroupCounts(fp=500, tn=500),
            "b": GroupCounts(fp=320, tn=80),
            "c": GroupCounts(fp=100, tn=400),
        }
    }
    broken = [each for each in compare_groups(groups, limits(max_difference=0.4)) if each.over]
    assert [(each.group, each.reference, each.over) for each in broken] == [("b", "c", ("difference",))]


def test_all_comparisons_together_raise_hardly_a_false_alarm() -> None:
    """A model with many groups would be called unfair every few days by chance alone."""
    draw, runs, alarms = np.random.default_rng(11), 300, 0
    monitor = limits(max_difference=None, min_ratio=0.999, error_rate=0.1)
    sizes = {"a": 4_000, "b": 1_500, "c": 800, "d": 300, "e": 150}
    for _ in range(runs):
        groups = {
            name: GroupCounts(fp=int(x := draw.binomial(size, 0.3)), tn=size - int(x)) for name, size in sizes.items()
        }
        alarms += any(each.over for each in compare_groups({"race": groups}, monitor))
    assert alarms / runs <= 0.1
