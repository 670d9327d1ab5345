"""Drift of the features together: a change that no single one of them shows, such as a correlation that turns.

A classifier tries to tell the window's row sample from the reference's (`tailrace_statistics.multivariate`). What it makes of
rows that it has not seen has a known distribution if nothing has changed, so the threshold follows from the chance of a
false alarm that a window may have: a share of the model's one budget, which the tests of single columns leave to it. An alert is raised once, until a window falls below again; and none while a single
feature is over its own threshold, because then the rows differ for a reason that is told already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import WindowSummarised
from tailrace_contracts.spec import ModelSpec, MultivariateMonitor
from tailrace_statistics.calibration import Values
from tailrace_statistics.multivariate import Apart, Table, critical, table, table_of_columns

TOGETHER = "all features together"
"""What stands where a column's name would."""

REFERENCE_ROWS = 2_000
"""At most so many of the reference's rows are learned from."""

TellApart = Callable[[Table, Table, int], Apart]
"""Given two tables of rows and a seed: how well they can be told apart."""


class Told(NamedTuple):
    """How far a window's rows lie from the reference's, and the AUC from which on that is no chance."""

    auc: float
    threshold: float


def comparable(window: WindowSummarised, rows: Mapping[str, Values], monitor: MultivariateMonitor | None) -> bool:
    """Whether a window, and the reference's `rows` by column, have rows enough."""
    least = max((len(values) for values in rows.values()), default=0)
    return monitor is not None and min(len(window.sample), least) >= monitor.min_rows


def tell(
    window: WindowSummarised, rows: Mapping[str, Values], spec: ModelSpec, chance: float, tell_apart: TellApart
) -> Told:
    """Compare the window's sample with the reference's rows. Takes a part of a second: not for the event loop."""
    reference = table_of_columns(rows, spec.features, REFERENCE_ROWS)
    sample = table([row.values for row in window.sample], spec.features)
    found = tell_apart(reference, sample, int(abs(window.window.start.timestamp())))
    return Told(found.auc, 0.5 + critical(chance) * found.deviation)


class RowDrift(BaseModel):
    """Where the judgement of rows stands. `basis` names the reference; with another one it starts anew."""

    basis: str = ""
    since: datetime | None = None
    alerted: bool = False

    def judge(self, start: datetime, told: Told, basis: str, *, shown: bool) -> bool:
        """Take in a window; True for an alert. `shown`: a single column is over its threshold in this window."""
        if basis != self.basis:
            self.basis, self.since, self.alerted = basis, None, False
        if told.auc <= told.threshold:
            self.since, self.alerted = None, False
            return False
        self.since = self.since or start
        alert = not self.alerted and not shown
        self.alerted |= alert
        return alert
