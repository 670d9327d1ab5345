"""Drift and data quality, on windows of feature statistics.

Drift: each closed window is measured against the reference, column by column and within protected groups: the distance,
and the shares of missing and of unseen values. A test over its threshold in `consecutive_windows` windows in a row has
moved: one alert for all that have moved in the same window, and no further one for a test until a window falls below
again. Thresholds come with the measurement (`yardsticks`), such that chance makes as many alerts as the spec expects.
The reference is what the champion was trained on; where the spec names a period instead, the closed windows inside it
are merged into one, and later windows are judged.

Quality: a value out of limits is a fault, even a single one, as nothing but a fault can be out of limits. Open windows
are judged too, so that a fault is known while its window lasts: by limits, and by missing or unseen values that chance
cannot explain, however often one looks. Each fault is reported once for a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import ColumnSummary, NumericalSummary, SampledRow, WindowSpan, WindowSummarised
from tailrace_contracts.spec import DriftMonitor, ReferencePeriod
from tailrace_statistics.distances import missing_share, unseen_share

MAX_SHARE = 0.01
"""Missing or unseen values above the reference's own share that may be a fault."""

IMPOSSIBLE = 15.0
"""A share is a fault where its chance is below exp(-15), 3 in 10 million: then looking at every state of an open window
adds nothing that counts to the false alarms."""

REMEMBERED = 400
"""Windows that are remembered as judged or reported."""

PERIOD_ROWS = 2_000
"""Rows of a reference period's windows that are kept, those of the lowest ranks."""

NOT_JUDGED = frozenset({"latency_ms"})
"""Columns that are shown, and whose movement is no drift of the data."""

QUALITY = "quality|"
"""How the keys of faults begin."""

Merge = Callable[[ColumnSummary, ColumnSummary], ColumnSummary]


class Reading(NamedTuple):
    """One test of one window: a column, or one within a group such as `AGEP where SEX=1`, and what was measured."""

    column: str
    statistic: str
    value: float
    threshold: float
    in_group: bool = False

    @property
    def key(self) -> str:
        """Which test it is."""
        return f"{self.column}|{self.statistic}"


class Measured(NamedTuple):
    """One test of one window against the reference. `alert` on the window at which it has moved."""

    column: str
    statistic: str
    distance: float
    threshold: float
    in_group: bool
    drifted: bool
    alert: bool
    since: datetime

    @property
    def key(self) -> str:
        """Which test it is."""
        return f"{self.column}|{self.statistic}"


class Fault(NamedTuple):
    """A column with bad values in a window: `values` of them, `share` of its events."""

    column: str
    what: Literal["out-of-limits", "missing", "unseen"]
    values: int
    share: float
    threshold: float

    @property
    def key(self) -> str:
        """Which fault it is, whatever the window."""
        return f"{QUALITY}{self.column}|{self.what}"


class DriftState(BaseModel):
    """Where the judgement of windows stands. `basis` names the reference; with another one everything starts anew."""

    basis: str = ""
    streaks: dict[str, list[datetime]] = {}
    alerted: list[str] = []
    judged: list[datetime] = []
    period: dict[str, ColumnSummary] = {}
    period_rows: list[SampledRow] = []
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
        self.period_rows = sorted([*self.period_rows, *window.sample], key=lambda row: row.rank)[:PERIOD_ROWS]
        for name, summary in window.columns.items():
            known = self.period.get(name)
            self.period[name] = summary if known is None else merge(known, summary)

    def is_new(self, window: WindowSummarised, monitor: DriftMonitor) -> bool:
        """Whether this window is to be judged: closed, not judged before, and large enough."""
        fresh = window.closed and window.window.start not in self.judged
        return fresh and window.events >= monitor.min_examples

    def judge(self, window: WindowSummarised, readings: Iterable[Reading], monitor: DriftMonitor) -> list[Measured]:
        """Judge a window, once; [] for one that was judged before or has too few events."""
        if not self.is_new(window, monitor):
            return []
        self.judged = [*self.judged, window.window.start][-REMEMBERED:]
        return [self._judged(reading, window.window, monitor) for reading in readings]

    def _judged(self, reading: Reading, span: WindowSpan, monitor: DriftMonitor) -> Measured:
        key, measured = reading.key, Measured(*reading, drifted=False, alert=False, since=span.start)
        if reading.value <= reading.threshold:
            self.streaks.pop(key, None)
            self.alerted = [each for each in self.alerted if each != key]
            return measured
        streak = [*self.streaks.get(key, []), span.start][-monitor.consecutive_windows :]
        self.streaks[key] = streak
        alert = len(streak) >= monitor.consecutive_windows and key not in self.alerted
        if alert:
            self.alerted = [*self.alerted, key]
        return measured._replace(drifted=True, alert=alert, since=streak[0])

    def faults(self, window: WindowSummarised, reference: Mapping[str, ColumnSummary]) -> list[Fault]:
        """The window's bad values that have not been reported yet."""
        found = [fault for fault in faults_in(window, reference) if self._is_new(window, fault)]
        self.reported = [*self.reported, *(_report_key(window, fault) for fault in found)][-REMEMBERED:]
        return found

    def _is_new(self, window: WindowSummarised, fault: Fault) -> bool:
        return _report_key(window, fault) not in self.reported


def _report_key(window: WindowSummarised, fault: Fault) -> str:
    return f"{window.window.start.isoformat()}|{fault.column}|{fault.what}"


def faults_in(window: WindowSummarised, reference: Mapping[str, ColumnSummary]) -> Iterator[Fault]:
    """Everything wrong with a window's values, whether reported before or not."""
    for name, summary in window.columns.items():
        if name in {"prediction", "probability", "latency_ms"}:
            continue
        total, usual = summary.count + summary.missing, reference.get(name)
        if isinstance(summary, NumericalSummary):
            if summary.out_of_limits:
                yield Fault(name, "out-of-limits", summary.out_of_limits, summary.out_of_limits / max(1, total), 0.0)
        elif _cannot_be(unseen_share(summary), limit := unseen_share(usual) + MAX_SHARE, summary.count):
            yield Fault(name, "unseen", summary.unseen, unseen_share(summary), limit)
        if _cannot_be(missing_share(summary), limit := missing_share(usual) + MAX_SHARE, total):
            yield Fault(name, "missing", summary.missing, missing_share(summary), limit)


def _cannot_be(share: float, limit: float, values: int) -> bool:
    """Whether chance does not give such a share of values where the truth is `limit` (Chernoff 1952)."""
    if share <= limit or limit >= 1:
        return False
    rest = (1 - share) * math.log((1 - share) / (1 - limit)) if share < 1 else 0.0
    return values * (share * math.log(share / limit) + rest) > IMPOSSIBLE


def shown(measured: Iterable[Measured]) -> list[Measured]:
    """What the console and the metrics have room for: of each column the test farthest beyond its threshold, or nearest.

    Columns within a group are shown where they moved.
    """
    farthest: dict[str, Measured] = {}
    for each in measured:
        known = farthest.get(each.column)
        if each.in_group and not each.drifted:
            continue
        if known is None or each.distance * known.threshold > known.distance * each.threshold:
            farthest[each.column] = each
    return list(farthest.values())
