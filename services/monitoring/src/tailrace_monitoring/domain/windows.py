"""Feature drift and data quality, on windows of feature statistics.

Drift: each closed window is measured against the reference, column by column. A column over the threshold in
`consecutive_windows` windows in a row has drifted: one alert, and no further one until a window falls below again.
The reference is what the champion was trained on; where the spec names a period instead, the closed windows inside it
are merged into one, and later windows are judged.

Quality: a value out of limits is a fault, even a single one; missing and unseen values are judged by their share,
over what the reference is used to. Open windows are judged too, so that a fault is known while its window lasts. Each
fault is reported once for a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import ColumnSummary, NumericalSummary, WindowSpan, WindowSummarised
from tailrace_contracts.spec import DriftMonitor, ReferencePeriod

MAX_SHARE = 0.01
"""Missing or unseen values above the reference's own share that make an alert."""

MIN_EVENTS = 100
"""Open windows with fewer events are not judged by shares."""

REMEMBERED = 400
"""Windows that are remembered as judged or reported."""

NOT_JUDGED = frozenset({"latency_ms"})
"""Columns that are shown, and whose movement is no drift of the data."""

DistanceKind = Literal["psi", "kolmogorov-smirnov", "jensen-shannon"]
Distance = Callable[[DistanceKind, ColumnSummary, ColumnSummary], float]
Merge = Callable[[ColumnSummary, ColumnSummary], ColumnSummary]


class Measured(NamedTuple):
    """One column of one window against the reference. `alert` on the window at which the column drifted."""

    column: str
    distance: float
    drifted: bool
    alert: bool
    since: datetime


class Fault(NamedTuple):
    """A column with bad values in a window: `values` of them, `share` of its events."""

    column: str
    what: Literal["out-of-limits", "missing", "unseen"]
    values: int
    share: float
    threshold: float


class DriftState(BaseModel):
    """Where the judgement of windows stands. `basis` names the reference; with another one everything starts anew."""

    basis: str = ""
    streaks: dict[str, list[datetime]] = {}
    alerted: list[str] = []
    judged: list[datetime] = []
    period: dict[str, ColumnSummary] = {}
    period_windows: list[datetime] = []
    reported: list[str] = []

    def rebase(self, basis: str) -> None:
        """Measure against this reference from now on."""
        if basis != self.basis:
            self.basis, self.streaks, self.alerted = basis, {}, []

    def gather(self, window: WindowSummarised, period: ReferencePeriod, merge: Merge) -> None:
        """Merge a closed window that lies inside the reference period into the reference."""
        span = window.window
        inside = period.start <= span.start and span.end <= period.end
        if not inside or span.start in self.period_windows:
            return
        self.period_windows.append(span.start)
        for name, summary in window.columns.items():
            known = self.period.get(name)
            self.period[name] = summary if known is None else merge(known, summary)

    def judge(
        self,
        window: WindowSummarised,
        reference: Mapping[str, ColumnSummary],
        monitor: DriftMonitor,
        distance: Distance,
    ) -> list[Measured]:
        """Measure a closed window, once; [] for one that was judged before or has too few events."""
        start = window.window.start
        if start in self.judged or window.events < monitor.min_examples:
            return []
        self.judged = [*self.judged, start][-REMEMBERED:]
        return [
            self._column(name, distance(monitor.distance, reference[name], summary), window.window, monitor)
            for name, summary in window.columns.items()
            if name in reference and name not in NOT_JUDGED and _comparable(reference[name], summary)
        ]

    def _column(self, name: str, distance: float, span: WindowSpan, monitor: DriftMonitor) -> Measured:
        if distance <= monitor.threshold:
            self.streaks.pop(name, None)
            self.alerted = [each for each in self.alerted if each != name]
            return Measured(name, distance, drifted=False, alert=False, since=span.start)
        streak = [*self.streaks.get(name, []), span.start][-monitor.consecutive_windows :]
        self.streaks[name] = streak
        alert = len(streak) >= monitor.consecutive_windows and name not in self.alerted
        if alert:
            self.alerted = [*self.alerted, name]
        return Measured(name, distance, drifted=True, alert=alert, since=streak[0])

    def faults(self, window: WindowSummarised, reference: Mapping[str, ColumnSummary]) -> list[Fault]:
        """The window's bad values that have not been reported yet."""
        found = [fault for fault in faults_in(window, reference) if self._is_new(window, fault)]
        self.reported = [*self.reported, *(_report_key(window, fault) for fault in found)][-REMEMBERED:]
        return found

    def _is_new(self, window: WindowSummarised, fault: Fault) -> bool:
        return _report_key(window, fault) not in self.reported


def _report_key(window: WindowSummarised, fault: Fault) -> str:
    return f"{window.window.start.isoformat()}|{fault.column}|{fault.what}"


def _comparable(reference: ColumnSummary, summary: ColumnSummary) -> bool:
    return reference.type == summary.type and reference.count > 0 and summary.count > 0


def _missing_share(summary: ColumnSummary | None) -> float:
    total = summary.count + summary.missing if summary else 0
    return summary.missing / total if summary and total else 0.0


def _unseen_share(summary: ColumnSummary | None) -> float:
    if summary is None or isinstance(summary, NumericalSummary) or not summary.count:
        return 0.0
    return summary.unseen / summary.count


def faults_in(window: WindowSummarised, reference: Mapping[str, ColumnSummary]) -> Iterator[Fault]:
    """Everything wrong with a window's values, whether reported before or not."""
    enough = window.closed or window.events >= MIN_EVENTS
    for name, summary in window.columns.items():
        if name in {"prediction", "probability", "latency_ms"}:
            continue
        if isinstance(summary, NumericalSummary):
            if summary.out_of_limits:
                share = summary.out_of_limits / max(1, summary.count + summary.missing)
                yield Fault(name, "out-of-limits", summary.out_of_limits, share, 0.0)
        elif enough and (share := _unseen_share(summary)) > (limit := _unseen_share(reference.get(name)) + MAX_SHARE):
            yield Fault(name, "unseen", summary.unseen, share, limit)
        if enough and (share := _missing_share(summary)) > (limit := _missing_share(reference.get(name)) + MAX_SHARE):
            yield Fault(name, "missing", summary.missing, share, limit)
