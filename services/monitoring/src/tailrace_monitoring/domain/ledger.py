"""What a cohort keeps of its estimate: all answers, those that are labelled, and what it was learned on."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from pydantic import BaseModel

from tailrace_contracts.events import ArmOutput
from tailrace_contracts.ranges import LogRanges
from tailrace_statistics import estimation as statistics
from tailrace_statistics.direct_loss import Foretold
from tailrace_statistics.estimation import Array, Calibration


class Basis(BaseModel):
    """What an estimate was learned on: how many examples, since when, from which log ranges.

    Of classes it is a `calibration`; of a regression the absolute and the squared error to expect of the window.
    """

    calibration: Calibration | None = None
    losses: tuple[Foretold, Foretold] | None = None
    examples: int = 0
    since: datetime
    ranges: LogRanges


class Ledger(BaseModel):
    """What one cohort's estimate is made of.

    Of classes: `outcomes` are labelled answers by cell, `served` all answers by bin. Of numbers: `answers` counts all.
    """

    outcomes: dict[str, int] = {}
    served: tuple[list[float], list[float]] | None = None
    answers: int | None = None
    window: LogRanges = LogRanges()
    basis: Basis | None = None
    first: tuple[float, float] | None = None

    def count(self, output: ArmOutput, *, selected: bool, positive: bool, by: int) -> None:
        """Count one labelled answer; -1 takes one back."""
        if output.probability is not None:
            name = statistics.cell_name(selected=selected, positive=positive, probability=output.probability)
            self.outcomes[name] = self.outcomes.get(name, 0) + by

    def close(self, served: Array, basis: Basis | None, window: LogRanges) -> None:
        """The window is closed: these are all answers. A later, fuller state of it replaces the one before."""
        self.served = tuple([round(float(each), 2) for each in row] for row in served)  # type: ignore[assignment]  # two rows
        self.window = window
        self.basis = basis or self.basis

    def close_numbers(self, answers: int, basis: Basis | None, window: LogRanges) -> None:
        """The window of a regression is closed: so many answers were given."""
        self.answers, self.window, self.basis = answers, window, basis or self.basis

    @property
    def known(self) -> Array:
        """The labelled answers as a table."""
        return statistics.table(self.outcomes)

    @property
    def labelled(self) -> int:
        """How many answers with a probability are labelled."""
        return sum(self.outcomes.values())

    @property
    def events(self) -> int:
        """How many answers with a probability there are: those of the window, and more where later ones are labelled."""
        served = np.zeros((2, statistics.BINS)) if self.served is None else np.asarray(self.served)
        return self.labelled + round(float(statistics.unlabelled(served, self.known).sum()))
