"""Errors by group: intervals from sums alone, and limits that chance does not break."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
from scipy import stats

from tailrace_contracts.spec import FairnessMonitor
from tailrace_statistics.error_gaps import compare_errors, error_rates, sample_of
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.intervals import (
    Sample,
    mean_interval,
    mean_ratio_interval,
    student_value,
    welch_interval,
)


def sums_of(errors: np.ndarray) -> ErrorSums:
    """As a cohort counts them."""
    return reduce(ErrorSums.plus, (ErrorSums.of(float(error), 0.0) for error in errors), ErrorSums())


@pytest.mark.parametrize("degrees", [5, 10, 30, 1_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_students_value_is_scipys(confidence: float, degrees: int) -> None:
    """Intervals of small groups would be too narrow."""
    assert student_value(confidence, degrees) == pytest.approx(stats.t.ppf(0.5 + confidence / 2, degrees), rel=0.01)


def test_intervals_from_sums_are_scipys_on_the_errors_themselves() -> None:
    """A group's error would be shown with a wrong interval, since nobody keeps the single errors."""
    draw = np.random.default_rng(5)
    one, other = draw.normal(0.5, 2, 60), draw.normal(-0.3, 5, 200)
    for rate, (a, b) in {"mae": (abs(one), abs(other)), "bias": (one, other)}.items():
        first, second = (sample_of(sums_of(each), rate) for each in (one, other))  # type: ignore[arg-type]  # a literal
        truth = stats.ttest_1samp(a, 0).confidence_interval(0.95)
        assert tuple(mean_interval(first)) == pytest.approx((truth.low, truth.high), rel=1e-6)
        truth = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.99)
        assert tuple(welch_interval(first, second, 0.99)) == pytest.approx((truth.low, truth.high), rel=1e-6)


def test_one_error_has_no_interval_and_equal_ones_have_no_width() -> None:
    """A group of one would raise a division by zero, or look exactly known."""
    assert mean_interval(Sample(1, 3.0, 0.0)) == (-math.inf, math.inf)
    assert welch_interval(Sample(1, 3.0, 0.0), Sample(9, 1.0, 1.0)) == (-math.inf, math.inf)
    assert welch_interval(Sample(9, 3.0, 0.0), Sample(9, 1.0, 0.0)) == (2.0, 2.0)
    assert mean_ratio_interval(Sample(9, 0.0, 0.0), Sample(9, 1.0, 0.0)) == (0.0, math.inf)
    (rates,) = error_rates({"quay": {"north": ErrorSums.of(3, 1)}}, 10)
    assert (rates.metrics["mae"], rates.mae_interval, rates.judged) == (2.0, None, False)


def test_ratios_of_mean_errors_cover_the_truth() -> None:
    """A group would be said to have twice the error of another one where chance explains it."""
    draw, hits, runs = np.random.default_rng(9), 0, 1_000
    for _ in range(runs):
        one = sample_of(sums_of(draw.exponential(2, 150)), "mae")
        other = sample_of(sums_of(draw.exponential(1, 400)), "mae")
        low, high = mean_ratio_interval(one, other, 0.9)
        hits += low <= 2 <= high
    assert 0.87 <= hits / runs <= 0.93


def test_groups_are_compared_and_limits_are_broken_only_beyond_chance() -> None:
    """A model that overrates one group would pass, or every small cohort would alert."""
    draw = np.random.default_rng(4)
    groups = {
        "quay": {
            "north": sums_of(draw.normal(0, 1, 800)),
            "south": sums_of(draw.normal(1, 1, 600)),
            "east": sums_of(draw.normal(0, 1, 20)),
        }
    }
    monitor = FairnessMonitor(max_bias_difference=0.5, max_mae_difference=0.5, min_group_examples=100)
    mae, bias = compare_errors(groups, monitor)
    assert (bias.rate, bias.group, bias.reference, bias.over) == ("bias", "south", "north", ("difference",))
    assert bias.difference_interval.lower < 1 < (bias.difference_interval.upper or 0)
    assert (mae.rate, mae.over) == ("mae", ())
    assert mae.confidence == pytest.approx(1 - 0.05 / 2)
    assert all(not each.over for each in compare_errors(groups, FairnessMonitor(min_group_examples=100)))
    small = {"quay": {"north": sums_of(draw.normal(0, 1, 30)), "south": sums_of(draw.normal(0.6, 1, 30))}}
    assert all(not each.over for each in compare_errors(small, monitor.model_copy(update={"min_group_examples": 10})))
