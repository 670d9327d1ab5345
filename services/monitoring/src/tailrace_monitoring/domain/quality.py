"""What the console shows of a window's data: counts, moments and frequent values, without the sketches."""

from __future__ import annotations

from typing import Any

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, NumericalSummary, Slice, WindowSummarised
from tailrace_statistics.columns import distinct_values, quantile, standard_deviation

FREQUENT = 6
"""Frequent values of a column that are shown."""

MOST_SLICES = 80
"""Slices of a window that are shown, in the order in which the window has them."""

Compact = dict[str, Any]


def compact_columns(window: WindowSummarised) -> dict[str, Compact]:
    """Every column of a window."""
    return {name: _column(summary) for name, summary in window.columns.items()}


def compact_slices(window: WindowSummarised) -> list[Compact]:
    """The window's events by arm and version, and by protected group: of each column only what tells slices apart."""
    return [_slice(each) for each in window.slices[:MOST_SLICES]]


def _slice(part: Slice) -> Compact:
    named = part.model_dump(include={"arm", "version", "attribute", "group"}, exclude_none=True)
    return {**named, "events": part.events, "columns": {name: _short(each) for name, each in part.columns.items()}}


def _short(summary: ColumnSummary) -> Compact:
    common: Compact = {"type": summary.type, "count": summary.count, "missing": summary.missing}
    if isinstance(summary, NumericalSummary):
        return common | {"bad": summary.out_of_limits} | _moments(summary)
    return common | {"bad": summary.unseen, "frequent": _frequent(summary)[:1]}


def _moments(summary: NumericalSummary) -> Compact:
    some = summary.count > 0
    return {"mean": summary.mean if some else None, "deviation": standard_deviation(summary) if some else None}


def _frequent(summary: CategoricalSummary) -> list[tuple[str, int]]:
    seen = {name: count for name, count in summary.counts.items() if count} | summary.unseen_counts
    return sorted(seen.items(), key=lambda each: (-each[1], each[0]))[:FREQUENT]


def _column(summary: ColumnSummary) -> Compact:
    rest = _number(summary) if isinstance(summary, NumericalSummary) else _category(summary)
    return _short(summary) | rest | {"distinct": round(distinct_values(summary))}


def _number(summary: NumericalSummary) -> Compact:
    known = summary.count > 0 and summary.quantiles != ""
    low, middle, high = quantile(summary, (0.05, 0.5, 0.95)) if known else (None, None, None)
    return {
        "minimum": summary.minimum,
        "p05": low,
        "median": middle,
        "p95": high,
        "maximum": summary.maximum,
        "frequent": [(each.value, each.count) for each in summary.frequent[:FREQUENT]],
    }


def _category(summary: CategoricalSummary) -> Compact:
    return {
        "unseen": list(summary.unseen_counts)[:FREQUENT],
        "frequent": _frequent(summary),
    }
