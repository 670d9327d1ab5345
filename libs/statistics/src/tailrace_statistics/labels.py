"""The labels of a cohort as a column: mergeable statistics, from which a corrected label can be taken back.

Of classes they are counts, which subtract. Of numbers they are two quantile sketches, of the labels that came and of those
that corrections took back: neither forgets, and the distribution of what stands is the difference of the two, (n F - m G) /
(n - m). Its ranks are wrong by `RANK_ERROR` times (n + m) / (n - m), and by one `RANK_ERROR` more where anything was
taken back, because the difference is sketched again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from tailrace_contracts.events import CategoricalSummary, FeatureValue, NumericalSummary
from tailrace_statistics import sketches
from tailrace_statistics.errors import ErrorSums

NEWEST = 256
"""So many labels wait beside the sketch before they go into it together: to read and write it costs as much for one."""

_POINTS = np.arange(4097) / 4096


class Sketched(BaseModel):
    """Numbers in a sketch, and the newest of them beside it."""

    quantiles: str = ""
    newest: list[float] = []

    def add(self, value: float) -> None:
        """One more number."""
        self.newest.append(value)
        if len(self.newest) >= NEWEST:
            self.quantiles, self.newest = sketches.to_text(self.sketch()), []

    def sketch(self) -> sketches.Sketch:
        """All of them."""
        whole = sketches.from_text(self.quantiles)
        sketches.fold(whole, np.array(self.newest, dtype=np.float64))
        return whole


class LabelSketch(BaseModel):
    """The labels of a regression: those that came, and those that were taken back."""

    came: Sketched = Sketched()
    gone: Sketched = Sketched()

    def count(self, label: float, by: int) -> None:
        """Count one label; -1 takes one back."""
        (self.came if by > 0 else self.gone).add(label)

    def column(self, sums: ErrorSums) -> NumericalSummary:
        """The labels that stand, which were summed as errors against 0; no values where not all of them were sketched."""
        came, gone = self.came.sketch(), self.gone.sketch()
        count = max(sums.examples, 0)
        if not count or came.n - gone.n != count:
            return NumericalSummary()
        whole = came if gone.is_empty() else _difference(came, gone)
        squares = max(sums.squared - count * sums.bias**2, 0.0)
        return NumericalSummary(count=count, mean=sums.bias, m2=squares, quantiles=sketches.to_text(whole))


def _difference(came: sketches.Sketch, gone: sketches.Sketch) -> sketches.Sketch:
    points = np.unique(came.get_quantiles(_POINTS.tolist(), inclusive=True)).astype(np.float32)
    n, m = float(came.n), float(gone.n)
    left = n * _below(came, points) - m * _below(gone, points)
    ranks = np.round(np.clip(np.maximum.accumulate(left), 0.0, n - m)).astype(np.int64)
    ranks[-1] = int(n - m)
    whole = sketches.empty()
    sketches.fold(whole, np.repeat(points, np.diff(ranks, prepend=0)).astype(np.float64))
    return whole


def _below(sketch: sketches.Sketch, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(sketch.get_cdf(points, inclusive=True), dtype=np.float64)[:-1]


def column_of_classes(positives: int, count: int) -> CategoricalSummary:
    """The labels of two classes, 1 for the positive one and 0."""
    return CategoricalSummary(count=count, counts={"0": count - positives, "1": positives})


def rows_of_classes(positives: int, count: int, most: int) -> list[FeatureValue]:
    """The labels themselves; of more than `most` as many, in the same proportion."""
    kept = min(count, most)
    ones = round(positives * kept / max(count, 1))
    return [*["1"] * ones, *["0"] * (kept - ones)]
