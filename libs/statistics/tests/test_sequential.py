"""The anytime-valid comparison of two arms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_statistics import PairedComparison
from tailrace_statistics.sequential import STAKES, _log_capital

DISAGREEMENT = 0.15


def differences(
    random: np.random.Generator, examples: int, mean: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Differences of 0/1 losses of two models that disagree on 15 % of the examples."""
    better, worse = (DISAGREEMENT + mean) / 2, (DISAGREEMENT - mean) / 2
    return random.choice([1.0, -1.0, 0.0], p=[better, worse, 1 - better - worse], size=examples)


def first_verdict(random: np.random.Generator, mean: float, examples: int, step: int) -> tuple[str, int]:
    """The first verdict that is given when looking after every `step` examples."""
    comparison = PairedComparison(0.05)
    for batch in np.split(differences(random, examples, mean), examples // step):
        comparison.update(batch)
        result = comparison.result()
        if result.verdict != "undecided":
            return result.verdict, result.examples
    return "undecided", examples


def test_an_equal_candidate_is_seldom_ever_better() -> None:
    """Looking again and again would sooner or later promote a model that is no better."""
    random = np.random.default_rng(5)
    verdicts = [first_verdict(random, 0.0, 2_000, 20)[0] for _ in range(300)]
    # 5 % of 300 are 15; binomial, 26 or more come by chance once in 200.
    assert verdicts.count("better") <= 25
    assert verdicts.count("worse") <= 25


def test_a_better_candidate_is_found() -> None:
    """A candidate five points better would wait in shadow for ever."""
    random = np.random.default_rng(6)
    found = [first_verdict(random, 0.05, 3_000, 20) for _ in range(60)]
    assert [verdict for verdict, _ in found].count("better") >= 57
    assert np.median([examples for _, examples in found]) < 600


def test_a_worse_candidate_is_found() -> None:
    """A candidate five points worse would keep its place among the shadows."""
    random = np.random.default_rng(7)
    assert [first_verdict(random, -0.05, 3_000, 20)[0] for _ in range(40)].count("worse") >= 38


def test_the_interval_holds_the_mean_at_all_times() -> None:
    """The console would show an interval that the truth has left."""
    random = np.random.default_rng(8)
    left = 0
    for _ in range(60):
        comparison = PairedComparison(0.05)
        outside = False
        for batch in np.split(differences(random, 1_000, 0.03), 20):
            comparison.update(batch)
            result = comparison.result()
            outside = outside or not result.lower <= 0.03 <= result.upper
        left += outside
    assert left <= 12  # at most 10 % of 60 on average, one in twenty for each end; more than 12 once in 100


def test_the_interval_narrows() -> None:
    """However long a comparison runs, its interval would stay as wide as at first."""
    comparison = PairedComparison()
    widths = []
    for examples in (100, 1_000, 10_000, 100_000):
        comparison.update([1.0, *[0.0] * 8, -1.0] * (examples // 10))
        result = comparison.result()
        assert result.lower < result.mean < result.upper
        widths.append(result.upper - result.lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.01


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1), max_size=60),
    cut=st.integers(0, 60),
    error_rate=st.sampled_from([0.01, 0.05, 0.5]),
)
def test_batches_and_restarts_leave_no_trace(values: list[float], cut: int, error_rate: float) -> None:
    """A verdict would depend on how the examples were batched, or on when the service was restarted."""
    whole = PairedComparison(error_rate)
    for value in values:
        whole.update([value])
    first = PairedComparison(error_rate)
    first.update(values[:cut])
    second = PairedComparison.load(json.loads(json.dumps(first.dump())))
    second.update(values[cut:])
    one, other = whole.result(), second.result()
    assert (one.examples, one.verdict) == (other.examples, other.verdict)
    assert one[1:4] == pytest.approx(other[1:4], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=100))
def test_verdict_and_interval_agree_and_mirror(values: list[float]) -> None:
    """A candidate would be called better while the interval still holds zero, or depend on which arm is named first."""
    comparison, mirror = PairedComparison(), PairedComparison()
    comparison.update(values)
    mirror.update([-value for value in values])
    result, opposite = comparison.result(), mirror.result()
    assert -1 <= result.lower <= result.mean <= result.upper <= 1
    assert (result.lower, result.upper) == pytest.approx((-opposite.upper, -opposite.lower))
    assert (result.verdict == "better") == (opposite.verdict == "worse")
    if result.verdict == "better":
        assert result.lower > -1e-6
    if result.lower > 1e-6:
        assert result.verdict == "better"


def test_losses_between_zero_and_one_are_judged_too() -> None:
    """A comparison by squared error would give no verdict, or too many."""
    random = np.random.default_rng(9)
    comparison = PairedComparison()
    comparison.update(random.normal(0.1, 0.2, size=1_000).clip(-1, 1))
    assert comparison.result().verdict == "better"
    equal = PairedComparison()
    equal.update(random.normal(0, 0.2, size=1_000).clip(-1, 1))
    assert equal.result().verdict == "undecided"


def test_before_the_first_example_nothing_is_known() -> None:
    """A comparison without examples would divide by zero."""
    assert PairedComparison().result() == (0, 0.0, -1.0, 1.0, "undecided")


@pytest.mark.parametrize("value", [1.5, -2.0, float("nan"), float("inf")])
def test_a_difference_that_cannot_be_is_refused(value: float) -> None:
    """One broken loss would decide every later comparison."""
    with pytest.raises(ValueError, match=r"outside \[-1, 1\]"):
        PairedComparison().update([value])


@pytest.mark.parametrize("error_rate", [0.0, 1.0, -0.1])
def test_an_error_rate_that_cannot_be_is_refused(error_rate: float) -> None:
    """A rollout at error rate 0 would wait for ever and nobody would know why."""
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        PairedComparison(error_rate)


def fractions(
    random: np.random.Generator, examples: int, mean: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Differences of two regressions' bounded losses: small, with this mean."""
    return np.asarray(random.normal(mean, 0.05, size=examples).clip(-1, 1))


def test_equal_regressions_are_seldom_ever_told_apart() -> None:
    """Looking again and again would sooner or later promote a regression that is no better."""
    random = np.random.default_rng(8)
    verdicts = []
    for _ in range(200):
        comparison = PairedComparison(0.05)
        for batch in np.split(fractions(random, 1_000, 0.0), 50):
            comparison.update(batch)
            if comparison.result().verdict != "undecided":
                break
        verdicts.append(comparison.result().verdict)
    # 5 % of 200 are 10; binomial, 19 or more come by chance once in 200.
    assert verdicts.count("better") <= 18
    assert verdicts.count("worse") <= 18


def test_a_regression_that_is_a_little_better_is_found() -> None:
    """Small losses would be taken for as uncertain as large ones, and a candidate wait in shadow for ever."""
    random = np.random.default_rng(9)
    comparison = PairedComparison(0.05)
    comparison.update(fractions(random, 1_000, 0.015))
    result = comparison.result()
    assert (result.verdict, 0 < result.lower < 0.015 < result.upper < 0.06) == ("better", True)
    assert PairedComparison.load(json.loads(json.dumps(comparison.dump()))).result() == result


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(-0.99, 0.99))
@settings(deadline=None)
def test_the_capital_is_never_overstated(differences: list[float], m: float) -> None:
    """The promise that an equal candidate is seldom promoted would not hold for fractions."""
    comparison = PairedComparison(0.05)
    comparison.update(differences)
    truth = [
        math.log(share) + sum(math.log1p(stake * (each - m)) for each in differences)
        for stake, share in STAKES.items()
        if stake * (1 + m) < 1
    ]
    exact = max(truth) + math.log(sum(math.exp(each - max(truth)) for each in truth))
    assert _log_capital(m, comparison._sums()) <= exact + 1e-9


def test_a_state_of_before_the_squares_is_read() -> None:
    """An upgrade would forget every comparison that is under way."""
    old = {"error_rate": 0.05, "examples": 100, "won": 12.0, "lost": 3.0}
    comparison = PairedComparison(0.05)
    comparison.update([1.0] * 12 + [-1.0] * 3 + [0.0] * 85)
    assert PairedComparison.load(old).result() == comparison.result()
