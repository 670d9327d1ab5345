"""Rows as numbers, and the distribution of an AUC when nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tailrace_contracts.spec import CategoricalFeature, NumericalFeature
from tailrace_statistics.multivariate import apart, critical, halves, table


def test_rows_become_numbers_and_what_is_missing_or_unseen_is_nan() -> None:
    """A word outside the list would be taken for another one, or a missing value for a zero."""
    features = (
        NumericalFeature(name="a"),
        CategoricalFeature(name="b", categories=("x", "y")),
        CategoricalFeature(name="c", categories=tuple(map(str, range(300)))),
    )
    found = table(
        [{"a": 1.5, "b": "y", "c": "7"}, {"a": None, "b": "z"}, {"a": float("inf"), "b": "x", "c": "1"}], features
    )
    np.testing.assert_array_equal(found.values, [[1.5, 1, 7], [np.nan, np.nan, np.nan], [np.nan, 0, 1]])
    assert found.categorical.tolist() == [False, True, False]


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_the_score_is_that_of_mann_and_whitney(decimals: int) -> None:
    """The threshold would not be the chance that the spec says, most of all where scores are tied."""
    chance = np.random.default_rng(1)
    one, other = chance.normal(size=80).round(decimals), chance.normal(0.4, size=120).round(decimals)
    found = apart(one, other)
    expected = stats.mannwhitneyu(other, one, alternative="greater", use_continuity=False, method="asymptotic")
    assert found.auc == pytest.approx(expected.statistic / (80 * 120))
    assert stats.norm.sf(found.score) == pytest.approx(expected.pvalue)
    assert critical(0.01) == pytest.approx(stats.norm.isf(0.01))


def test_nothing_to_rank_is_no_difference() -> None:
    """A constant classifier, or an empty half, would divide by zero."""
    assert apart(np.zeros(5), np.zeros(9)).score == 0
    assert apart(np.zeros(0), np.zeros(9)).auc == 0.5


def test_halves_share_no_row() -> None:
    """The classifier would be tested on what it learned, and find a difference everywhere."""
    first, second = halves(101, np.random.default_rng(2))
    assert sorted([*first, *second]) == list(range(101))
    assert len(first) == 50
