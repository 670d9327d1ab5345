"""Columns folded into mergeable summaries.

A fold takes a column's values batch by batch, in one vectorised pass each, and gives a `ColumnSummary` whenever asked.
Summaries of disjoint parts merge into the summary of the whole, in any order and grouping: counts exactly, mean and
squared deviations to rounding, quantiles within the sketch's bound. A fold goes on from a summary where another
stopped. NaN, infinities and None count as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, FrequentValue, NumericalSummary
from tailrace_contracts.spec import CategoricalFeature, Feature, Limits, NumericalFeature
from tailrace_statistics import distinct, sketches
from tailrace_statistics.frequent import Frequent

LARGEST = 1e100
"""Mean and squared deviations are of the values cut at this size, so that no square overflows."""

UNSEEN_KEPT = 100
"""Unseen values that are counted by name: the first so many in the order of text. All are counted in `unseen`."""

UNSEEN_LENGTH = 64
"""Unseen values are named by at most this many characters."""

_NO_LIMITS = Limits()

Numbers = npt.NDArray[np.float64] | Sequence[float | None]


class NumericalFold:
    """Folds a numerical column.

    `counting=False` leaves out distinct and frequent values, which no distance needs: then nothing has to be sorted, and a
    column folds twice as fast.
    """

    def __init__(self, limits: Limits | None = None, *, counting: bool = True) -> None:
        self._limits = limits or _NO_LIMITS
        self._counting = counting
        self._missing = 0
        self._out_of_limits = 0
        self._moments = Moments()
        self._minimum: float | None = None
        self._maximum: float | None = None
        self._sketch = sketches.empty()
        self._distinct = distinct.empty()
        self._frequent = Frequent()

    @classmethod
    def from_summary(cls, summary: NumericalSummary, limits: Limits | None = None) -> NumericalFold:
        """A fold that goes on where the summary stopped. Raises SketchInvalid for damaged quantiles."""
        fold = cls(limits)
        fold._missing = summary.missing
        fold._out_of_limits = summary.out_of_limits
        fold._moments = Moments(summary.count, summary.mean, summary.m2)
        fold._minimum, fold._maximum = summary.minimum, summary.maximum
        fold._sketch = sketches.from_text(summary.quantiles)
        fold._distinct = distinct.from_text(summary.distinct)
        fold._frequent = Frequent(_counts(summary.frequent), summary.frequent_error)
        return fold

    def fold(self, values: Numbers) -> None:
        """Add a batch: float64 with NaN, or a list with None, where a value is missing."""
        column = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(column)
        present = column if finite.all() else column[finite]
        self._missing += len(column) - len(present)
        if not len(present):
            return
        if self._counting:
            present = np.sort(present)
        ends = (present[0], present[-1]) if self._counting else (present.min(), present.max())
        least, most = float(ends[0]), float(ends[1])
        self._minimum = _least(self._minimum, least)
        self._maximum = _most(self._maximum, most)
        self._out_of_limits += self._outside(present, least, most)
        cut = present if least >= -LARGEST and most <= LARGEST else present.clip(-LARGEST, LARGEST)
        self._moments = self._moments + Moments.of(cut)
        sketches.fold(self._sketch, present)
        if self._counting:
            distinct.fold(self._distinct, distinct.hashed(present))
            self._frequent.fold(present)

    def merge(self, part: ColumnSummary) -> None:
        """Add the summary of another part of the column. Raises TypeError, or SketchInvalid for damaged quantiles."""
        if not isinstance(part, NumericalSummary):
            raise _two_types("numerical", part.type)
        self._missing += part.missing
        self._out_of_limits += part.out_of_limits
        self._moments = self._moments + Moments(part.count, part.mean, part.m2)
        self._minimum = _least(self._minimum, part.minimum)
        self._maximum = _most(self._maximum, part.maximum)
        if part.quantiles:
            self._sketch.merge(sketches.from_text(part.quantiles))
        if part.distinct:
            np.maximum(self._distinct, distinct.from_text(part.distinct), out=self._distinct)
        self._frequent.merge(_counts(part.frequent), part.frequent_error)

    def _outside(self, present: npt.NDArray[np.float64], least: float, most: float) -> int:
        low, high = self._limits.min, self._limits.max
        if least >= low and most <= high:
            return 0
        return int(np.count_nonzero((present < low) | (present > high)))

    def summary(self) -> NumericalSummary:
        """The column so far."""
        return NumericalSummary.model_construct(
            count=self._moments.count,
            missing=self._missing,
            out_of_limits=self._out_of_limits,
            mean=self._moments.mean,
            m2=self._moments.m2,
            minimum=self._minimum,
            maximum=self._maximum,
            quantiles=sketches.to_text(self._sketch),
            distinct=distinct.to_text(self._distinct),
            frequent=tuple(
                FrequentValue.model_construct(value=value, count=count) for value, count in self._frequent.ordered()
            ),
            frequent_error=self._frequent.error,
        )


class CategoricalFold:
    """Folds a column of words out of a known list."""

    def __init__(self, categories: Collection[str]) -> None:
        self._categories = frozenset(categories)
        self._missing = 0
        self._counts: Counter[str] = Counter()
        self._unseen = 0
        self._unseen_counts: dict[str, int] = {}
        self._distinct = distinct.empty()

    @classmethod
    def from_summary(cls, summary: CategoricalSummary, categories: Collection[str] = ()) -> CategoricalFold:
        """A fold that goes on where the summary stopped."""
        fold = cls(categories)
        fold._missing = summary.missing
        fold._counts = Counter(summary.counts)
        fold._unseen = summary.unseen
        fold._unseen_counts = dict(summary.unseen_counts)
        fold._distinct = distinct.from_text(summary.distinct)
        return fold

    def fold(self, values: Iterable[str | None]) -> None:
        """Add a batch, with None where a value is missing."""
        counts = Counter(values)
        self._missing += counts.pop(None, 0)
        self.add({str(value): count for value, count in counts.items()})

    def add(self, counts: Mapping[str, int]) -> None:
        """Add words that were counted already."""
        unseen = counts.keys() - self._categories
        self._counts.update({value: count for value, count in counts.items() if value not in unseen})
        if not unseen:
            return
        named: dict[str, int] = {}
        for value in unseen:
            self._unseen += counts[value]
            named[value[:UNSEEN_LENGTH]] = named.get(value[:UNSEEN_LENGTH], 0) + counts[value]
        self._unseen_counts = _kept(self._unseen_counts, named)
        distinct.fold(self._distinct, distinct.hashed_words(unseen))

    def merge(self, part: ColumnSummary) -> None:
        """Add the summary of another part of the column. Raises TypeError."""
        if not isinstance(part, CategoricalSummary):
            raise _two_types("categorical", part.type)
        self._missing += part.missing
        self._counts.update(part.counts)
        self._unseen += part.unseen
        self._unseen_counts = _kept(self._unseen_counts, part.unseen_counts)
        if part.distinct:
            np.maximum(self._distinct, distinct.from_text(part.distinct), out=self._distinct)

    def summary(self) -> CategoricalSummary:
        """The column so far."""
        return CategoricalSummary(
            count=self._counts.total() + self._unseen,
            missing=self._missing,
            unseen=self._unseen,
            counts=dict(sorted(self._counts.items())),
            unseen_counts=self._unseen_counts,
            distinct=distinct.to_text(self._distinct),
        )


Fold = NumericalFold | CategoricalFold


def fold_for(feature: Feature) -> Fold:
    """An empty fold for a feature of a spec."""
    if isinstance(feature, CategoricalFeature):
        return CategoricalFold(feature.categories)
    return NumericalFold(feature.limits)


def resume_fold(feature: Feature, summary: ColumnSummary) -> Fold:
    """A fold for a feature that goes on where the summary stopped. Raises TypeError where they are of two types."""
    if isinstance(feature, CategoricalFeature) and isinstance(summary, CategoricalSummary):
        return CategoricalFold.from_summary(summary, feature.categories)
    if isinstance(feature, NumericalFeature) and isinstance(summary, NumericalSummary):
        return NumericalFold.from_summary(summary, feature.limits)
    raise _two_types(feature.type, summary.type)


@overload
def merge(a: NumericalSummary, b: NumericalSummary) -> NumericalSummary: ...
@overload
def merge(a: CategoricalSummary, b: CategoricalSummary) -> CategoricalSummary: ...
@overload
def merge(a: ColumnSummary, b: ColumnSummary) -> ColumnSummary: ...
def merge(a: ColumnSummary, b: ColumnSummary) -> ColumnSummary:
    """The summary of two disjoint parts of a column. Raises TypeError where they are of two types."""
    return merge_all((a, b))


def merge_all(parts: Iterable[ColumnSummary]) -> ColumnSummary:
    """The summary of one or more disjoint parts of a column; quicker than merging two by two.

    Raises TypeError where they are of two types, and ValueError for no parts.
    """
    first, *others = parts
    whole: Fold = (
        NumericalFold.from_summary(first)
        if isinstance(first, NumericalSummary)
        else CategoricalFold.from_summary(first)
    )
    for part in others:
        whole.merge(part)
    return whole.summary()


def merge_columns(a: Mapping[str, ColumnSummary], b: Mapping[str, ColumnSummary]) -> dict[str, ColumnSummary]:
    """Two disjoint parts of a table, column by column; a column that one part lacks is taken from the other."""
    both = {name: merge(summary, b[name]) if name in b else summary for name, summary in a.items()}
    return both | {name: summary for name, summary in b.items() if name not in a}


def quantile(summary: NumericalSummary, ranks: Sequence[float]) -> list[float]:
    """The column's values at these ranks (0 to 1), within the sketch's bound; empty for an empty column."""
    sketch = sketches.from_text(summary.quantiles)
    return [] if sketch.is_empty() else [float(each) for each in sketch.get_quantiles(list(ranks), inclusive=True)]


def standard_deviation(summary: NumericalSummary) -> float:
    """The column's sample standard deviation; 0 for fewer than two values."""
    return float((summary.m2 / (summary.count - 1)) ** 0.5) if summary.count > 1 else 0.0


class Moments:
    """Count, mean and sum of squared deviations from the mean.

    They add by the pairwise update of Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise algorithm for
    computing sample variances", equations 2.1), of which Welford's (1962) is the case of one new value.
    """

    __slots__ = ("count", "m2", "mean")

    def __init__(self, count: int = 0, mean: float = 0.0, m2: float = 0.0) -> None:
        self.count, self.mean, self.m2 = count, mean, m2

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Moments:
        """The moments of a batch with at least one value."""
        mean = float(values.mean())
        deviations = values - mean
        deviations *= deviations  # not `@`: BLAS would wake its threads for it, and let them spin
        return cls(len(values), mean, float(deviations.sum()))

    def __add__(self, other: Moments) -> Moments:
        if not other.count:
            return self
        if not self.count:
            return other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        return Moments(count, mean, self.m2 + other.m2 + delta * delta * (self.count * other.count / count))


def distinct_values(summary: ColumnSummary) -> float:
    """How many different values a column had, give or take `DISTINCT_ERROR` of it (standard error).

    Of a categorical column: the categories that came, exactly, and the estimated number of different unseen words.
    """
    estimated = distinct.estimate(distinct.from_text(summary.distinct))
    if isinstance(summary, NumericalSummary):
        return estimated
    return estimated + sum(count > 0 for count in summary.counts.values())


def _counts(frequent: Iterable[FrequentValue]) -> dict[float, int]:
    return {float(each.value): each.count for each in frequent}


def _kept(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """The first of the unseen values in the order of text: a value among the first of the whole is so in every part."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted(a.keys() | b.keys())[:UNSEEN_KEPT]}


def _least(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else min(a, b)


def _most(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


def _two_types(one: str, other: str) -> TypeError:
    return TypeError(f"a {one} column cannot be joined with a {other} one; summarise the column anew for the new spec")
