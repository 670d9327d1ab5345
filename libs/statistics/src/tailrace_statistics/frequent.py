"""Frequent values: the summary of Misra and Gries (1982), merged as Agarwal et al. showed (2012, "Mergeable summaries").

At most `KEPT` values are kept, each with a count that is never too high and at most `error` too low. To cut a longer
list, the count of the first value that finds no place is taken off all of them, and added to the error. Over any order
of batches and merges, the error is at most the number of values divided by `KEPT + 1`: what is more frequent than that
(3 %) is always kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

KEPT = 32
FREQUENT_ERROR = 1 / (KEPT + 1)
"""The largest error of a count, as a share of all values."""


class Frequent:
    """The most frequent values so far."""

    __slots__ = ("counts", "error")

    def __init__(self, counts: Mapping[float, int] | None = None, error: int = 0) -> None:
        self.counts: dict[float, int] = dict(counts or {})
        self.error = error

    def fold(self, ordered: npt.NDArray[np.float64]) -> None:
        """Count a batch of values in ascending order."""
        differ = ordered[1:] != ordered[:-1]
        if len(ordered) > KEPT and differ.all():  # as below, without looking for what comes twice
            self.error += 1
            return
        starts = np.flatnonzero(np.concatenate(([True], differ)))
        counts = np.diff(np.append(starts, len(ordered)))
        values = ordered[starts]
        if len(counts) > KEPT:
            repeated = counts[counts > 1]
            least = int(np.sort(repeated)[-(KEPT + 1)]) if len(repeated) > KEPT else 1
            kept = counts > least
            self.error += least
            values, counts = values[kept], counts[kept] - least
        if len(values):
            self._add(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def merge(self, counts: Mapping[float, int], error: int) -> None:
        """Add the frequent values of another part."""
        self.error += error
        self._add(counts)

    def _add(self, counts: Mapping[float, int]) -> None:
        for value, count in counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > KEPT:
            least = sorted(self.counts.values())[-(KEPT + 1)]
            self.error += least
            self.counts = {value: count - least for value, count in self.counts.items() if count > least}

    def ordered(self) -> list[tuple[float, int]]:
        """Values and counts, the most frequent first."""
        return sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
