"""Drift of the features together: a change that no single one of them shows, such as a correlation that turns.

A classifier tries to tell the window's row sample from the reference's (`tailrace_statistics.multivariate`). What it makes of
rows that it has not seen has a known distribution if nothing has changed, so the threshold follows from the chance of a
false alarm that a window may have. An alert is raised once, until a window falls below again; and none while a single
feature is over its own threshold, because then the rows differ for a reason that is told already.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import WindowSummarised
from tailrace_contracts.spec import ModelSpec, MultivariateMonitor
from tailrace_statistics.multivariate import Apart, Rows, Table, critical, table

TOGETHER = "all features together"
"""What stands where a column's name would."""

REMEMBERED = 400
"""Windows that are remembered as judged."""

TellApart = Callable[[Table, Table, int], Apart]
"""Given two tables of rows and a seed: how well they can be told apart."""


class Told(NamedTuple):
    """How far a window's rows lie from the reference's, and the AUC from which on that is no chance."""

    auc: float
    threshold: float


def comparable(window: WindowSummarised, reference: Rows, monitor: MultivariateMonitor | None) -> bool:
    """Whether there are rows enough on both sides of a closed window."""
    return monitor is not None and window.closed and min(len(window.sample), len(reference)) >= monitor.min_rows


def tell(window: WindowSummarised, reference: Rows, spec: ModelSpec, chance: float, tell_apart: TellApart) -> Told:
    """Compare the samples. Takes a part of a second: not for the event loop."""
    rows = table([row.values for row in window.sample], spec.features)
    found = tell_apart(table(reference, spec.features), rows, int(abs(window.window.start.timestamp())))
    return Told(found.auc, 0.5 + critical(chance) * found.deviation)


class RowDrift(BaseModel):
    """Where the judgement of rows stands. `basis` names the reference; with another one it starts anew."""

    basis: str = ""
    since: datetime | None = None
    alerted: bool = False
    judged: list[datetime] = []

    def judge(self, window: WindowSummarised, told: Told, basis: str, *, shown: bool) -> bool:
        """Take in one window; True for an alert. `shown`: a single feature is over its threshold in this window."""
        start = window.window.start
        if basis != self.basis:
            self.basis, self.since, self.alerted = basis, None, False
        if start in self.judged:
            return False
        self.judged = [*self.judged, start][-REMEMBERED:]
        if told.auc <= told.threshold:
            self.since, self.alerted = None, False
            return False
        self.since = self.since or start
        alert = not self.alerted and not shown
        self.alerted |= alert
        return alert
