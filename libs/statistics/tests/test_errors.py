"""Errors of a regression as sums: the same by any split, and corrections take back what was counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace_statistics import ErrorSums

pairs = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=40)


def summed(examples: list[tuple[float, float]]) -> ErrorSums:
    """All of them together."""
    total = ErrorSums()
    for prediction, label in examples:
        total = total.plus(ErrorSums.of(prediction, label))
    return total


def test_the_figures_by_hand() -> None:
    """A cohort would be shown with errors that nobody can check."""
    found = summed([(3.0, 1.0), (1.0, 2.0), (5.0, 5.0)]).metrics()
    assert found == pytest.approx({"mae": 1.0, "rmse": math.sqrt(5 / 3), "bias": 1 / 3})
    assert ErrorSums().metrics() == {}


@given(pairs, st.integers(0, 40))
def test_parts_merge_into_the_whole(examples: list[tuple[float, float]], at: int) -> None:
    """A cohort whose labels come in two batches would be measured otherwise than in one."""
    merged = summed(examples[:at]).plus(summed(examples[at:]))
    assert merged.metrics() == pytest.approx(summed(examples).metrics(), abs=1e-3)


@given(pairs, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_a_correction_takes_back_what_it_replaces(
    examples: list[tuple[float, float]], wrong: float, right: float
) -> None:
    """A corrected label would leave the error under the wrong one behind."""
    corrected = summed([*examples, (7.0, wrong)]).plus(ErrorSums.of(7.0, wrong, -1)).plus(ErrorSums.of(7.0, right))
    expected = summed([*examples, (7.0, right)])
    assert corrected.examples == expected.examples
    assert corrected.metrics() == pytest.approx(expected.metrics(), rel=1e-6, abs=1e-3)


def test_absurd_errors_stay_finite() -> None:
    """One absurd answer would make every later figure infinite."""
    assert all(math.isfinite(each) for each in summed([(1.7e308, -1.7e308)] * 3).metrics().values())
