"""Labels against a reference: the tests are scipy's, and corrections leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.labels import level, mean_moved, moments_of, moments_of_rate, rate_moved


@pytest.mark.parametrize(
    ("reference", "cohort"),
    [
        ((400, 2_000), (90, 300)),
        ((3, 5_000), (4, 300)),
        ((0, 500), (0, 300)),
        ((500, 500), (290, 300)),
        ((9, 40), (1, 30)),
    ],
)
def test_a_share_is_compared_as_scipys_fisher_does(reference: tuple[int, int], cohort: tuple[int, int]) -> None:
    """Rare classes would raise alarms of chance, or their surge none."""
    table = [[cohort[0], cohort[1] - cohort[0]], [reference[0], reference[1] - reference[0]]]
    sides = [stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    found = rate_moved(moments_of_rate(*reference), moments_of_rate(*cohort))
    assert found == pytest.approx(stats.norm.isf(min(1.0, 2 * min(sides)) / 2), abs=1e-6)


def test_a_share_without_drift_passes_its_level_no_more_often_than_it_says() -> None:
    """The labels would use up the false alarms of everything else."""
    chance = np.random.default_rng(1)
    counts = [(int(chance.binomial(2_000, 0.03)), int(chance.binomial(300, 0.03))) for _ in range(2_000)]
    limit = level(0.02)
    over = sum(rate_moved(moments_of_rate(one, 2_000), moments_of_rate(two, 300)) > limit for one, two in counts)
    assert over / len(counts) < 0.03


def test_a_share_that_moves_beyond_all_doubt_is_a_number_still() -> None:
    """A complete reversal would end in an infinite value, which JSON cannot say."""
    assert 30 < rate_moved(moments_of_rate(0, 100_000), moments_of_rate(100_000, 100_000)) < 40


def test_means_are_compared_as_scipys_welch_does() -> None:
    """The labels of a regression would be judged by something else than documented."""
    chance = np.random.default_rng(2)
    one, two = chance.normal(50, 10, 2_000), chance.normal(52, 20, 300)
    sums = [ErrorSums() for _ in range(2)]
    for place, values in enumerate((one, two)):
        for value in values:
            sums[place] = sums[place].plus(ErrorSums.of(float(value), 0.0))
    found = mean_moved(moments_of(sums[0]), moments_of(sums[1]))
    assert found == pytest.approx(abs(stats.ttest_ind(one, two, equal_var=False).statistic))
    corrected = sums[1].plus(ErrorSums.of(1e3, 0.0)).plus(ErrorSums.of(1e3, 0.0, -1))
    assert mean_moved(moments_of(sums[0]), moments_of(corrected)) == pytest.approx(found)
    assert mean_moved(moments_of(ErrorSums()), moments_of(sums[1])) == 0
