"""The error of a regression before its labels come: a small learner foretells it from what the model was asked.

Some questions are harder than others, and which ones are can be learned from labelled examples: the loss (the absolute
error, or its square) as a function of the features and the prediction. Applied to a window's row sample it gives the
mean loss that these inputs lead one to expect (NannyML publishes the same idea as direct loss estimation). It assumes that
equal inputs go on being equally hard: when the concept drifts, only labels show it.

The interval is for the realised mean of a cohort: in it are the losses of single answers, which scatter about what is
foretold; the window's rows being a sample; how far the mean of a whole stretch of time lay from what was foretold
for it by others, beyond what scattering explains; and how much of what is foretold *for this window* hangs on one stretch of
the lessons. The last is the delete-a-group jackknife (Quenouille 1956; Kott 2001), and is what widens the interval where
the window's inputs lie where few lessons do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace_statistics.estimation import Estimated
from tailrace_statistics.multivariate import Table

Array = npt.NDArray[np.float64]


class Lessons(NamedTuple):
    """Labelled rows in the order of time, and the loss on each."""

    rows: Table
    losses: Array


class Foretold(NamedTuple):
    """The mean loss of a window: `scatter` is the variance of one answer's loss about it, `common` that of the mean."""

    mean: float
    scatter: float
    common: float


class HeldOut(NamedTuple):
    """What was foretold for lessons by learners that lacked their stretch of time, and these stretches."""

    unseen: Array
    folds: Sequence[npt.NDArray[np.intp]]


def judged(losses: Array, held_out: HeldOut, foretold: Array, others: Array) -> Foretold:
    """The mean of what is `foretold` for a window's rows, and how far it may be off.

    `others` are the means that the learners without one stretch each foretell for the window. Large losses scatter more
    than small ones, so the scatter about the two is taken in proportion to their squares.
    """
    unseen, folds = held_out
    residuals, level = losses - unseen, float(np.mean(unseen**2))
    grown = float(np.mean(foretold**2)) / level if level > 0 and len(foretold) else 1.0
    scatter = float(residuals.var())
    means = np.array([residuals[fold].mean() for fold in folds])
    chance = np.array([scatter / max(len(fold), 1) for fold in folds])
    wandering = max(float(np.mean(means**2 - chance)), 0.0)
    sampled = float(foretold.var()) / max(len(foretold), 1)
    jackknife = (len(others) - 1) * float(others.var()) if len(others) else 0.0
    learned = max(jackknife, grown * scatter / max(len(residuals), 1))
    return Foretold(max(float(foretold.mean()), 0.0), grown * scatter, grown * wandering + learned + sampled)


def mean_loss(known: float, labelled: int, rest: int, foretold: Foretold, confidence: float = 0.95) -> Estimated:
    """The mean loss of a cohort: `known` is the sum over the `labelled` answers, `rest` answers have no label yet."""
    count = labelled + rest
    if not count:
        return Estimated(0.0, 0.0, 0.0)
    value = (known + rest * foretold.mean) / count
    deviation = math.sqrt(rest * foretold.scatter + rest * rest * foretold.common) / count
    spread = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    return Estimated(value, max(value - spread, known / count), value + spread)


def root(estimated: Estimated) -> Estimated:
    """The root of a mean square."""
    return Estimated(*(math.sqrt(max(each, 0.0)) for each in estimated))
