"""The error of a regression foretold: combined with labels, exact with all of them, and as uncertain as it says."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace_statistics.direct_loss import Foretold, HeldOut, judged, mean_loss, root

SAME = np.full(5, 2.0)
"""Learners that foretell the same for the window, whichever stretch they lack."""


def test_labels_take_the_place_of_what_was_foretold() -> None:
    """A cohort with all its labels would still be shown a guess."""
    foretold = Foretold(mean=2.0, scatter=1.0, common=0.01)
    none, half, all_ = (mean_loss(3.0 * n, n, 100 - n, foretold) for n in (0, 50, 100))
    assert (none.value, half.value, all_.value) == (2.0, 2.5, 3.0)
    assert all_.lower == all_.value == all_.upper
    assert none.upper - none.lower > half.upper - half.lower > 0


def test_the_lower_end_is_never_below_what_the_labels_say_already() -> None:
    """An interval would reach below errors that have been seen."""
    found = mean_loss(500.0, 50, 50, Foretold(mean=0.1, scatter=100.0, common=4.0))
    assert found.lower == 5.0
    assert mean_loss(0.0, 0, 0, Foretold(1.0, 1.0, 1.0)).value == 0.0


def test_stretches_that_were_foretold_badly_widen_the_interval() -> None:
    """A learner that was right on average, and wrong in every month, would look sure."""
    chance = np.random.default_rng(3)
    folds = np.array_split(np.arange(1000), 5)
    steady = chance.normal(size=1000)
    wandering = steady + np.repeat([1.0, -1.0, 1.0, -1.0, 0.0], 200)
    rows = np.full(400, 2.0)
    foretold = np.full(1000, 2.0)
    wide, narrow = (judged(2 + each, HeldOut(foretold, folds), rows, SAME).common for each in (wandering, steady))
    assert wide > 100 * narrow


@pytest.mark.parametrize("sampled", [100, 10_000])
def test_a_small_sample_of_rows_is_a_source_of_error(sampled: int) -> None:
    """The interval of a window would not know that only some of its rows were looked at."""
    folds = np.array_split(np.arange(1000), 5)
    foretold = np.tile([1.0, 3.0], sampled // 2)
    assert judged(np.ones(1000), HeldOut(np.ones(1000), folds), foretold, SAME).common == pytest.approx(1 / sampled)


def test_the_root_of_a_mean_square_has_the_roots_of_its_ends() -> None:
    """The RMSE would be given in the square of its unit."""
    assert root(mean_loss(0.0, 0, 10, Foretold(4.0, 0.0, 0.0))) == (2.0, 2.0, 2.0)


def test_where_errors_become_large_they_scatter_more() -> None:
    """The interval for a storm would be as narrow as one for calm weather."""
    chance = np.random.default_rng(4)
    folds = np.array_split(np.arange(1000), 5)
    losses = np.abs(chance.normal(size=1000))
    calm, storm = (
        judged(losses, HeldOut(np.full(1000, 0.8), folds), np.full(300, level), SAME) for level in (0.8, 2.4)
    )
    assert storm.scatter == pytest.approx(9 * calm.scatter)


def test_what_hangs_on_one_stretch_of_lessons_is_less_sure() -> None:
    """Where inputs move to where few lessons are, the interval would stay as narrow as where they are many."""
    folds = np.array_split(np.arange(1000), 5)
    held_out, rows = HeldOut(np.full(1000, 2.0), folds), np.full(400, 2.0)
    others = np.array([1.6, 1.8, 2.0, 2.2, 2.4])
    sure, unsure = (judged(np.full(1000, 2.0), held_out, rows, each).common for each in (SAME, others))
    assert sure == pytest.approx(0.0)
    assert unsure == pytest.approx(4 / 5 * float(np.sum((others - 2.0) ** 2)))
