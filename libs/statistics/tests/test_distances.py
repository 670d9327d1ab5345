"""Drift distances beside their values on the raw data."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.spatial import distance as scipy_distance

from tailrace_contracts.events import CategoricalSummary, NumericalSummary
from tailrace_statistics import CategoricalFold, NumericalFold, distance, jensen_shannon, kolmogorov_smirnov, psi
from tailrace_statistics.distances import DistanceKind
from tailrace_statistics.sketches import RANK_ERROR

KINDS: tuple[DistanceKind, ...] = ("psi", "kolmogorov-smirnov", "jensen-shannon")
SHIFTS = [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.0, 2.0), (3.0, 0.5)]

Column = npt.NDArray[np.float64]


def numbers(values: Column | list[float]) -> NumericalSummary:
    """The summary of a column of numbers."""
    fold = NumericalFold()
    fold.fold(values)
    return fold.summary()


def words(counts: dict[str, int]) -> CategoricalSummary:
    """The summary of a column of words, `rare` unseen."""
    fold = CategoricalFold(["a", "b", "c"])
    fold.fold(Counter(counts).elements())
    return fold.summary()


def samples(shift: float, scale: float) -> tuple[Column, Column]:
    """A reference of 20,000 and a window of 3,000 values."""
    random = np.random.default_rng(3)
    return random.normal(size=20_000), random.normal(shift, scale, size=3_000)


def raw_shares(reference: Column, window: Column) -> tuple[Column, Column]:
    """Counts in the reference's deciles, from the raw data."""
    edges = np.concatenate(([-np.inf], np.quantile(reference, np.arange(1, 10) / 10), [np.inf]))
    return np.histogram(reference, edges)[0].astype(float), np.histogram(window, edges)[0].astype(float)


@pytest.mark.parametrize(("shift", "scale"), SHIFTS)
def test_kolmogorov_smirnov_is_that_of_the_raw_data(shift: float, scale: float) -> None:
    """An alert on this distance would be raised at another threshold than the spec names."""
    reference, window = samples(shift, scale)
    truth = stats.ks_2samp(reference, window).statistic
    assert kolmogorov_smirnov(numbers(reference), numbers(window)) == pytest.approx(truth, abs=3 * RANK_ERROR)


@pytest.mark.parametrize(("shift", "scale"), SHIFTS)
def test_psi_is_that_of_the_raw_data(shift: float, scale: float) -> None:
    """A drift threshold of 0.25 would not mean what practitioners know it to mean."""
    reference, window = samples(shift, scale)
    r, w = ((counts + 0.5) / (counts + 0.5).sum() for counts in raw_shares(reference, window))
    truth = float(np.sum((w - r) * np.log(w / r)))
    assert psi(numbers(reference), numbers(window)) == pytest.approx(truth, rel=0.15, abs=0.03)


@pytest.mark.parametrize(("shift", "scale"), SHIFTS)
def test_jensen_shannon_is_scipys_on_the_raw_data(shift: float, scale: float) -> None:
    """Users who compare with scipy or Evidently would find another number."""
    reference, window = samples(shift, scale)
    truth = scipy_distance.jensenshannon(*raw_shares(reference, window), base=2)
    assert jensen_shannon(numbers(reference), numbers(window)) == pytest.approx(truth, abs=0.04)


def test_categorical_distances_are_scipys() -> None:
    """Drift of words would be measured on wrong shares, or unseen words would go unnoticed."""
    reference, window = words({"a": 60, "b": 30, "c": 10}), words({"a": 20, "b": 30, "rare": 50})
    r, w = np.array([60, 30, 10, 0.0]), np.array([20, 30, 0, 50.0])
    assert jensen_shannon(reference, window) == pytest.approx(scipy_distance.jensenshannon(r, w, base=2))
    assert kolmogorov_smirnov(reference, window) == pytest.approx(0.5)
    r, w = (r + 0.5) / 102, (w + 0.5) / 102
    assert psi(reference, window) == pytest.approx(stats.entropy(r, w) + stats.entropy(w, r))


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_is_at_no_distance_from_itself(kind: DistanceKind) -> None:
    """Every window of a stream that stands still would look a little drifted."""
    column = numbers(samples(0, 1)[0])
    assert distance(kind, column, column) == pytest.approx(0, abs=1e-9)
    assert distance(kind, words({"a": 5}), words({"a": 5})) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 7.25])
def test_constant_and_repeated_values_are_compared(kind: DistanceKind, value: float) -> None:
    """A flag with two values, or a sensor that stands still, would crash the monitor or hide its change."""
    constant = numbers([value] * 500)
    assert distance(kind, constant, numbers([value] * 300)) == pytest.approx(0, abs=0.01)
    assert distance(kind, constant, numbers([value + 1] * 300)) > 0.5
    flag = numbers([0.0, 1.0] * 250)
    assert distance(kind, flag, numbers([0.0] * 300)) > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_at_no_distance(kind: DistanceKind) -> None:
    """A window in which a feature is wholly missing would divide by zero."""
    assert distance(kind, numbers([1.0, 2.0]), NumericalSummary(missing=9)) == 0
    assert distance(kind, NumericalSummary(), numbers([1.0])) == 0
    assert distance(kind, words({"a": 1}), CategoricalSummary()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_types_are_refused(kind: DistanceKind) -> None:
    """A feature that changed its type would show an arbitrary distance."""
    with pytest.raises(TypeError, match="build it anew"):
        distance(kind, numbers([1.0]), words({"a": 1}))


def test_psi_of_equal_streams_stays_below_the_usual_threshold() -> None:
    """Small windows of an unchanged stream would raise alarms at 0.25."""
    random = np.random.default_rng(4)
    reference = numbers(random.normal(size=2_000))
    found = [psi(reference, numbers(random.normal(size=200))) for _ in range(100)]
    assert max(found) < 0.25
    assert np.mean(found) == pytest.approx(9 * (1 / 200 + 1 / 2_000), rel=0.4)
