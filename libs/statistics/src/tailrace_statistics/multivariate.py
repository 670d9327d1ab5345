"""Rows of two samples as one matrix, and whether a classifier can tell them apart: drift that no single column shows.

The classifier two-sample test (Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests"): a classifier learns
on one half of both samples to tell which a row is from; on the other half its scores are ranked. If both samples come from
one distribution every order is equally likely, *whatever* the classifier learned, because it never saw these rows. So the AUC on
that half has the known distribution of Mann and Whitney (1947), which is that of all permutations of the samples' names:
the test is calibrated by theory, without one refit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import CategoricalFeature, Feature

Array = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, FeatureValue]]

MOST_CATEGORIES = 250
"""Features with more categories are ranked by the spec's order of them, rather than taken as categories."""


class Table(NamedTuple):
    """Rows as numbers: categories by their place in the spec; NaN where missing or unseen. `categorical` by column."""

    values: Array
    categorical: npt.NDArray[np.bool_]


def table(rows: Rows, features: Sequence[Feature]) -> Table:
    """Rows of a spec's features, one column for each."""
    columns = {feature.name: [row.get(feature.name) for row in rows] for feature in features}
    return table_of_columns(columns, features, len(rows))


def table_of_columns(
    columns: Mapping[str, Array | Sequence[FeatureValue]], features: Sequence[Feature], most: int
) -> Table:
    """The same from columns of one length: at most so many rows, evenly spread. A column that is not there is missing."""
    length = max((len(values) for values in columns.values()), default=0)
    kept = np.arange(length) if length <= most else np.linspace(0, length - 1, most).astype(int)
    values = np.full((len(kept), len(features)), np.nan)
    for place, feature in enumerate(features):
        if feature.name in columns:
            column = columns[feature.name]
            values[:, place] = _numbers([column[row] for row in kept], feature)
    return Table(values, np.array([_is_categorical(feature) for feature in features], dtype=np.bool_))


def _numbers(values: Sequence[FeatureValue], feature: Feature) -> list[float]:
    words = feature.categories if isinstance(feature, CategoricalFeature) else None
    places = None if words is None else {word: place for place, word in enumerate(words)}
    return [_number(value, places) for value in values]


def _is_categorical(feature: Feature) -> bool:
    return isinstance(feature, CategoricalFeature) and len(feature.categories) <= MOST_CATEGORIES


def _number(value: FeatureValue, places: Mapping[str, int] | None) -> float:
    if places is not None:
        place = places.get(value) if isinstance(value, str) else None
        return math.nan if place is None else float(place)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


class Apart(NamedTuple):
    """How well two samples can be told apart: the AUC on rows that the classifier never saw.

    `deviation` is its standard deviation about 0.5 if nothing has changed, `score` how many of them it lies above.
    """

    auc: float
    deviation: float

    @property
    def score(self) -> float:
        """The standard score."""
        return (self.auc - 0.5) / self.deviation if self.deviation else 0.0


def apart(one: Array, other: Array) -> Apart:
    """The AUC of scores (higher: more like `other`), standardised by its mean and deviation over all permutations.

    With ties: each counts half, and the variance is that of Mann and Whitney's U with Noether's correction. For samples
    of more than about 20 the score is standard normal if nothing has changed.
    """
    n, m = len(one), len(other)
    if not n or not m:
        return Apart(0.5, 0.0)
    _, place, counts = np.unique(np.concatenate([one, other]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    auc = (float(ranks[n:].sum()) - m * (m + 1) / 2) / (n * m)
    size = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (size * (size - 1))
    variance = (size + 1 - ties) / (12 * n * m)
    return Apart(auc, math.sqrt(max(variance, 0.0)))


def critical(chance: float) -> float:
    """The standard score that is passed with this chance if nothing has changed."""
    return NormalDist().inv_cdf(1 - chance)


def halves(count: int, chance: np.random.Generator) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Two halves of so many rows, at random."""
    order = chance.permutation(count)
    return order[: count // 2], order[count // 2 :]
