"""Thresholds that keep one false-alarm budget: as many alerts as it allows, when nothing moves, over all tests together.

A model is tested in many ways in every window: the distance of each column, the share of its missing and of its unseen
values, the same within protected groups. Thresholds chosen one by one multiply false alarms, and how much depends on how
the columns move together. So the null distribution of all statistics jointly is simulated, from the reference:

1. **Resample rows.** A stand-in for the reference, of its size, and windows of the size at hand are drawn from the
   reference's row sample, whole rows, so that columns stay as dependent as they are. Both are drawn, because a window
   lies from its reference by the sampling error of both: drawing the windows only (the plain bootstrap) leaves out the
   reference's, by a factor of sqrt(1 + window/reference) in the distance. Drawing is by Poisson weights, whose counts
   are those of the multinomial bootstrap up to the total (Efron and Tibshirani 1993; Chamandy et al. 2012, "Estimating
   uncertainty for massive data streams"); small windows are drawn row by row.
2. **Add the sketch's error.** Windows come as KLL sketches. Its rank error does not depend on the values, only on their
   number: it is drawn from sketches of ranks, of the same size.
3. **Standardise.** Each statistic is turned into a score that is about normal, by the cube-root transformation of Wilson
   and Hilferty (1931) on its simulated mean, standard deviation and skewness, so that no test takes the budget of others.
4. **Take the maximum** over all tests (Westfall and Young 1993) and count alerts as monitoring does: a test alerts when
   it is over its threshold in k windows in a row and was not before; what alerts in one window is one alert. The level
   of the score at which a span of windows expects as many alerts as the budget says gives every test's threshold.
   Where simulated windows are too few for so rare an alert, the tail is a generalised Pareto distribution, fitted by
   moments (Hosking and Wallis 1987).

It holds for streams whose windows are exchangeable with the reference. A season that the reference has not seen, or that
lies in it whole while windows see a part, is drift to this test.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import datasketches
import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, FeatureValue, NumericalSummary
from tailrace_contracts.spec import DistanceKind
from tailrace_statistics import sketches
from tailrace_statistics.columns import CategoricalFold, NumericalFold
from tailrace_statistics.distances import Cells, missing_share, unseen_share

Group = tuple[str, str]
"""An attribute and one of its values."""

Statistic = DistanceKind | Literal["missing", "unseen"]
Matrix = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Values = npt.NDArray[np.float64] | list[FeatureValue]

MOST_PER_WINDOW = 0.05
"""However wide the budget, alerts of chance come in one window of 20 at most: with windows of a month, `1 per 30 days`
would else allow one in each."""

ROWS = 4_000
"""Large windows are drawn from at most so many of the reference's rows."""

DRAWN_ONE_BY_ONE = 4_096
"""Windows of at most so many events, and stand-ins for their reference, are drawn from all rows; larger ones and theirs from
`ROWS` of them. Few rows have too little of a long tail, which decides how far the means of small windows scatter. Both must
come from the same rows: else the luck of the fewer rows counts as distance."""

CELLS = 12_000_000
"""At most so many numbers in the matrix of rows and cells; with many columns fewer rows are drawn from."""

STEPS = 12
"""Simulated windows after each simulated reference."""

REFERENCES = 600
"""Simulated references."""

EXCEEDING = 100
"""With fewer simulated alerts than these, the tail is fitted."""

GROUP_ROWS = 100
"""A protected group with fewer of the reference's rows than that is not judged by itself."""

ENOUGH_ROWS = 5_000
"""So many rows of a numerical column say more of its distribution than its sketch, whose error stays the same for every
window that is measured against it; so do all of the reference's rows. Categories are counted exactly in any case."""

NEVER_SEEN = 0.02
"""The part of the budget for values that the reference has none of: it has nothing to resample for them."""

_BATCH = 40
_DRAWS = 400
_LONGEST = 100_000
_RANKS = np.arange(4097) / 4096


class Probe(NamedTuple):
    """One statistic of one column, of all rows or of one group's."""

    column: str
    statistic: Statistic
    attribute: str = ""
    group: str = ""

    def __str__(self) -> str:
        """For people: `AGEP`, `AGEP where SEX=1`."""
        return f"{self.column} where {self.attribute}={self.group}" if self.attribute else self.column


class Budget(NamedTuple):
    """How many alerts of chance are allowed in how many windows, and how many windows in a row make an alert."""

    alerts: float
    windows: float
    consecutive: int = 1

    @property
    def per_window(self) -> float:
        """Alerts allowed for each window."""
        return min(self.alerts / self.windows, MOST_PER_WINDOW)


@dataclass(frozen=True, slots=True)
class Block:
    """One column of the reference, of all rows or of one group's: where its counts stand, and what is tested.

    `drawn` is how many rows of all groups its reference was made of, `share` the group's part of them.
    """

    cells: Cells
    drawn: int
    share: float
    start: int
    tests: tuple[Probe, ...]
    members: npt.NDArray[np.bool_]

    @property
    def places(self) -> slice:
        """The columns of the matrix that count its cells; the one after them counts missing values."""
        return slice(self.start, self.start + self.cells.size)


class Yardstick:
    """A reference that windows are measured against, and from whose rows thresholds are calibrated."""

    def __init__(
        self,
        columns: Mapping[str, ColumnSummary],
        rows: Mapping[str, Values],
        kinds: Mapping[str, DistanceKind],
        attributes: Collection[str] = (),
    ) -> None:
        """`columns` are the reference's, `rows` a sample of its rows, by column; `kinds` the distance of each column.

        Columns without rows take no part. Groups of the attributes with at least `GROUP_ROWS` of the rows are judged too;
        their references are made from these rows.
        """
        self._rows = rows
        self._blocks: list[Block] = []
        self._known: dict[tuple[int, Budget, int], dict[Probe, float]] = {}
        size = max((len(values) for values in rows.values()), default=0)
        everyone = np.ones(size, dtype=bool)
        judged = {name: each for name, each in columns.items() if name in rows and name in kinds and each.count}
        for name, summary in judged.items():
            self._add(name, kinds[name], summary, ("", ""), everyone)
        for attribute, group, members in _groups(rows, [each for each in attributes if each in judged]):
            for name, summary in judged.items():
                part = _summary(summary, _taken(rows[name], np.flatnonzero(members)))
                if name != attribute and part.count:
                    self._add(name, kinds[name], part, (attribute, group), members)
        most = min(ROWS, CELLS // max(self._width, 1))
        self._kept = np.arange(size) if size <= most else np.linspace(0, size - 1, most).astype(int)

    def _add(
        self,
        name: str,
        kind: DistanceKind,
        summary: ColumnSummary,
        group: tuple[str, str],
        members: npt.NDArray[np.bool_],
    ) -> None:
        statistics: list[Statistic] = [kind, "missing"]
        if isinstance(summary, CategoricalSummary):
            statistics.append("unseen")
        tests = tuple(Probe(name, statistic, group[0], group[1]) for statistic in statistics)
        cells, share, rows = Cells.of(summary), float(members.mean()), int(members.sum())
        size = summary.count + summary.missing
        if cells.is_numerical and (rows >= size or rows >= ENOUGH_ROWS):
            cells, size = cells.from_rows(_taken(self._rows[name], np.flatnonzero(members))), rows
        self._blocks.append(Block(cells, round(size / share), share, self._width, tests, members))

    @property
    def _width(self) -> int:
        last = self._blocks[-1] if self._blocks else None
        return last.start + last.cells.size + 1 if last else 0

    def measure(
        self, columns: Mapping[str, ColumnSummary], groups: Mapping[Group, Mapping[str, ColumnSummary]] | None = None
    ) -> dict[Probe, float]:
        """A window's statistics; only of columns and groups that it has."""
        parts = {("", ""): columns, **(groups or {})}
        found: dict[Probe, float] = {}
        for block in self._blocks:
            one = block.tests[0]
            summary = parts.get((one.attribute, one.group), {}).get(one.column)
            if summary is not None and summary.type == block.cells.reference.type:
                found.update((test, _measured(block.cells, test.statistic, summary)) for test in block.tests)
        return found

    def expected(self, events: int) -> dict[Group, float]:
        """How many events of a window of so many belong to each group; the group `("", "")` is everyone."""
        return {(block.tests[0].attribute, block.tests[0].group): block.share * events for block in self._blocks}

    def limits(self, events: int, budget: Budget, least: int = 1) -> dict[Probe, float]:
        """The thresholds of windows of so many events; of groups only those of which at least `least` are expected.

        They are calibrated at the two powers of two around, once, and interpolated: on logarithmic scales all
        distances are about straight lines in the number of events.
        """
        power = math.log2(max(events, 2))
        low = math.floor(power)
        below = self._calibrated(2**low, 2**low, budget, least)
        part = power - low
        if part == 0:
            return below
        above = self._calibrated(2 ** (low + 1), 2**low, budget, least)
        return {
            test: math.exp((1 - part) * math.log(max(limit, 1e-12)) + part * math.log(max(above[test], 1e-12)))
            for test, limit in below.items()
        }

    def _calibrated(self, events: int, smallest: int, budget: Budget, least: int) -> dict[Probe, float]:
        judged = [block for block in self._blocks if not block.tests[0].attribute or block.share * smallest >= least]
        key = events, budget, len(judged)
        if key not in self._known:
            self._known[key] = self.thresholds(events, budget, judged=judged)
        return self._known[key]

    def thresholds(
        self, events: int, budget: Budget, seed: int = 0, judged: Sequence[Block] | None = None
    ) -> dict[Probe, float]:
        """What each test may reach in windows of so many events, calibrated.

        The same arguments give the same thresholds, but for the sketches' own coins, which nobody can set.
        """
        blocks = self._blocks if judged is None else judged
        if not blocks:
            return {}
        simulated = self.simulate(events, np.random.default_rng([seed, events]), blocks)
        tests = [test for block in blocks for test in block.tests]
        shapes = [_Shape.of(simulated[..., place].ravel()) for place in range(len(tests))]
        level = _level(np.stack([shape.score(simulated[..., at]) for at, shape in enumerate(shapes)], axis=-1), budget)
        found = {test: shape.value(level) for test, shape in zip(tests, shapes, strict=True) if shape.deviation}
        never = [(block, test) for block in blocks for test in block.tests if test not in found]
        chance = NEVER_SEEN * budget.per_window / max(len(never), 1)
        return found | {test: _of_the_new(block, test.statistic, events, chance) for block, test in never}

    def simulate(self, events: int, random: np.random.Generator, blocks: Sequence[Block]) -> Matrix:
        """Every statistic of windows without drift: of shape (references, windows, tests)."""
        draws = self._drawn_one_by_one if events <= DRAWN_ONE_BY_ONE else self._drawn_by_weight
        drawn = draws(random, blocks)
        found = np.empty((REFERENCES, STEPS, sum(len(block.tests) for block in blocks)))
        for start in range(0, REFERENCES, _BATCH):
            count = min(_BATCH, REFERENCES - start)
            windows = drawn(events, count * STEPS).reshape(count, STEPS, -1)
            sizes = {block.drawn for block in blocks}
            stand_ins = {size: drawn(size, count)[:, None, :] for size in sorted(sizes)}
            each = (test for block in blocks for test in _statistics(block, stand_ins[block.drawn], windows, random))
            for place, statistic in enumerate(each):
                found[start : start + count, :, place] = statistic
        return found

    def _drawn_one_by_one(self, random: np.random.Generator, blocks: Sequence[Block]) -> Callable[[int, int], Floats]:
        """The counts in the cells of these blocks, of so many samples of so many of all rows."""
        codes = self._codes(blocks)
        flat, width = codes.ravel(), self._width + 1

        def counts(size: int, count: int) -> Floats:
            found = np.empty((count, width))
            for number in range(count):
                if size <= DRAWN_ONE_BY_ONE:
                    rows = random.integers(0, len(codes), size)
                    found[number] = np.bincount(codes.take(rows, axis=0).ravel(), minlength=width)
                else:
                    weights = np.repeat(_times(random, len(codes), size), codes.shape[1])
                    found[number] = np.bincount(flat, weights, minlength=width)
            return found[:, :-1]

        return counts

    def _drawn_by_weight(self, random: np.random.Generator, blocks: Sequence[Block]) -> Callable[[int, int], Floats]:
        """The same of so many rows, drawn from `ROWS` of them by a matrix product."""
        matrix = self._matrix(blocks)

        def counts(size: int, count: int) -> Floats:
            weights = random.poisson(size / len(matrix), size=(count, len(matrix))).astype(np.float32)
            return np.asarray(weights @ matrix)

        return counts

    def _codes(self, blocks: Sequence[Block]) -> npt.NDArray[np.int64]:
        """For every row, where it counts in each block; beyond all places where it does not belong to the group."""
        found = np.full((len(blocks[0].members), len(blocks)), self._width)
        for number, block in enumerate(blocks):
            codes = block.cells.codes(self._rows[block.tests[0].column])
            codes = np.where(codes < 0, block.cells.size, codes) + block.start
            found[:, number] = np.where(block.members, codes, self._width)
        return found

    def _matrix(self, blocks: Sequence[Block]) -> npt.NDArray[np.float32]:
        """Rows by cells and missing values: one where a row counts."""
        matrix = np.zeros((len(self._kept), self._width), dtype=np.float32)
        lines = np.arange(len(self._kept))
        for block in blocks:
            codes = block.cells.codes(_taken(self._rows[block.tests[0].column], self._kept))
            codes = np.where(codes < 0, block.cells.size, codes)
            present = lines[block.members[self._kept]]
            matrix[present, block.start + codes[present]] = 1.0
        return matrix


def _of_the_new(block: Block, statistic: Statistic, events: int, chance: float) -> float:
    """The threshold of a test of what the reference has none of: missing or unseen values, or another value at all.

    A rate of one half in all of the reference's rows (Jeffreys' prior) gives more than so many in a window with at most
    this chance, by the Poisson distribution; the threshold is the statistic at that number.
    """
    mean = events * 0.5 / max(block.drawn, 1)
    term = math.exp(-mean)
    beyond, number = 1.0 - term, 0
    while beyond > chance and number < events:
        number += 1
        term *= mean / number
        beyond -= term
    share = min(number / max(events, 1), 1.0)
    if statistic == "missing":
        return share + 1e-9
    if statistic == "unseen":
        return share + 1e-9
    reference = block.cells.own
    moved = reference / max(float(reference.sum()), 1.0) * events * (1 - share)
    moved[-1] += events * share
    return float(block.cells.between(statistic, reference, moved)) + 1e-9


def _groups(rows: Mapping[str, Values], attributes: Sequence[str]) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """The groups that are large enough, with who belongs to them."""
    for attribute in attributes:
        names = np.array(["" if value is None else str(value) for value in rows[attribute]])
        for name, count in zip(*np.unique(names, return_counts=True), strict=True):
            if name and count >= GROUP_ROWS:
                yield attribute, str(name), names == name


def _summary(whole: ColumnSummary, values: Values) -> ColumnSummary:
    """The summary of a part of a column's rows."""
    if isinstance(whole, NumericalSummary):
        numbers = NumericalFold(counting=False)
        numbers.fold(np.asarray(values, dtype=np.float64))
        return numbers.summary()
    words = CategoricalFold(whole.counts)
    words.fold(None if value is None else str(value) for value in values)
    return words.summary()


def independent_rows(columns: Mapping[str, ColumnSummary], size: int = ROWS) -> dict[str, Values]:
    """Rows that a reference without a row sample may have had: each column as it is, and all independent.

    The maximum over independent tests is larger than over dependent ones, so there are fewer false alarms, not more.
    """
    random = np.random.default_rng(size)
    return {name: _drawn(summary, size, random) for name, summary in columns.items() if summary.count}


def _drawn(summary: ColumnSummary, size: int, random: np.random.Generator) -> Values:
    present = random.random(size) >= missing_share(summary)
    if isinstance(summary, NumericalSummary):
        ranks = random.permutation((np.arange(size) + 0.5) / size)
        values = np.asarray(sketches.from_text(summary.quantiles).get_quantiles(ranks, inclusive=True), dtype=float)
        return np.where(present, values, np.nan)
    words: list[FeatureValue] = [*summary.counts, ""]
    counts = np.array([*summary.counts.values(), summary.unseen], dtype=np.float64)
    chosen = random.choice(len(words), size=size, p=counts / counts.sum())
    return [words[place] if there else None for place, there in zip(chosen, present, strict=True)]


def _taken(values: Values, kept: npt.NDArray[np.int64]) -> Values:
    return values[kept] if isinstance(values, np.ndarray) else [values[index] for index in kept]


def _times(random: np.random.Generator, rows: int, size: int) -> npt.NDArray[np.int64]:
    """How often each of the rows comes in a sample of so many; of about so many where that is much cheaper."""
    if size <= 4 * rows:
        return np.bincount(random.integers(0, rows, size), minlength=rows)
    return random.poisson(size / rows, rows)


def _measured(cells: Cells, statistic: Statistic, window: ColumnSummary) -> float:
    if statistic == "missing":
        return abs(missing_share(window) - missing_share(cells.reference))
    if statistic == "unseen":
        return abs(unseen_share(window) - unseen_share(cells.reference))
    return cells.distance(statistic, window)


def _statistics(block: Block, reference: Floats, window: Floats, random: np.random.Generator) -> Iterator[Matrix]:
    """Every test of a column, from counts of shape (..., cells)."""
    cells = block.cells
    one, other = (counts[..., block.places].astype(np.float64) for counts in (reference, window))
    gone, absent = (counts[..., block.start + cells.size] for counts in (reference, window))
    for test in block.tests:
        if test.statistic == "missing":
            yield np.abs(_share(gone, gone + one.sum(-1)) - _share(absent, absent + other.sum(-1)))
        elif test.statistic == "unseen":
            yield np.abs(_share(one[..., -1], one.sum(-1)) - _share(other[..., -1], other.sum(-1)))
        elif cells.is_numerical:
            blurred = _sketched(one, random) if cells.exact is None else one
            yield cells.between(test.statistic, blurred, _sketched(other, random))
        else:
            yield cells.between(test.statistic, one, other)


def _share(part: Floats, whole: Floats) -> Matrix:
    return np.asarray(part / np.maximum(whole, 1.0), dtype=np.float64)


def _sketched(counts: Matrix, random: np.random.Generator) -> Matrix:
    """Counts in cells as KLL sketches of these values would give them back."""
    total = counts.sum(axis=-1, keepdims=True)
    largest = int(total.max(initial=0))
    if largest <= sketches.K:
        return counts
    errors = _errors(min(int(2 ** (round(4 * math.log2(largest)) / 4)), _LONGEST))
    which = random.integers(len(errors), size=(*counts.shape[:-1], 1))
    cdf = np.cumsum(counts, axis=-1) / np.maximum(total, 1.0)
    cdf += errors[which, (cdf * (len(_RANKS) - 1)).astype(np.int32)]
    sketched = np.clip(np.maximum.accumulate(cdf, axis=-1), 0.0, 1.0)
    return np.asarray(np.diff(sketched, axis=-1, prepend=0.0) * total)


@functools.lru_cache(maxsize=32)
def _errors(size: int) -> Matrix:
    """Rank errors of sketches of so many values, of shape (draws, ranks)."""
    random = np.random.default_rng(size)
    ranks = (np.arange(size) + 0.5) / size
    found = np.empty((_DRAWS, len(_RANKS)))
    for draw in range(_DRAWS):
        sketch = datasketches.kll_floats_sketch(sketches.K)
        sketch.update(random.permutation(ranks).astype(np.float32))
        found[draw] = np.asarray(sketch.get_cdf(_RANKS, inclusive=True))[:-1] - _RANKS
    return found


class _Shape(NamedTuple):
    """The null distribution of one statistic, by its moments."""

    mean: float
    deviation: float
    skewness: float

    @classmethod
    def of(cls, values: Matrix) -> _Shape:
        mean, deviation = float(values.mean()), float(values.std())
        if deviation <= 1e-9:
            return cls(mean, 0.0, 0.0)
        skewness = float(np.mean(((values - mean) / deviation) ** 3))
        return cls(mean, deviation, min(max(skewness, 0.05), 4.0))

    def score(self, values: Matrix) -> Matrix:
        """About normal: with standardised x and skewness g, (6/g) (cbrt(g x / 2 + 1) - 1) + g/6."""
        if not self.deviation:
            return np.zeros_like(values)
        g, x = self.skewness, (values - self.mean) / self.deviation
        return (6 / g) * (np.cbrt(g * x / 2 + 1) - 1) + g / 6

    def value(self, score: float) -> float:
        """The value of the statistic that has this score."""
        if not self.deviation:
            return self.mean + 1e-9
        g = self.skewness
        return self.mean + self.deviation * (((score - g / 6) * g / 6 + 1) ** 3 - 1) * 2 / g


def _rate(scores: Matrix, level: float, budget: Budget) -> float:
    """Alerts per window over a span that begins with a new reference, when every test alerts beyond this level."""
    over = scores > level
    k = budget.consecutive
    streaks = np.logical_and.reduce([over[:, step : over.shape[1] - k + 1 + step] for step in range(k)])
    first = float(streaks[:, 0].any(axis=-1).mean())
    later = float((streaks[:, 1:] & ~over[:, : over.shape[1] - k]).any(axis=-1).mean())
    windows = max(budget.windows, float(k))
    return (first + (windows - k) * later) / windows


def _level(scores: Matrix, budget: Budget) -> float:
    """The level of the score at which the budget's rate of alerts is met."""
    k = budget.consecutive
    held = np.minimum.reduce([scores[:, step : scores.shape[1] - k + 1 + step] for step in range(k)]).max(axis=-1)
    highest = np.sort(held.ravel())[::-1]
    wanted = budget.per_window
    if wanted * len(highest) < EXCEEDING:
        return _tail(highest, wanted)
    low, high = float(highest[min(int(4 * wanted * len(highest)), len(highest) // 2)]), float(highest[0])
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _rate(scores, middle, budget) > wanted else (low, middle)
    return (low + high) / 2


def _tail(highest: Matrix, wanted: float) -> float:
    """The level that a share `wanted` of windows exceeds, by a generalised Pareto tail of the highest five per cent."""
    count = max(len(highest) // 20, 2)
    threshold = float(highest[count])
    excess = highest[:count] - threshold
    mean, variance = float(excess.mean()), max(float(excess.var()), 1e-12)
    shape = min((1 - mean * mean / variance) / 2, 0.3)
    scale = mean * (1 - shape)
    share = count / len(highest)
    if abs(shape) < 1e-6:
        return threshold + scale * math.log(share / wanted)
    return float(threshold + scale / shape * ((share / wanted) ** shape - 1))
