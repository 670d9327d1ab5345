"""Drift of the features together: what no single one shows, how often it is a false alarm, and what is said of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tailrace_contracts.events import AlertRaised, SampledRow, WindowSpan, WindowSummarised
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.adapters.sklearn_learners import tell_apart
from tailrace_monitoring.domain.multivariate import TOGETHER
from tailrace_monitoring.domain.state import Tools
from tailrace_monitoring.domain.yardsticks import budget_of, chance_together
from tailrace_monitoring.handlers import Watchers, observe_window
from tailrace_monitoring.testing import (
    FIRST_DAY,
    MODEL,
    FixedGazette,
    FixedReferences,
    MemoryWatches,
    SilentMeter,
    claim,
    deployment,
    knowledge,
    tide_spec,
    version,
)
from tailrace_runtime.testing import FixedClock
from tailrace_statistics.columns import fold_for, merge
from tailrace_statistics.multivariate import critical, table

WINDOWS = Log("feature-statistics", 0)
Row = dict[str, Any]


def spec(**monitors: Any) -> ModelSpec:
    """Two numbers and a word."""
    document = tide_spec(monitors=monitors).model_dump(mode="json")
    document["features"] = [
        {"name": "level", "type": "numerical"},
        {"name": "wind", "type": "numerical", "on_missing": "flag"},
        {"name": "quay", "type": "categorical", "categories": ["north", "south"]},
    ]
    return parse_spec(document)


def rows(seed: int, count: int, correlation: float, shift: float = 0.0) -> list[Row]:
    """Rows of standard normal `level` and `wind` (a tenth of it missing) that go together, and a fair `quay`."""
    chance = np.random.default_rng(seed)
    level, other = chance.normal(size=(2, count))
    wind = correlation * level + (1 - correlation**2) ** 0.5 * other
    gone = chance.random(count) < 0.1
    return [
        {"level": a + shift, "wind": None if missing else b, "quay": "north" if c else "south"}
        for a, b, missing, c in zip(level, wind, gone, chance.random(count) < 0.5, strict=True)
    ]


def window(month: int, sample: list[Row], spec: ModelSpec) -> WindowSummarised:
    """The closed window in which these rows came."""
    start = FIRST_DAY + timedelta(days=30 * month)
    columns = {}
    for feature in spec.features:
        fold: Any = fold_for(feature)
        fold.fold([row[feature.name] for row in sample])
        columns[feature.name] = fold.summary()
    return WindowSummarised(
        model=MODEL,
        spec_revision=1,
        window=WindowSpan(start=start, end=start + timedelta(days=30)),
        events=len(sample),
        columns=columns,
        sample=tuple(SampledRow(rank=0.0, partition=0, offset=n, values=row) for n, row in enumerate(sample)),
        closed=True,
        derived_from=LogRanges(),
    )


class World:
    """A model with a reference of 600 rows that go together."""

    def __init__(self, **monitors: Any) -> None:
        self.spec = spec(**monitors)
        reference = rows(1, 600, 0.8)
        columns = window(0, reference, self.spec).columns
        tools = Tools(detector, merge, iter(map(str, range(10_000))).__next__)
        self.store = MemoryWatches(tools)
        self.watchers = Watchers(
            FixedGazette({}),
            self.store,
            FixedReferences({"8" * 64: columns}, {name: [row[name] for row in reference] for name in columns}),
            SilentMeter(),
            FixedClock(),
            tell_apart,
        )
        self.known = knowledge(self.spec, deployment(1, 1), (version(1, "champion", reference=claim("8")),))

    async def see(self, month: int, sample: list[Row]) -> None:
        """A month's window."""
        await observe_window((WINDOWS, month, window(month, sample, self.spec)), self.known, self.watchers)

    def alerts(self) -> list[AlertRaised]:
        """Every alert of drift so far."""
        found = [event for event in self.store.published if isinstance(event, AlertRaised)]
        return [alert for alert in found if alert.kind == "feature-drift"]


async def test_a_correlation_that_turns_is_found_though_no_feature_moves() -> None:
    """A sensor that is wired the wrong way round would go unnoticed: each of its values is an ordinary one."""
    world = World()
    await world.see(0, rows(2, 500, 0.8))
    assert not world.alerts()
    await world.see(1, rows(3, 500, -0.8))
    await world.see(2, rows(4, 500, -0.8))
    (alert,) = world.alerts()
    assert (alert.kind, alert.subject) == ("feature-drift", TOGETHER)
    assert alert.value > 0.75 > alert.threshold > 0.5
    assert alert.since == FIRST_DAY + timedelta(days=30)
    await world.see(3, rows(5, 500, 0.8))
    await world.see(4, rows(6, 500, -0.8))
    assert len(world.alerts()) == 2


async def test_a_feature_that_moves_by_itself_is_told_once() -> None:
    """Every moved feature would raise a second alert that says less."""
    world = World(drift={"consecutive_windows": 2})
    await world.see(0, rows(2, 500, 0.8, shift=2.0))
    await world.see(1, rows(3, 500, 0.8, shift=2.0))
    assert {alert.subject for alert in world.alerts()} == {"level"}


@pytest.mark.parametrize("monitors", [{"multivariate": None}, {"multivariate": {"min_rows": 501}}])
async def test_what_is_switched_off_or_too_small_is_not_judged(monitors: dict[str, Any]) -> None:
    """The spec would be ignored, or a handful of rows be judged."""
    world = World(**monitors)
    await world.see(0, rows(3, 500, -0.8))
    assert not world.alerts()


def test_false_alarms_are_as_frequent_as_the_spec_says() -> None:
    """An operator who allows one in twenty windows would get many more, or a test that sees nothing."""
    features = spec().features
    scores = [
        tell_apart(table(rows(2 * run, 240, 0.8), features), table(rows(2 * run + 1, 240, 0.8), features), run).score
        for run in range(120)
    ]
    assert 1 <= sum(score > critical(0.05) for score in scores) <= 13
    assert 24 <= sum(score > critical(0.3) for score in scores) <= 50


def test_the_same_rows_give_the_same_answer() -> None:
    """A window that is read again after a crash would alert the second time."""
    features = spec().features
    one, other = table(rows(1, 300, 0.5), features), table(rows(2, 300, 0.4), features)
    assert tell_apart(one, other, 7) == tell_apart(one, other, 7)


def test_all_tests_of_a_window_share_one_budget() -> None:
    """The classifier's false alarms would come on top of those that the operator allows."""
    described = spec(expected_false_alarms="1 per 100 days", window_days=1)
    whole, rest = budget_of(described), budget_of(described, together=True)
    assert rest.per_window + chance_together(described) == pytest.approx(whole.per_window)
    assert chance_together(described) == pytest.approx(0.001)
    assert budget_of(spec(multivariate=None), together=True) == budget_of(spec())
