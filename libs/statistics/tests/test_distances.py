"""Drift distances beside their values on the raw data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as scipy_distance

from tailrace_contracts.events import CategoricalSummary, NumericalSummary
from tailrace_contracts.spec import DistanceKind
from tailrace_statistics import CategoricalFold, NumericalFold, distance, jensen_shannon, kolmogorov_smirnov, psi
from tailrace_statistics.distances import (
    TAIL,
    Cells,
    automatic,
    chi_squared_tail,
    kolmogorov_tail,
    missing_share,
    p_value,
    unseen_share,
)
from tailrace_statistics.sketches import RANK_ERROR, K

BINNED: tuple[DistanceKind, ...] = ("psi", "jensen-shannon", "hellinger", "chi-squared")
KINDS: tuple[DistanceKind, ...] = (*BINNED, "kolmogorov-smirnov")
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


# ---------------------------------------------------------------- every distance, on many distributions

Draw = Callable[[np.random.Generator, int], Column]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda random, size: random.normal(size=size),
    "skewed": lambda random, size: random.lognormal(size=size),
    "heavy tails": lambda random, size: random.standard_t(3, size=size),
    "no variance": lambda random, size: random.standard_cauchy(size=size),
    "two humps": lambda random, size: random.normal(size=size) + 6 * random.integers(0, 2, size),
    "ties": lambda random, size: random.poisson(3, size).astype(float),
    "mostly zero": lambda random, size: random.exponential(size=size) * (random.random(size) < 0.3),
    "flag": lambda random, size: (random.random(size) < 0.2).astype(float),
    "constant": lambda random, size: np.full(size, 7.25) + 0 * random.random(),
}
SIZES = [(20_000, 3_000), (5_000, 50_000), (40, 15), (3, 1)]
CHANGES = [(0.0, 1.0), (0.2, 1.0), (2.0, 1.5)]

pairs = pytest.mark.parametrize(
    ("reference", "window"),
    [
        pytest.param(draw(random, m), shift + scale * draw(random, n), id=f"{name}, {m}, {n}, {shift}, {scale}")
        for random in [np.random.default_rng(11)]
        for name, draw in DISTRIBUTIONS.items()
        for m, n in SIZES
        for shift, scale in CHANGES
    ],
)


def binned(reference: Column, window: Column) -> tuple[Column, Column]:
    """The raw values' counts in the bins of the reference's summary."""
    cells = Cells.of(numbers(reference))
    r, w = (np.bincount(cells.codes(values), minlength=cells.size) for values in (reference, window))
    return np.add.reduceat(r, cells.bins).astype(float), np.add.reduceat(w, cells.bins).astype(float)


@pairs
def test_kolmogorov_smirnov_is_within_its_bound(reference: Column, window: Column) -> None:
    """The published bound would not hold for skewed, repeated or few values."""
    truth = stats.ks_2samp(reference, window, method="asymp").statistic
    found = kolmogorov_smirnov(numbers(reference), numbers(window))
    assert found == pytest.approx(truth, abs=2 * RANK_ERROR + 0.01 + 1e-9)


@pairs
def test_wasserstein_is_within_its_bound(reference: Column, window: Column) -> None:
    """Evidently's default, on values cut beyond the reference's tails, would give other values here than on raw data."""
    deviation = max(float(np.std(reference, ddof=1)), 0.001)
    cells = Cells.of(numbers(reference))
    truth = stats.wasserstein_distance(reference.clip(*cells.cuts), window.clip(*cells.cuts)) / deviation
    bound = sketched(cells, reference, window) / deviation
    found = distance("wasserstein", numbers(reference), numbers(window))
    assert found == pytest.approx(truth, abs=bound, rel=1e-5)


@pairs
def test_wasserstein_is_scipys_on_raw_data_within_what_is_cut(reference: Column, window: Column) -> None:
    """Evidently's default would give other values here, and nobody could say by how much, where tails are heavy."""
    deviation = max(float(np.std(reference, ddof=1)), 0.001)
    cells = Cells.of(numbers(reference))
    cut = sum(float(np.mean(np.abs(column - column.clip(*cells.cuts)))) for column in (reference, window))
    off = (cut + sketched(cells, reference, window)) / deviation
    truth = stats.wasserstein_distance(reference, window) / deviation
    assert distance("wasserstein", numbers(reference), numbers(window)) == pytest.approx(truth, abs=off, rel=1e-5)


def sketched(cells: Cells, reference: Column, window: Column) -> float:
    """By how much Wasserstein's distance of cut values may be off: the two sketches, and the trapezia."""
    low, high = cells.cuts
    r, w = (np.bincount(cells.codes(values), minlength=cells.size) / len(values) for values in (reference, window))
    inside = (cells.points[1:] <= high) & (cells.points[:-1] >= low)
    return 2 * RANK_ERROR * (high - low) + float(np.diff(cells.points)[inside] @ (r + w)[1:-1][inside]) / 2


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_wasserstein_cuts_half_a_per_cent_at_each_end_at_most(name: str) -> None:
    """Drift of what most values do would be cut away, and the distance not be Evidently's where tails are light."""
    reference = DISTRIBUTIONS[name](np.random.default_rng(16), 20_000)
    low, high = Cells.of(numbers(reference)).cuts
    assert float(np.mean(reference < low)) <= TAIL + 2 * RANK_ERROR
    assert float(np.mean(reference > high)) <= TAIL + 2 * RANK_ERROR
    assert high - low >= 2 * float(np.std(reference))


def test_one_value_far_out_is_no_drift_of_wasserstein() -> None:
    """A reading 90 deviations out, once in a week, would move the whole column's distance over its threshold."""
    random = np.random.default_rng(15)
    reference, window = random.normal(size=20_000), random.normal(size=1_000)
    clean = distance("wasserstein", numbers(reference), numbers(window))
    spoilt = distance("wasserstein", numbers(reference), numbers(np.append(window[1:], 1e6)))
    assert spoilt == pytest.approx(clean, abs=0.02)


@pairs
def test_binned_distances_are_within_their_bounds(reference: Column, window: Column) -> None:
    """A threshold taken from the literature would be met by another shift than it was made for."""
    r, w = binned(reference, window)
    m, n = r.sum(), w.sum()
    one, other = numbers(reference), numbers(window)
    step = 2 * math.sqrt(len(r) * RANK_ERROR)
    truth = scipy_distance.jensenshannon(r, w, base=2)
    assert distance("jensen-shannon", one, other) == pytest.approx(truth, abs=step)
    truth = math.sqrt(max(1 - float(np.sum(np.sqrt(r / m * w / n))), 0))
    assert distance("hellinger", one, other) == pytest.approx(truth, abs=step)
    r, w = r[r + w > 0], w[r + w > 0]
    least, most = psi_between((r + 0.5) / (m + len(r) / 2), (w + 0.5) / (n + len(r) / 2), (m, n))
    assert least - 1e-9 <= psi(one, other) <= most + 1e-9


def psi_between(r: Column, w: Column, values: tuple[float, float]) -> tuple[float, float]:
    """What the index may be when each share is off by two rank errors."""
    off = 2 * RANK_ERROR
    corners = [
        np.array([(v - u) * np.log(v / u) for u in (low, high) for v in (under, over)])
        for low, high, under, over in zip(
            *(
                edge
                for share, n in zip((r, w), values, strict=True)
                for edge in (np.maximum(share - off, 0.5 / (n + len(r) / 2)), share + off)
            ),
            strict=True,
        )
    ]
    apart = np.abs(r - w) > 2 * off
    least = sum(float(corner.min()) for corner, far in zip(corners, apart, strict=True) if far)
    return least, sum(float(corner.max()) for corner in corners)


@pairs
def test_chi_squared_is_scipys_within_its_bound(reference: Column, window: Column) -> None:
    """Small references would be tested at another level than 5 %, as would columns that are mostly zero."""
    r, w = binned(reference, window)
    table = np.array([r, w])[:, (r + w) > 0]
    found = distance("chi-squared", numbers(reference), numbers(window))
    if table.shape[1] < 2:
        assert found == pytest.approx(0.0, abs=1e-9)
        return
    truth = stats.chi2_contingency(table, correction=False).statistic
    least, most = between("chi-squared", box(r, 2 * off_of(reference)), box(w, 2 * off_of(window)))
    assert least - 1e-9 <= truth <= most * (1 + 1e-9) + 1e-9
    assert least - 1e-9 <= found <= most * (1 + 1e-9) + 1e-9


Box = tuple[Column, Column, float]
"""The lowest and the highest share of each bin, and how many values there are."""


def off_of(values: Column) -> float:
    """The rank error of a column's sketch: none while it holds all values."""
    return RANK_ERROR if len(values) > K else 0.0


def box(counts: Column, off: float) -> Box:
    """Shares that are off by so much."""
    shares = counts / counts.sum()
    return np.maximum(shares - off, 0.0), np.minimum(shares + off, 1.0), float(counts.sum())


def between(kind: DistanceKind, reference: Box, window: Box) -> tuple[float, float]:
    """The least and the largest distance of shares within two boxes.

    Each is a sum of terms that are convex, 0 where the two shares are equal, and grow with their difference: so each term is
    largest at one of the two corners that lie furthest apart, and least at the other, or 0 where the boxes meet.
    """
    (low, high, m), (under, over, n) = reference, window
    ends = np.array([term(kind, low, over, m, n), term(kind, high, under, m, n)])
    near = np.where(low > over, term(kind, low, over, m, n), np.where(under > high, term(kind, high, under, m, n), 0.0))
    least, most = float(near.sum()), float(ends.max(axis=0).sum())
    rooted = kind in {"jensen-shannon", "hellinger"}
    return (math.sqrt(least), math.sqrt(min(most, 1.0))) if rooted else (least, most)


def term(kind: DistanceKind, r: Column, w: Column, m: float, n: float) -> Column:
    """One bin's part of a distance, or of its square."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "psi":
            return np.asarray((w - r) * np.log(w / r))
        if kind == "hellinger":
            return np.asarray((np.sqrt(w) - np.sqrt(r)) ** 2 / 2)
        if kind == "chi-squared":
            return np.nan_to_num(n * m * (w - r) ** 2 / (n * w + m * r))
        parts = (np.where(each > 0, each * np.log2(2 * each / (r + w)), 0.0) for each in (r, w))
        return np.asarray(sum(parts) / 2)


CONTINUOUS = ["normal", "skewed", "heavy tails", "no variance", "two humps"]


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("m", "n"), SIZES[:3])
@pytest.mark.parametrize(("shift", "scale"), CHANGES)
def test_binned_distances_are_those_of_the_raw_datas_own_deciles(
    name: str, m: int, n: int, shift: float, scale: float
) -> None:
    """People who compute PSI from their data with pandas and scipy would find a value that no bound explains.

    A decile that is read from the sketch lies within a rank error of the true one: so the share of each bin is at most that
    between the true values a rank error further out, and a share that is read from a sketch is off by two more.
    """
    random = np.random.default_rng([17, m])
    reference, window = DISTRIBUTIONS[name](random, m), shift + scale * DISTRIBUTIONS[name](random, n)
    r, w = raw_shares(reference, window)
    one, other = numbers(reference), numbers(window)
    boxes = [box_of_deciles(values, reference, 2 * off_of(values)) for values in (reference, window)]
    for kind in ("jensen-shannon", "hellinger", "chi-squared"):
        truth = raw_distance(kind, r, w)
        least, most = between(kind, *boxes)
        assert least - 1e-6 <= truth <= most + 1e-6
        assert least - 1e-6 <= distance(kind, one, other) <= most + 1e-6
    raised = [(low + 0.5 / size, high + 0.5 / size, size) for low, high, size in boxes]
    least, most = (each for each in between("psi", *((a / (1 + 5 / k), b / (1 + 5 / k), k) for a, b, k in raised)))
    smooth = [(counts + 0.5) / (counts.sum() + 5) for counts in (r, w)]
    assert least - 1e-6 <= stats.entropy(*smooth) + stats.entropy(*smooth[::-1]) <= most + 1e-6
    assert least - 1e-6 <= psi(one, other) <= most + 1e-6


def raw_distance(kind: DistanceKind, r: Column, w: Column) -> float:
    """scipy's, or by the definition where scipy has none."""
    if kind == "jensen-shannon":
        return float(np.nan_to_num(scipy_distance.jensenshannon(r, w, base=2)))
    if kind == "chi-squared":
        return float(stats.chi2_contingency(np.array([r, w]), correction=False).statistic)
    return float(scipy_distance.euclidean(np.sqrt(r / r.sum()), np.sqrt(w / w.sum()))) / math.sqrt(2)


def box_of_deciles(values: Column, reference: Column, off: float) -> Box:
    """The least and the largest share of `values` in each bin between the reference's deciles, each a rank error off."""
    error = off_of(reference) + 1 / len(reference)
    ranks = np.arange(1, 10) / 10
    ordered = np.sort(values)
    inner, outer = (np.quantile(reference, (ranks + each).clip(0, 1)) for each in (-error, error))
    down, up = (
        np.searchsorted(ordered, inner, "left") / len(values),
        np.searchsorted(ordered, outer, "right") / len(values),
    )
    low = np.append(down, 1.0) - np.insert(up, 0, 0.0)
    high = np.append(up, 1.0) - np.insert(down, 0, 0.0)
    return np.maximum(low - off, 0.0), np.minimum(high + off, 1.0), float(len(values))


@settings(max_examples=60, deadline=None)
@given(
    r=st.lists(st.integers(0, 500), min_size=4, max_size=4),
    w=st.lists(st.integers(0, 500), min_size=4, max_size=4),
)
def test_distances_of_categories_are_exactly_scipys(r: list[int], w: list[int]) -> None:
    """Categories are counted, not sketched: nothing may be lost."""
    one, other = (words(dict(zip(("a", "b", "c", "rare"), counts, strict=True))) for counts in (r, w))
    if not sum(r) or not sum(w):
        assert all(distance(kind, one, other) == 0 for kind in KINDS)
        return
    assert distance("jensen-shannon", one, other) == pytest.approx(
        float(np.nan_to_num(scipy_distance.jensenshannon(r, w, base=2))), abs=1e-6
    )
    shares = np.array(r) / sum(r), np.array(w) / sum(w)
    assert distance("hellinger", one, other) == pytest.approx(
        float(np.linalg.norm(np.sqrt(shares[0]) - np.sqrt(shares[1]))) / math.sqrt(2), abs=1e-6
    )
    table = np.array([r, w])[:, (np.array(r) + np.array(w)) > 0]
    if table.shape[1] > 1:
        truth = stats.chi2_contingency(table, correction=False)
        assert distance("chi-squared", one, other) == pytest.approx(truth.statistic, abs=1e-6)
        assert p_value("chi-squared", one, other) == pytest.approx(truth.pvalue, abs=1e-6)


def test_wasserstein_of_categories_is_refused() -> None:
    """Categories would be given an order that they do not have."""
    with pytest.raises(TypeError, match="no order"):
        distance("wasserstein", words({"a": 3}), words({"b": 3}))


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 24, 100])
@pytest.mark.parametrize("value", [0.0, 0.01, 0.7, 3.84, 20.0, 150.0])
def test_the_chi_squared_tail_is_scipys(value: float, freedom: int) -> None:
    """A wrong p-value would be compared with 0.05."""
    assert chi_squared_tail(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.15, 0.3, 0.8, 1.36, 3.0])
def test_the_kolmogorov_tail_is_scipys(value: float) -> None:
    """A wrong p-value would be compared with 0.05."""
    assert kolmogorov_tail(value) == pytest.approx(stats.kstwobign.sf(value), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_the_p_value_of_kolmogorov_smirnov_is_about_scipys(shift: float) -> None:
    """A reference of 1,000 rows or fewer would be tested at another level than 5 %."""
    random = np.random.default_rng(13)
    reference, window = random.normal(size=150), random.normal(shift, 1, size=120)
    truth = stats.ks_2samp(reference, window)
    found = p_value("kolmogorov-smirnov", numbers(reference), numbers(window))
    assert found == pytest.approx(truth.pvalue, abs=0.1)
    assert p_value("psi", numbers(reference), numbers(window)) is None


def test_the_automatic_choice_is_evidentlys() -> None:
    """Users who come from Evidently would find other distances by default."""
    random = np.random.default_rng(14)
    large, small, few = random.normal(size=1_001), random.normal(size=1_000), random.integers(0, 5, 2_000)
    assert automatic(numbers(large)) == "wasserstein"
    assert automatic(numbers(small)) == "kolmogorov-smirnov"
    assert automatic(numbers(few.astype(float))) == "jensen-shannon"
    assert automatic(numbers(few[:900].astype(float))) == "chi-squared"
    assert automatic(words({"a": 600, "b": 401})) == "jensen-shannon"
    assert automatic(words({"a": 600, "b": 400})) == "chi-squared"


def test_missing_and_unseen_values_are_shares_of_their_own() -> None:
    """A feature that is suddenly missing would look unchanged in what is left of it."""
    column = CategoricalSummary(count=90, missing=10, unseen=9, counts={"a": 81})
    assert missing_share(column) == pytest.approx(0.1)
    assert unseen_share(column) == pytest.approx(0.1)
    assert missing_share(None) == missing_share(NumericalSummary()) == unseen_share(numbers([1.0])) == 0.0


@pytest.mark.parametrize("level", [7.25, 1e6, -3e38])
@pytest.mark.parametrize("factor", [0.5, 1.1])
def test_a_constant_that_moves_either_way_is_far(level: float, factor: float) -> None:
    """A sensor that is stuck at a lower value than before would look unchanged."""
    for kind in (*KINDS, "wasserstein"):
        assert distance(kind, numbers([level] * 500), numbers([level * factor] * 300)) > 0.5
