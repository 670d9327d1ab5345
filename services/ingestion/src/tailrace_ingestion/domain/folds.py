"""The fold of one column, and beside it the counts of what the policies kept from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import ColumnSummary, NumericalSummary
from tailrace_contracts.spec import Limits
from tailrace_ingestion.domain.checks import Column, NumberColumn, WordColumn
from tailrace_statistics import CategoricalFold, NumericalFold


class ColumnFold:
    """A fold and, beside it, the counts of what the policies kept from it."""

    __slots__ = ("_fold", "_missing", "_odd")

    def __init__(self, fold: NumericalFold | CategoricalFold) -> None:
        self._fold, self._missing, self._odd = fold, 0, 0

    @classmethod
    def of(cls, column: Column, categories: Sequence[str]) -> ColumnFold:
        """An empty fold for a column of this type."""
        return cls(NumericalFold(Limits()) if isinstance(column, NumberColumn) else CategoricalFold(categories))

    @classmethod
    def resumed(cls, summary: ColumnSummary, categories: Sequence[str]) -> ColumnFold:
        """A fold that goes on where a summary stopped."""
        if isinstance(summary, NumericalSummary):
            return cls(NumericalFold.from_summary(summary))
        return cls(CategoricalFold.from_summary(summary, categories))

    def takes(self, column: Column) -> bool:
        """Whether the column is of the fold's type (a spec may have changed it)."""
        return isinstance(self._fold, NumericalFold) == isinstance(column, NumberColumn)

    def add(self, column: Column, valid: npt.NDArray[np.bool_]) -> None:
        """Fold a column."""
        self._missing += int(np.count_nonzero(column.missing))
        if isinstance(column, NumberColumn) and isinstance(self._fold, NumericalFold):
            self._odd += int(np.count_nonzero(column.out_of_limits))
            present = valid & ~np.isnan(column.values)
            self._fold.fold(column.values if present.all() else column.values[present])
        elif isinstance(column, WordColumn) and isinstance(self._fold, CategoricalFold):
            present = valid & (column.codes >= 0)
            self._odd += int(np.count_nonzero(column.unseen & ~present))
            counts = np.bincount(column.codes[present], minlength=len(column.words)).tolist()
            self._fold.add({word: count for word, count in zip(column.words, counts, strict=True) if count})

    def summary(self) -> ColumnSummary:
        """The column so far. A fold counts the unseen words that it takes; `_odd` are those that it never saw."""
        found = self._fold.summary()
        missing = found.missing + self._missing
        if isinstance(found, NumericalSummary):
            return found.model_copy(update={"missing": missing, "out_of_limits": found.out_of_limits + self._odd})
        return found.model_copy(update={"missing": missing, "unseen": found.unseen + self._odd})
