"""How far a window lies from its reference, column by column.

The reference cuts a column into cells once, and every distance is a function of two columns' counts in these cells: a
few for a window that has come, thousands at a time where thresholds are calibrated (`calibration`). A numerical column
is cut at its hundredths, finer towards both ends, read from its sketch; the binned distances put the cells together
to ten bins at the deciles, fewer where values repeat. A categorical column has a cell for each category of the
reference, one for the spec's other categories, and one for unseen values. Missing values take no part: their share, and that of unseen values, is a test of
its own. A column without values is at distance 0: there is nothing to compare, and monitoring asks for a least number
of examples first.

What a distance may differ by from its value on the raw data follows from `RANK_ERROR`, e, by which the rank of any one
value may be wrong in each of the two sketches (with 99 % confidence), and is given with each distance. Categories are
counted, so there it is 0; and so it is of a column of at most 200 values, all of which its sketch holds. The bins' edges
are the deciles of the reference's sketch, each within e of the rank of the raw data's own: beside a distance in *those*
bins, a share is that between edges up to e further out or in, and then 2e off.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, FeatureValue, NumericalSummary
from tailrace_contracts.spec import DistanceKind
from tailrace_statistics import sketches
from tailrace_statistics.columns import standard_deviation

Counts = npt.NDArray[np.float64]

LARGE_REFERENCE = 1_000
"""A reference with more values than that is judged by a size of effect, a smaller one by a test (see `automatic`)."""

FEW_VALUES = 5
"""A numerical column with at most so many different values is judged like a categorical one."""

TAIL = 0.005
"""Wasserstein's distance cuts values one standard deviation beyond the reference's quantiles of this rank and of 1 less it."""

_ENDS = [2.0**-power for power in range(13, 6, -1)]
_RANKS = [0.0, *_ENDS, *(step / 100 for step in range(1, 100)), *(1 - end for end in reversed(_ENDS)), 1.0]
_DECILES = [step / 10 for step in range(1, 10)]
_PRIOR = 0.5
_LEAST_DEVIATION = 0.001


def distance(kind: DistanceKind, reference: ColumnSummary, window: ColumnSummary) -> float:
    """The distance of the window from the reference. Raises TypeError where the two, or the kind, do not fit."""
    return Cells.of(reference).distance(kind, window)


def psi(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The population stability index: see `Cells.psi`."""
    return distance("psi", reference, window)


def jensen_shannon(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The Jensen-Shannon distance: see `Cells.jensen_shannon`."""
    return distance("jensen-shannon", reference, window)


def kolmogorov_smirnov(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The largest difference of two distributions: see `Cells.kolmogorov_smirnov`."""
    return distance("kolmogorov-smirnov", reference, window)


@dataclass(frozen=True)
class Cells:
    """A reference's column, cut into cells. Methods take counts of shape (..., cells) and give distances of (...)."""

    reference: ColumnSummary
    names: tuple[str, ...] = ()
    points: Counts = field(default_factory=lambda: np.zeros(0))
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    cuts: tuple[float, float] = (0.0, 0.0)
    exact: Counts | None = None

    @classmethod
    def of(cls, reference: ColumnSummary) -> Cells:
        """Cut the column. Raises SketchInvalid for damaged quantiles."""
        if isinstance(reference, CategoricalSummary):
            names = tuple(sorted(reference.counts))
            return cls(reference, names=names, bins=np.arange(len(names) + 2))
        sketch = sketches.from_text(reference.quantiles)
        if sketch.is_empty():
            return cls(reference)
        points, times = np.unique(sketch.get_quantiles(_RANKS, inclusive=True), return_counts=True)
        edges = np.unique(sketch.get_quantiles(_DECILES, inclusive=True))
        below = np.nextafter(points.astype(np.float32), np.float32(-np.inf))  # where values repeat, what is less is not
        if len(edges) < len(_DECILES):
            edges = np.insert(edges, 0, below[0])
        low, high = sketch.get_quantiles([TAIL, 1 - TAIL], inclusive=True)
        cuts = _cuts(low, high, _deviation(reference))
        points = np.union1d(points, np.concatenate((below[times > 1], cuts)))
        bins = np.insert(np.unique(np.searchsorted(points, edges)) + 1, 0, 0)
        return cls(reference, points=points, bins=bins, cuts=cuts)

    @functools.cached_property
    def own(self) -> Counts:
        """The reference's own counts: from its summary, or from its rows where `exact` has them."""
        return self.counts(self.reference) if self.exact is None else self.exact

    def from_rows(self, values: npt.NDArray[np.float64] | list[FeatureValue]) -> Cells:
        """The same cells with the counts of these rows of the reference, which no sketch has blurred."""
        codes = self.codes(values)
        return replace(self, exact=np.bincount(codes[codes >= 0], minlength=self.size).astype(np.float64))

    @property
    def size(self) -> int:
        """How many cells there are."""
        return len(self.points) + 1 if self.is_numerical else len(self.names) + 2

    @property
    def is_numerical(self) -> bool:
        """Whether the column holds numbers."""
        return isinstance(self.reference, NumericalSummary)

    def counts(self, summary: ColumnSummary) -> Counts:
        """How many of a column's values lie in each cell. Raises TypeError for a column of another type."""
        if isinstance(summary, CategoricalSummary) and not self.is_numerical:
            named = [summary.counts.get(name, 0) for name in self.names]
            return np.array([*named, summary.count - sum(named) - summary.unseen, summary.unseen], dtype=np.float64)
        if isinstance(summary, NumericalSummary) and self.is_numerical:
            sketch = sketches.from_text(summary.quantiles)
            if sketch.is_empty() or not len(self.points):
                return np.zeros(self.size)
            cdf = np.asarray(sketch.get_cdf(self.points.tolist(), inclusive=True))
            return np.asarray(np.diff(cdf, prepend=0.0) * float(sketch.n))
        raise TypeError(
            f"a {self.reference.type} reference cannot be compared with a {summary.type} window; build it anew"
        )

    def codes(self, values: npt.NDArray[np.float64] | list[FeatureValue]) -> npt.NDArray[np.int64]:
        """The cell of each raw value; -1 for a missing one."""
        if self.is_numerical:
            column = np.asarray(values, dtype=np.float64)
            narrow = column.astype(np.float32)
            return np.asarray(np.where(np.isfinite(column), np.searchsorted(self.points, narrow), -1))
        known = {name: index for index, name in enumerate(self.names)}
        unseen = len(self.names) + 1
        return np.array([-1 if value is None else known.get(str(value), unseen) for value in values], dtype=np.int64)

    def distance(self, kind: DistanceKind, window: ColumnSummary) -> float:
        """The distance of a window's column from the reference's own. Raises TypeError where they do not fit."""
        return float(self.between(kind, self.own, self.counts(window)))

    def between(self, kind: DistanceKind, reference: Counts, window: Counts) -> Counts:
        """The distances of windows from references, given by their counts. Raises TypeError for an unfit kind."""
        if kind == "wasserstein" and not self.is_numerical:
            raise TypeError("categories have no order: Wasserstein's distance is of numerical columns only")
        present = (reference.sum(axis=-1) > 0) & (window.sum(axis=-1) > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Counts = np.where(present, getattr(self, kind.replace("-", "_"))(reference, window), 0.0)
        return found

    def psi(self, reference: Counts, window: Counts) -> Counts:
        """The population stability index: sum of (w - r) ln(w / r) over the bins' shares, 0 or more, unbounded.

        It is Jeffreys' divergence (1946) of the two binned distributions; credit scoring reads 0.1 as a small and 0.25
        as a large shift (Siddiqi 2006, "Credit Risk Scorecards"). The count of each bin that any of the two has values
        in is raised by one half, Jeffreys' prior for shares, so that an empty bin gives a finite value. Between two
        samples of one distribution the expected value is about (bins - 1) (1/n + 1/m) (Yurdakul 2018, "Statistical
        properties of population stability index"). Sketched, each share is off by 2e at most; the terms are convex, so
        the value is off by no more than their sum at the worst corners of (w - 2e, w + 2e) and (r - 2e, r + 2e).
        """
        r, w = self._binned(reference), self._binned(window)
        prior = np.where(r + w > 0, _PRIOR, 0.0)
        r, w = _shares(r + prior), _shares(w + prior)
        return np.asarray(np.sum((w - r) * np.log(np.where(prior, w, 1.0) / np.where(prior, r, 1.0)), axis=-1))

    def jensen_shannon(self, reference: Counts, window: Counts) -> Counts:
        """The Jensen-Shannon distance, base 2, between 0 and 1.

        It is the square root of the divergence of Lin (1991), which Endres and Schindelin (2003) show to be a metric;
        so, sketched, it is off by the two columns' own distances from their sketches at most. Each share is off by 2e
        at most, so such a divergence is at most the bins times e (Lin's bound by the total variation, theorem 3).
        """
        r, w = (_shares(self._binned(counts)) for counts in (reference, window))
        middle = (r + w) / 2
        divergence = (_relative_entropy(r, middle) + _relative_entropy(w, middle)) / 2
        return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))

    def hellinger(self, reference: Counts, window: Counts) -> Counts:
        """Hellinger's distance (1909), between 0 and 1: the root of 1 less the sum of sqrt(w r) over the bins.

        A metric; its square is at most the total variation (Le Cam 1986), so, sketched, it is off by the root of the
        bins times e for each of the two columns at most.
        """
        r, w = (_shares(self._binned(counts)) for counts in (reference, window))
        return np.asarray(np.sqrt(np.clip(1.0 - np.sum(np.sqrt(r * w), axis=-1), 0.0, 1.0)))

    def chi_squared(self, reference: Counts, window: Counts) -> Counts:
        """Pearson's statistic (1900) of homogeneity of the two binned columns; for two bins the square of the z-test.

        Over the bins that any of the two has values in, sum of (w sqrt(m/n) - r sqrt(n/m))^2 / (w + r), with counts w
        and r of n and m values: the contingency table's statistic in its form for two samples. Sketched, each share is off
        by 2e at most; the terms are convex and grow with the difference of the two shares, so the statistic lies between
        its values at the nearest and the farthest corners, as for `psi`.
        """
        r, w = self._binned(reference), self._binned(window)
        m, n = r.sum(axis=-1, keepdims=True), w.sum(axis=-1, keepdims=True)
        terms = np.square(w * np.sqrt(m / n) - r * np.sqrt(n / m)) / np.maximum(w + r, 1e-300)
        return np.asarray(np.sum(terms, axis=-1))

    def kolmogorov_smirnov(self, reference: Counts, window: Counts) -> Counts:
        """The largest difference of two distributions, between 0 and 1.

        Numerical: of the distribution functions (Smirnov 1939), looked at on the reference's cells, in each of which it
        rises by a hundredth or less: sketched, it is off by 2e and 0.01 at most. Categories have
        no order; there it is the largest difference over all sets of categories, which is the total variation distance.
        """
        r, w = _shares(reference), _shares(window)
        if self.is_numerical:
            return np.asarray(np.abs(np.cumsum(r - w, axis=-1)).max(axis=-1))
        return np.asarray(np.abs(r - w).sum(axis=-1) / 2)

    def wasserstein(self, reference: Counts, window: Counts) -> Counts:
        """The first Wasserstein distance of cut values, over the reference's standard deviation, as Evidently normalises it.

        It is the area between the two distribution functions (Vallender 1974), summed by trapezia over the cells, between
        the `cuts`: values beyond them count as if they lay there. Without cuts, one value far out moves the distance by as
        much as it likes, and no sample of the reference says how often such a one comes. The cuts lie a standard deviation
        beyond the quantiles, so that a constant that moves is far, too. A standard deviation below 0.001 counts as that.
        Sketched, it is off by 2e times the cuts' distance and half the sum of each cell's width times its two shares at
        most, over the standard deviation; from the distance of the raw values, uncut, by the mean that each column's values
        lie beyond the cuts more, which is how far cutting moves them (triangle inequality).
        """
        if not len(self.points):
            return np.zeros(np.broadcast_shapes(reference.shape, window.shape)[:-1])
        low, high = np.searchsorted(self.points, self.cuts)
        apart = np.abs(np.cumsum(_shares(reference) - _shares(window), axis=-1))[..., low : high + 1]
        widths = np.diff(self.points[low : high + 1])
        return np.asarray((apart[..., 1:] + apart[..., :-1]) @ widths / (2 * _deviation(self.reference)))

    def _binned(self, counts: Counts) -> Counts:
        if len(self.bins) == counts.shape[-1]:
            return counts
        return np.add.reduceat(counts, self.bins, axis=-1)

    def freedom(self, window: ColumnSummary) -> int:
        """The degrees of freedom of chi-squared: bins in which there are values, less one."""
        both = self._binned(self.own + self.counts(window))
        return max(int(np.count_nonzero(both)) - 1, 0)


def automatic(reference: ColumnSummary) -> DistanceKind:
    """The distance by column type and size of the reference, as Evidently documents its default.

    More than 1,000 reference values: Wasserstein for numbers, Jensen-Shannon for categories; else Kolmogorov-Smirnov and
    chi-squared (whose case of two bins is the z-test). Numbers with at most five values are treated as categories.
    """
    large = reference.count > LARGE_REFERENCE
    if isinstance(reference, NumericalSummary) and not _few_values(reference):
        return "wasserstein" if large else "kolmogorov-smirnov"
    return "jensen-shannon" if large else "chi-squared"


def chosen(kind: Literal["auto"] | DistanceKind, reference: ColumnSummary) -> DistanceKind:
    """The distance of a column where a spec says `kind`: categories, which have no order, are spared Wasserstein's."""
    if kind == "auto" or (kind == "wasserstein" and isinstance(reference, CategoricalSummary)):
        return automatic(reference)
    return kind


def _deviation(reference: ColumnSummary) -> float:
    deviation = standard_deviation(reference) if isinstance(reference, NumericalSummary) else 0.0
    return max(deviation, _LEAST_DEVIATION)


def _cuts(low: float, high: float, deviation: float) -> tuple[float, float]:
    """A deviation beyond the two quantiles, and a step of the sketches' 32-bit numbers at least."""
    below, above = (
        float(np.nextafter(np.float32(edge), np.float32(way))) for edge, way in ((low, -np.inf), (high, np.inf))
    )
    furthest = float(np.finfo(np.float32).max)
    low, high = max(min(low - deviation, below), -furthest), min(max(high + deviation, above), furthest)
    return float(np.float32(low)), float(np.float32(high))


def _few_values(summary: NumericalSummary) -> bool:
    sketch = sketches.from_text(summary.quantiles)
    return not sketch.is_empty() and len(set(sketch.get_quantiles(_RANKS, inclusive=True))) <= FEW_VALUES


def p_value(kind: DistanceKind, reference: ColumnSummary, window: ColumnSummary) -> float | None:
    """The chance of so large a distance without drift, for the two kinds that are tests; None for the others.

    Kolmogorov-Smirnov: the limiting distribution with Stephens' correction (1970) for finite samples, of the two columns'
    counts n and m through n m / (n + m); conservative where values repeat. Chi-squared: with `Cells.freedom` degrees.
    """
    cells = Cells.of(reference)
    if kind == "kolmogorov-smirnov" and cells.is_numerical:
        size = math.sqrt(reference.count * window.count / max(reference.count + window.count, 1))
        return kolmogorov_tail((size + 0.12 + 0.11 / size) * cells.distance(kind, window)) if size else 1.0
    if kind == "chi-squared":
        return chi_squared_tail(cells.distance(kind, window), cells.freedom(window))
    return None


def kolmogorov_tail(value: float) -> float:
    """P(K > value) of Kolmogorov's distribution: 2 sum of (-1)^(j-1) exp(-2 j^2 value^2) (Kolmogorov 1933)."""
    if value < 0.2:  # where it is 1 to twelve digits, and the series converges slowly
        return 1.0
    terms = (-1.0) ** (np.arange(1, 101) - 1) * np.exp(-2.0 * np.square(np.arange(1, 101) * value))
    return float(np.clip(2.0 * terms.sum(), 0.0, 1.0))


def chi_squared_tail(value: float, freedom: int) -> float:
    """P(X > value) of the chi-squared distribution: the regularised upper incomplete gamma function Q(freedom/2, value/2).

    By its series below a + 1 and Lentz's continued fraction above (Press et al. 2007, "Numerical Recipes", 6.2).
    """
    if freedom < 1 or value <= 0:
        return 1.0
    a, x = freedom / 2, value / 2
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for step in range(1, 10_000):
            term *= x / (a + step)
            total += term
            if term < total * 1e-15:
                break
        return min(max(1.0 - scale * total, 0.0), 1.0)
    b, c = x + 1 - a, 1e300
    d = 1 / b
    fraction = d
    for step in range(1, 10_000):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(max(scale * fraction, 0.0), 1.0)


def missing_share(summary: ColumnSummary | None) -> float:
    """Missing values among all; 0 of none."""
    total = summary.count + summary.missing if summary else 0
    return summary.missing / total if summary and total else 0.0


def unseen_share(summary: ColumnSummary | None) -> float:
    """Values outside the spec's categories among those present; 0 of none, and for numbers."""
    return summary.unseen / summary.count if isinstance(summary, CategoricalSummary) and summary.count else 0.0


def _shares(counts: Counts) -> Counts:
    return np.asarray(counts / counts.sum(axis=-1, keepdims=True))


def _relative_entropy(p: Counts, q: Counts) -> Any:
    terms = np.where(p > 0, p * np.log2(np.where(p > 0, p, 1.0) / np.where(q > 0, q, 1.0)), 0.0)
    return terms.sum(axis=-1)
