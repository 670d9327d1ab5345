"""The rules by which two other systems would call a window drifted, written anew from their documentation and source.

Radicalbit AI Monitoring (Apache-2.0, commit aad9727 of 2025-12-16): the default methods of a feature are those of
`ColumnDefinition.get_default_drift_methods` in api/app/models/model_dto.py, as each is computed under spark/jobs/metrics;
there is no test across features, a feature that any method finds drifted is shown so. Two things are exact here that Spark
approximates: the quantiles of the ten buckets, and Kolmogorov-Smirnov's statistic.

Evidently (Apache-2.0, version 0.7): `_get_default_stattest` in evidently/legacy/calculations/stattests/registry.py for
references of more than 1,000 rows. Its preset calls a data set drifted where half of its columns are.
`tests/benchmarks/evidently_peer.py` runs the package itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.spatial.distance import jensenshannon

Column = npt.NDArray[Any]
"""Numbers with NaN where missing; or places in a list of categories, -1 where missing."""

Table = Mapping[str, Column]


def radicalbit(reference: Table, window: Table) -> dict[str, bool]:
    """Which columns any of its default methods finds drifted."""
    return {name: _radicalbit(_present(column), _present(window[name])) for name, column in reference.items()}


def evidently(reference: Table, window: Table) -> dict[str, bool]:
    """Which columns its default test finds drifted; the reference has more than 1,000 rows."""
    return {name: _evidently(_present(column), _present(window[name])) for name, column in reference.items()}


def _present(column: Column) -> Column:
    kept: Column = column[~np.isnan(column)] if column.dtype.kind == "f" else column[column >= 0]
    return kept


def _evidently(reference: Column, window: Column) -> bool:
    if reference.dtype.kind == "f" and _values(reference, window, 6) > 5:
        norm = max(float(np.std(reference)), 0.001)
        return _apart(reference, window)[1] / norm >= 0.1
    return bool(jensenshannon(*_counted(reference, window)) >= 0.1)


def _radicalbit(reference: Column, window: Column) -> bool:
    if reference.dtype.kind != "f":
        r, w = _counted(reference, window)
        expected = r / r.sum() * w.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            chi = float(stats.chi2.sf(np.nansum((w - expected) ** 2 / expected), len(r) - 1))
        return chi <= 0.05 or _far(r / r.sum(), w / w.sum()) or _hellinger(r / r.sum(), w / w.sum()) > 0.1
    m, n = len(reference), len(window)
    critical = math.sqrt(-0.5 * math.log(0.05 / 2)) * math.sqrt((m + n) / (m * n))
    largest, area = _apart(reference, window)
    if largest > critical or area > 0.1 or _psi(reference, window) > 0.1:
        return True
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10))
    r, w = (
        np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        for each in (reference, window)
    )
    return _far(r / m, w / n) or _of_densities(reference, window) > 0.1


def _apart(reference: Column, window: Column) -> tuple[float, float]:
    """How far two distribution functions lie apart: at most, and the area between them.

    These are Kolmogorov-Smirnov's statistic and Wasserstein's distance as scipy has them, in one pass over both.
    """
    one, other = _sorted(reference), np.sort(window)
    at = np.searchsorted(one, other, side="right") + np.arange(len(other))
    of_window = np.zeros(len(one) + len(other), dtype=bool)
    of_window[at] = True
    both = np.empty(len(of_window))
    both[of_window], both[~of_window] = other, one
    gap = np.abs(np.cumsum(of_window) / len(other) - np.cumsum(~of_window) / len(one))[:-1]
    step = np.diff(both)
    return float(gap[step > 0].max(initial=0.0)), float(gap @ step)


def _sorted(values: Column) -> Column:
    return values if (values[1:] >= values[:-1]).all() else np.sort(values)


def _values(reference: Column, window: Column, most: int) -> int:
    """How many different values both have together, or at least `most`."""
    few = len(np.unique(window))
    return few if few >= most else len(np.unique(np.concatenate((reference, window))))


def _counted(reference: Column, window: Column) -> tuple[Column, Column]:
    """Counts of every value that one of the two has."""
    if reference.dtype.kind == "i":
        size = int(max(reference.max(), window.max())) + 1
        r, w = (np.bincount(each, minlength=size).astype(float) for each in (reference, window))
        return r[r + w > 0], w[r + w > 0]
    values, places = np.unique(np.concatenate((reference, window)), return_inverse=True)
    r, w = (np.bincount(each, minlength=len(values)).astype(float) for each in np.split(places, [len(reference)]))
    return r, w


def _far(r: Column, w: Column) -> bool:
    """Jensen-Shannon (natural logarithm), or Kullback-Leibler where the window fills every bucket, over 0.1."""
    divergence = float(np.sum(stats.entropy(r, w))) if (w > 0).all() and (r > 0).all() else 0.0
    return bool(jensenshannon(r, w) > 0.1 or divergence > 0.1)


def _hellinger(r: Column, w: Column) -> float:
    return math.sqrt(0.5 * float(np.sum((np.sqrt(r) - np.sqrt(w)) ** 2)))


def _psi(reference: Column, window: Column) -> float:
    if _values(reference, window, 10) < 10:
        both = np.unique(np.concatenate((reference, window)))
        edges = np.append(both, both[-1] + 1)
    else:
        edges = np.linspace(min(reference.min(), window.min()), max(reference.max(), window.max()), 11)
    r, w = (np.maximum(np.histogram(each, edges)[0] / len(each), 0.0) for each in (reference, window))
    r, w = np.where(r == 0, 0.0001, r), np.where(w == 0, 0.0001, w)
    return float(np.sum((r - w) * np.log(r / w)))


def _of_densities(reference: Column, window: Column) -> float:
    """Hellinger's distance of two kernel density estimates at as many points as Sturges' rule gives the reference."""
    points = math.ceil(math.log2(len(reference)) + 1)
    (x, p), (y, q) = _density_once(reference.tobytes(), points), _density(window, points)
    common = np.linspace(min(x[0], y[0]), max(x[-1], y[-1]), points)
    return _hellinger(np.interp(common, x, p), np.interp(common, y, q))


@functools.lru_cache(maxsize=64)
def _density_once(values: bytes, points: int) -> tuple[Column, Column]:
    """That of a reference, whose many windows are measured one after the other."""
    return _density(np.frombuffer(values), points)


def _density(values: Column, points: int) -> tuple[Column, Column]:
    if np.ptp(values) == 0:
        return np.full(points, values[0], dtype=float), np.full(points, 1 / points)
    at = np.linspace(values.min(), values.max(), points)
    density = stats.gaussian_kde(values).evaluate(at)
    return at, density / density.sum()
