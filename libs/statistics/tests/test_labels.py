"""The labels of a cohort as a column that corrections can be taken back from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tailrace_contracts.events import NumericalSummary
from tailrace_statistics import distance
from tailrace_statistics.columns import NumericalFold, standard_deviation
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.labels import LabelSketch, column_of_classes, rows_of_classes
from tailrace_statistics.sketches import RANK_ERROR

Numbers = npt.NDArray[np.float64]


def column(came: Numbers, gone: Numbers) -> NumericalSummary:
    """The column of labels that came, less those that were taken back."""
    sketch, sums = LabelSketch(), ErrorSums()
    for values, by in ((came, 1), (gone, -1)):
        for value in values.tolist():
            sketch.count(value, by)
            sums = sums.plus(ErrorSums.of(value, 0.0, by))
    kept = LabelSketch.model_validate_json(sketch.model_dump_json())
    return kept.column(sums)


def summary(values: Numbers) -> NumericalSummary:
    """The summary of a reference's labels."""
    fold = NumericalFold()
    fold.fold(values)
    return fold.summary()


@pytest.mark.parametrize("corrected", [0, 1, 40, 2_000])
def test_corrected_labels_leave_the_distribution_of_those_that_stand(corrected: int) -> None:
    """A cohort whose labels were put right would be judged by the wrong ones, or not at all."""
    random = np.random.default_rng(1)
    stands, wrong = random.normal(50, 10, 6_000), random.uniform(500, 900, corrected)
    reference = random.normal(50, 10, 20_000)
    found = column(np.concatenate([wrong, stands]), wrong)
    assert found.count == 6_000
    assert found.mean == pytest.approx(stands.mean())
    assert standard_deviation(found) == pytest.approx(stands.std(ddof=1))
    truth = stats.ks_2samp(reference, stands).statistic
    off = RANK_ERROR * ((6_000 + 2 * corrected) / 6_000 + (corrected > 0))
    measured = distance("kolmogorov-smirnov", summary(reference), found)
    assert measured == pytest.approx(truth, abs=off + RANK_ERROR + 0.01)


def test_few_labels_are_kept_exactly_and_a_correction_leaves_nothing() -> None:
    """A cohort of a hundred labels would be judged by rounded ones."""
    values = np.random.default_rng(2).normal(size=150)
    plain, corrected = column(values, np.zeros(0)), column(np.append(values, 9.0), np.array([9.0]))
    reference = summary(values)
    assert distance("kolmogorov-smirnov", reference, plain) == pytest.approx(0.0, abs=1e-9)
    assert distance("kolmogorov-smirnov", reference, corrected) == pytest.approx(0.0, abs=1e-9)


def test_a_cohort_that_began_before_labels_were_sketched_has_no_column() -> None:
    """After an upgrade a half-known cohort would be taken for drift."""
    sketch = LabelSketch()
    sketch.count(1.0, 1)
    assert sketch.column(ErrorSums.of(1.0, 0.0).plus(ErrorSums.of(2.0, 0.0))).count == 0


def test_classes_are_counts_and_rows_in_their_proportion() -> None:
    """A rare class would be calibrated at another rate than it has."""
    assert column_of_classes(3, 10).counts == {"0": 7, "1": 3}
    assert rows_of_classes(3, 10, 20_000).count("1") == 3
    assert rows_of_classes(20, 100_000, 20_000) == ["1"] * 4 + ["0"] * 19_996
