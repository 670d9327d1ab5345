"""Cohorts of prediction time, and windows of feature statistics against their reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, WindowSpan, WindowSummarised
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import DriftMonitor, ReferencePeriod
from tailrace_monitoring.domain.cohort_book import CohortBook
from tailrace_monitoring.domain.cohorts import Cohort, window_of
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.domain.windows import DriftState, Reading, faults_in
from tailrace_monitoring.domain.yardsticks import Basis, Yardsticks
from tailrace_monitoring.testing import FIRST_DAY, answered, labelled, tide_spec
from tailrace_statistics.columns import NumericalFold, merge

LOG = Log("labelled-examples", 0)
MONITOR = DriftMonitor(distance="psi", threshold=0.25, min_examples=100, consecutive_windows=2)


def level(mean: float, count: int = 500, seed: int = 1) -> ColumnSummary:
    """A numerical column."""
    fold = NumericalFold(tide_spec().features[0].limits)  # type: ignore[union-attr]  # the first is numerical
    fold.fold(np.random.default_rng(seed).normal(mean, 1, count))
    return fold.summary()


def window(number: int, columns: dict[str, ColumnSummary], events: int = 500, **changes: Any) -> WindowSummarised:
    """The closed window of a month."""
    start = FIRST_DAY + timedelta(days=30 * number)
    fields: dict[str, Any] = {
        "model": "tide",
        "spec_revision": 1,
        "window": WindowSpan(start=start, end=start + timedelta(days=30)),
        "events": events,
        "columns": columns,
        "closed": True,
        "derived_from": LogRanges(),
    }
    return WindowSummarised(**{**fields, **changes})


def readings(judged: WindowSummarised) -> list[Reading]:
    """The window's tests against a level of 0, at the threshold of the spec."""
    spec = tide_spec(monitors={"window_days": 30, "drift": MONITOR.model_dump()})
    return Yardsticks().read(judged, Basis("level 0", {"level": level(0)}, {}), spec)


def book_of(*placed: Placed) -> CohortBook:
    """A book in which these were counted."""
    book = CohortBook([])
    for each in placed:
        book.count(each, tide_spec())
    return book


def at(offset: int, example: Any) -> Placed:
    """An example at an offset."""
    return Placed(LOG, offset, example)


def test_windows_are_aligned_to_1970() -> None:
    """Two processes would put the same prediction into different cohorts."""
    span = window_of(datetime(2020, 5, 17, 13, tzinfo=UTC), 1)
    assert span == WindowSpan(start=datetime(2020, 5, 17, tzinfo=UTC), end=datetime(2020, 5, 18, tzinfo=UTC))
    assert window_of(span.end, 1).start == span.end
    before_1970 = window_of(datetime(1949, 1, 1, 5, tzinfo=UTC), 7)
    assert before_1970.start <= datetime(1949, 1, 1, 5, tzinfo=UTC) < before_1970.end


def test_a_late_label_counts_in_the_cohort_of_its_prediction() -> None:
    """The month of the label would be blamed for the month of the prediction."""
    book = book_of(
        at(0, labelled(0, 1, answered("champion", 1, 1))),
        at(1, labelled(80, 1, answered("champion", 0, 1))),
        at(2, labelled(1, 1, answered("champion", 1, 1), label_time=FIRST_DAY + timedelta(days=95))),
    )
    counted = {cohort.span.start: (cohort.total.examples, cohort.accuracy) for cohort in book.news()}
    assert list(counted.values()) == [(2, 1.0), (1, 0.0)]


def test_a_corrected_label_moves_the_example_and_counts_it_once() -> None:
    """A correction would count the prediction twice, once right and once wrong."""
    first = labelled(0, 1, answered("champion", 1, 1))
    corrected = labelled(0, 0, answered("champion", 1, 1), label_revision=1, replaces=1)
    (cohort,) = book_of(at(0, first), at(1, corrected)).news()
    assert cohort.total == (0, 1, 0, 0)
    assert cohort.groups["quay"]["south"] == (0, 1, 0, 0)


def test_a_cohort_closes_when_end_and_lateness_have_passed_and_only_once() -> None:
    """Alerts would be raised on half a cohort, or again and again."""
    book = book_of(at(0, labelled(0, 1, answered("champion", 1, 1))))
    end = book.news()[0].span.end
    assert book.close(end + timedelta(days=4), lateness_days=5) == []
    assert len(book.close(end + timedelta(days=5), lateness_days=5)) == 1
    assert book.close(end + timedelta(days=50), lateness_days=5) == []


def test_each_arm_and_version_has_a_cohort_of_its_own() -> None:
    """A bad canary would spoil the champion's figures."""
    book = book_of(at(0, labelled(0, 1, answered("canary", 0, 2), answered("champion", 1, 1))))
    assert {(each.arm, each.version, each.accuracy) for each in book.news()} == {
        ("canary", 2, 0.0),
        ("champion", 1, 1.0),
    }


def test_a_cohort_survives_being_stored() -> None:
    """A restart would lose a month's figures."""
    (cohort,) = book_of(at(7, labelled(0, 1, answered("external", 1)))).news()
    assert Cohort.model_validate_json(cohort.model_dump_json()) == cohort


def test_a_column_alerts_after_consecutive_windows_and_again_only_after_it_was_back() -> None:
    """People would be called for one odd window, or every window for a drift that they know."""
    state = DriftState()
    means = [0, 2, 0, 2, 2, 2, 0, 2, 2]
    alerts = []
    for number, mean in enumerate(means):
        judged = window(number, {"level": level(mean, seed=number)})
        measured = state.judge(judged, readings(judged), MONITOR)
        alerts += [number for each in measured if each.alert]
    assert alerts == [4, 8]


def test_a_window_is_judged_once_and_a_small_one_not_at_all() -> None:
    """A window that arrives twice would count as two in a row."""
    state = DriftState()
    moved = window(1, {"level": level(3)})
    assert state.judge(moved, readings(moved), MONITOR)
    assert state.judge(moved, readings(moved), MONITOR) == []
    small = window(2, {"level": level(3)}, events=50)
    assert state.judge(small, readings(small), MONITOR) == []


def test_a_new_reference_starts_the_judgement_anew() -> None:
    """What drifted from the old champion's training set would be held against the new one."""
    state = DriftState()
    state.rebase("version 1")
    first, second = window(1, {"level": level(3)}), window(2, {"level": level(3)})
    state.judge(first, readings(first), MONITOR)
    state.rebase("version 2")
    (measured,) = state.judge(second, readings(second), MONITOR)
    assert measured.drifted
    assert not measured.alert


def test_a_reference_period_gathers_the_windows_inside_it() -> None:
    """Producers with their own model would have nothing that their stream is compared with."""
    state = DriftState()
    period = ReferencePeriod(start=FIRST_DAY, end=FIRST_DAY + timedelta(days=90))
    for number in (0, 1, 1, 2, 3):
        state.gather(window(number, {"level": level(number, 100)}), period, merge)
    assert state.period["level"].count == 300


def test_one_value_out_of_limits_is_a_fault_even_in_an_open_window_and_is_reported_once() -> None:
    """A broken sensor would be noticed a year later, or every second."""
    state = DriftState()
    fold = NumericalFold(tide_spec().features[0].limits)  # type: ignore[union-attr]  # the first is numerical
    fold.fold([0.1, 94.0])
    open_window = window(1, {"level": fold.summary()}, events=2, closed=False)
    (fault,) = state.faults(open_window, {})
    assert (fault.column, fault.what, fault.values) == ("level", "out-of-limits", 1)
    assert state.faults(open_window.model_copy(update={"closed": True}), {}) == []


@pytest.mark.parametrize(("missing", "found"), [(3, []), (40, ["missing"])])
def test_missing_values_are_a_fault_above_what_the_reference_is_used_to(missing: int, found: list[str]) -> None:
    """A feature that is always rarely missing would alert for ever, one that fails would not."""
    usual = CategoricalSummary(count=99, missing=1, counts={"north": 99})
    now = CategoricalSummary(count=200 - missing, missing=missing, counts={"north": 200 - missing})
    faults = faults_in(window(1, {"quay": now}, events=200), {"quay": usual})
    assert [fault.what for fault in faults] == found


def test_unseen_categories_are_a_fault() -> None:
    """A renamed code in the producers' data would silently blind the model."""
    now = CategoricalSummary(count=100, unseen=30, counts={"north": 70})
    (fault,) = faults_in(window(1, {"quay": now}, events=100), {})
    assert (fault.what, fault.values, fault.share) == ("unseen", 30, 0.3)
