"""How far a window lies from its reference, column by column.

A numerical column is cut into ten bins at the reference's deciles (fewer where values repeat), read from its sketch. A
categorical column has a bin for each category and one for all unseen values together. Missing values take no part:
their share is a matter of data quality, not of drift. A column without values is at distance 0: there is nothing to
compare, and monitoring asks for a least number of examples first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, NumericalSummary
from tailrace_statistics import sketches

DistanceKind = Literal["psi", "kolmogorov-smirnov", "jensen-shannon"]
Shares = npt.NDArray[np.float64]

_DECILES = [rank / 10 for rank in range(1, 10)]
_GRID = [rank / 200 for rank in range(201)]
_PRIOR = 0.5


def distance(kind: DistanceKind, reference: ColumnSummary, window: ColumnSummary) -> float:
    """The distance of the window from the reference. Raises TypeError where they are of two types."""
    return _KINDS[kind](reference, window)


def psi(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The population stability index: sum of (w - r) ln(w / r) over the bins' shares, 0 or more, unbounded.

    It is Jeffreys' divergence (1946) of the two binned distributions; credit scoring reads 0.1 as a small and 0.25 as a
    large shift (Siddiqi 2006, "Credit Risk Scorecards"). Each bin's count is raised by one half, which is Jeffreys'
    prior for shares, so that an empty bin gives a finite value. Between two samples of one distribution the expected
    value is about (bins - 1) (1/n + 1/m) (Yurdakul 2018, "Statistical properties of population stability index").
    """
    r, w = (_smoothed(counts) for counts in _binned(reference, window))
    return float(np.sum((w - r) * np.log(w / r))) if len(r) else 0.0


def jensen_shannon(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The Jensen-Shannon distance, base 2, between 0 and 1.

    It is the square root of the divergence of Lin (1991), which Endres and Schindelin (2003) show to be a metric.
    """
    r, w = (counts / max(counts.sum(), 1.0) for counts in _binned(reference, window))
    if not r.sum() or not w.sum():
        return 0.0
    middle = (r + w) / 2
    divergence = (_relative_entropy(r, middle) + _relative_entropy(w, middle)) / 2
    return float(np.sqrt(min(max(divergence, 0.0), 1.0)))


def kolmogorov_smirnov(reference: ColumnSummary, window: ColumnSummary) -> float:
    """The largest difference of two distributions, between 0 and 1.

    Numerical: of the distribution functions (Smirnov 1939), looked at on both columns' 200-quantiles, so that the
    value is within two sketches' rank errors of that of the raw data. Categories have no order; there it is the
    largest difference over all sets of categories, which is the total variation distance.
    """
    if isinstance(reference, NumericalSummary) and isinstance(window, NumericalSummary):
        return _largest_difference(sketches.from_text(reference.quantiles), sketches.from_text(window.quantiles))
    r, w = (counts / max(counts.sum(), 1.0) for counts in _binned(reference, window))
    return float(np.abs(r - w).sum() / 2) if r.sum() and w.sum() else 0.0


_KINDS: dict[str, Callable[[ColumnSummary, ColumnSummary], float]] = {
    "psi": psi,
    "kolmogorov-smirnov": kolmogorov_smirnov,
    "jensen-shannon": jensen_shannon,
}


def _binned(reference: ColumnSummary, window: ColumnSummary) -> tuple[Shares, Shares]:
    """Both columns' counts in the reference's bins; no bins at all where one of them has no values."""
    if reference.count == 0 or window.count == 0:
        return np.zeros(0), np.zeros(0)
    if isinstance(reference, NumericalSummary) and isinstance(window, NumericalSummary):
        one, other = sketches.from_text(reference.quantiles), sketches.from_text(window.quantiles)
        edges = sorted(set(one.get_quantiles(_DECILES, inclusive=True)))
        return _counts(one, edges), _counts(other, edges)
    if isinstance(reference, CategoricalSummary) and isinstance(window, CategoricalSummary):
        names = sorted(reference.counts.keys() | window.counts.keys())
        return _named(reference, names), _named(window, names)
    raise TypeError(f"a {reference.type} reference cannot be compared with a {window.type} window; build it anew")


def _counts(sketch: Any, edges: list[float]) -> Shares:
    shares: Shares = np.diff(np.asarray(sketch.get_cdf(edges, inclusive=True)), prepend=0.0)
    return shares * float(sketch.n)


def _named(summary: CategoricalSummary, names: list[str]) -> Shares:
    return np.array([summary.counts.get(name, 0) for name in names] + [summary.unseen], dtype=np.float64)


def _smoothed(counts: Shares) -> Shares:
    raised = counts + _PRIOR
    return raised / raised.sum() if len(counts) else counts


def _relative_entropy(p: Shares, q: Shares) -> float:
    present = p > 0
    return float(np.sum(p[present] * np.log2(p[present] / q[present])))


def _largest_difference(one: Any, other: Any) -> float:
    if one.is_empty() or other.is_empty():
        return 0.0
    points = sorted({*one.get_quantiles(_GRID, inclusive=True), *other.get_quantiles(_GRID, inclusive=True)})
    return float(
        np.abs(
            np.asarray(one.get_cdf(points, inclusive=True)) - np.asarray(other.get_cdf(points, inclusive=True))
        ).max()
    )
