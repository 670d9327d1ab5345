"""Thresholds that keep a false-alarm budget over all tests of a model together."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, FeatureValue
from tailrace_contracts.spec import DistanceKind, ModelSpec, parse_spec
from tailrace_statistics import CategoricalFold, NumericalFold
from tailrace_statistics.calibration import MOST_PER_WINDOW, Budget, Probe, Values, Yardstick, independent_rows
from tailrace_statistics.distances import automatic
from tailrace_statistics.reference import Reference

DAILY = Budget(1, 30)
ROWS = 3_000

Matrix = npt.NDArray[np.float64]


def numbers(values: Matrix) -> ColumnSummary:
    """The summary of a column of numbers."""
    fold = NumericalFold()
    fold.fold(values)
    return fold.summary()


def words(values: list[FeatureValue]) -> CategoricalSummary:
    """The summary of a column of words."""
    fold = CategoricalFold(["a", "b"])
    fold.fold(None if value is None else str(value) for value in values)
    return fold.summary()


def draw(random: np.random.Generator, size: int, correlation: float, columns: int = 4) -> dict[str, Matrix]:
    """Normal columns of a common correlation."""
    common = correlation**0.5 * random.normal(size=size)
    return {f"x{each}": common + (1 - correlation) ** 0.5 * random.normal(size=size) for each in range(columns)}


def summaries(table: Mapping[str, Matrix]) -> dict[str, ColumnSummary]:
    """Every column's summary."""
    return {name: numbers(column) for name, column in table.items()}


def yardstick(table: Mapping[str, Matrix], kind: DistanceKind = "kolmogorov-smirnov") -> Yardstick:
    """One that is made of these rows."""
    rows: dict[str, Values] = dict(table)
    return Yardstick(summaries(table), rows, dict.fromkeys(table, kind))


@pytest.mark.parametrize(("correlation", "kind"), [(0.0, "wasserstein"), (0.9, "kolmogorov-smirnov"), (0.5, "psi")])
def test_alarms_without_drift_are_those_of_the_budget(correlation: float, kind: DistanceKind) -> None:
    """The console would cry wolf, or sleep. 1,200 windows expect 40 alarms; one reference makes that 15 to 85."""
    random = np.random.default_rng(1)
    judged = yardstick(draw(random, ROWS, correlation), kind)
    limits = judged.thresholds(500, DAILY)
    alarms = 0
    for _ in range(1_200):
        found = judged.measure(summaries(draw(random, 500, correlation)))
        alarms += any(value > limits[probe] for probe, value in found.items())
    assert 15 <= alarms <= 85


def heavy(random: np.random.Generator, size: int) -> dict[str, Matrix]:
    """Columns that depend on each other: light, heavy and very heavy tails, mostly zero, a few values, some missing."""
    z = 0.6 * random.normal(size=size) + 0.8 * random.normal(size=(4, size))
    return {
        "light": z[0],
        "heavy": np.where(z[0] < -1.6, np.nan, np.exp(z[1])),
        "zero": np.where(z[2] < 0.5, 0.0, np.exp(1.5 * z[2])),
        "very heavy": np.sign(z[3]) * np.abs(z[3]) ** 3 / np.maximum(random.random(size), 1e-3),
        "few": np.floor(np.abs(z[3]) * 1.5),
    }


def test_alarms_on_heavy_tails_are_those_of_the_budget_over_many_references() -> None:
    """Thresholds would fit well-behaved columns only, and cry wolf on money and waiting times.

    200 runs of 30 windows, 20 on each of 10 references, expect 200 alerts: chance makes that 144 to 256 in 999 of
    1,000 (Poisson's 14, and about 8 of the references' luck and of the simulation). Windows of 200 are sketched without
    loss, so that the seeds fix almost everything.
    """
    alerts = 0
    for seed in range(10):
        random = np.random.default_rng([18, seed])
        reference = heavy(random, 5_000)
        columns = summaries(reference)
        judged = Yardstick(columns, dict(reference), {name: automatic(each) for name, each in columns.items()})
        limits = judged.thresholds(200, DAILY)
        for _ in range(20):
            before: set[Probe] = set()
            for _ in range(30):
                found = judged.measure(summaries(heavy(random, 200)))
                over = {probe for probe, value in found.items() if value > limits[probe]}
                alerts += bool(over - before)
                before = over
    assert 144 <= alerts <= 256


def test_columns_that_move_together_are_not_counted_as_many() -> None:
    """Eight copies of one feature would make its drift as hard to see as one of eight."""
    random = np.random.default_rng(2)
    plan: list[FeatureValue] = ["a" if each < 0.7 else "b" for each in random.random(ROWS)]
    limits = {}
    for count in (1, 8):
        names = [f"x{each}" for each in range(count)]
        columns, rows = dict.fromkeys(names, words(plan)), dict.fromkeys(names, plan)
        judged = Yardstick(columns, rows, dict.fromkeys(names, "psi"))
        limits[count] = judged.thresholds(500, DAILY)[Probe("x0", "psi")]
    assert limits[8] == pytest.approx(limits[1], rel=1e-9)


def test_sketched_copies_of_a_column_lie_between_one_column_and_eight_independent_ones() -> None:
    """Their sketches toss coins of their own, so copies are not quite one; counting them as eight would hide drift."""
    random = np.random.default_rng(2)
    alone = {"x0": random.normal(size=ROWS)}
    copies = {f"x{each}": alone["x0"] for each in range(8)}
    others = draw(random, ROWS, 0.0, columns=8)
    probe = Probe("x0", "psi")
    one, same, many = (yardstick(each, "psi").thresholds(500, DAILY)[probe] for each in (alone, copies, others))
    assert one < same < many


def test_a_change_is_found_and_by_name() -> None:
    """Thresholds that chance never passes would pass for good ones if drift did not pass them either."""
    random = np.random.default_rng(3)
    judged = yardstick(draw(random, ROWS, 0.5), "wasserstein")
    limits = judged.limits(1_000, DAILY)
    window = draw(random, 1_000, 0.5)
    window["x2"] = window["x2"] + 0.4
    found = judged.measure(summaries(window))
    assert [str(probe) for probe, value in found.items() if value > limits[probe]] == ["x2"]


def test_larger_windows_have_lower_thresholds_down_to_the_references_own_error() -> None:
    """A million events would be judged as coarsely as a thousand, or as if the reference were exact."""
    random = np.random.default_rng(4)
    judged = yardstick(draw(random, ROWS, 0.0, columns=1))
    small, between, large = (
        judged.limits(events, DAILY)[Probe("x0", "kolmogorov-smirnov")] for events in (256, 300, 8_192)
    )
    assert small > between > large > 1.3 * ROWS**-0.5
    assert between == pytest.approx(small * ((1 / 300 + 1 / ROWS) / (1 / 256 + 1 / ROWS)) ** 0.5, rel=0.05)


def test_windows_in_a_row_that_make_an_alert_may_each_come_more_often() -> None:
    """Asking for three in a row would make alerts of chance rarer than the budget, and drift later."""
    random = np.random.default_rng(5)
    judged = yardstick(draw(random, ROWS, 0.0, columns=2))
    one, three = (judged.thresholds(500, Budget(1, 30, streak)) for streak in (1, 3))
    assert all(three[probe] < 0.8 * one[probe] for probe in one if probe.statistic != "missing")


def test_a_budget_of_hourly_windows_is_beyond_what_is_simulated() -> None:
    """One alert in 720 windows would be judged by the few simulated windows beyond it."""
    random = np.random.default_rng(6)
    judged = yardstick(draw(random, ROWS, 0.0, columns=1))
    daily, hourly, rare = (judged.thresholds(500, Budget(1, windows)) for windows in (30, 720, 7_200))
    probe = Probe("x0", "kolmogorov-smirnov")
    # Smirnov's limit: the chance of c sqrt(1/n + 1/m) is 2 exp(-2 c^2)
    for limits, windows in ((daily, 30), (hourly, 720), (rare, 7_200)):
        exact = (np.log(2 * windows) / 2) ** 0.5 * (1 / 500 + 1 / ROWS) ** 0.5
        assert limits[probe] == pytest.approx(exact, rel=0.09)


def test_a_budget_is_never_more_than_one_window_in_twenty() -> None:
    """Windows of a month under `1 per 30 days` would alert every month."""
    assert Budget(1, 1).per_window == MOST_PER_WINDOW
    assert Budget(1, 30).per_window == pytest.approx(1 / 30)


def test_missing_and_unseen_values_have_thresholds_even_where_there_were_none() -> None:
    """The first missing value of a year would be an alarm, or a feature that fails would not be."""
    random = np.random.default_rng(7)
    sometimes = np.where(random.random(ROWS) < 0.1, np.nan, random.normal(size=ROWS))
    plan: list[FeatureValue] = ["a" if each < 0.7 else "b" for each in random.random(ROWS)]
    columns = {"sometimes": numbers(sometimes), "never": numbers(random.normal(size=ROWS)), "plan": words(plan)}
    rows: dict[str, Values] = {"sometimes": sometimes, "never": random.normal(size=ROWS), "plan": plan}
    kinds: dict[str, DistanceKind] = {"sometimes": "wasserstein", "never": "wasserstein", "plan": "jensen-shannon"}
    limits = Yardstick(columns, rows, kinds).thresholds(1_000, DAILY)
    assert 0.02 < limits[Probe("sometimes", "missing")] < 0.05
    for probe in (Probe("never", "missing"), Probe("plan", "missing"), Probe("plan", "unseen")):
        assert 0.001 < limits[probe] < 0.01


def test_a_constant_may_have_another_value_rarely() -> None:
    """A switch that nobody has ever touched would alarm at its first touch, or never."""
    random = np.random.default_rng(8)
    table = {"switch": np.zeros(ROWS), "x": random.normal(size=ROWS)}
    judged = yardstick(table, "jensen-shannon")
    limits = judged.thresholds(1_000, DAILY)
    for touched, over in ((1, False), (60, True)):
        window = {"switch": (np.arange(1_000) < touched).astype(float), "x": random.normal(size=1_000)}
        probe = Probe("switch", "jensen-shannon")
        assert (judged.measure(summaries(window))[probe] > limits[probe]) == over


def test_groups_are_judged_within_the_same_budget() -> None:
    """Drift within one group would hide in the whole, or each group would have false alarms of its own."""
    random = np.random.default_rng(9)
    group: list[FeatureValue] = ["a" if each < 0.8 else "b" for each in random.random(ROWS)]
    level = random.normal(size=ROWS)
    columns, rows = {"level": numbers(level), "group": words(group)}, {"level": level, "group": group}
    kinds: dict[str, DistanceKind] = {"level": "kolmogorov-smirnov", "group": "chi-squared"}
    judged = Yardstick(columns, rows, kinds, ["group"])  # type: ignore[arg-type]  # dict values are invariant
    assert judged.expected(1_000)["group", "b"] == pytest.approx(200, rel=0.1)
    probe = Probe("level", "kolmogorov-smirnov", "group", "b")
    assert str(probe) == "level where group=b"
    limits = judged.limits(1_024, DAILY, least=100)
    assert limits[probe] > 1.5 * limits[Probe("level", "kolmogorov-smirnov")]
    assert probe not in judged.limits(1_024, DAILY, least=400)
    part = {"level": numbers(random.normal(0.5, 1, 200))}
    found = judged.measure(columns, {("group", "b"): part})
    assert found[probe] > limits[probe]


def test_a_reference_without_rows_is_resampled_column_by_column() -> None:
    """Versions that were trained before there was a row sample would have no drift."""
    random = np.random.default_rng(10)
    some = np.where(random.random(ROWS) < 0.2, np.nan, random.normal(size=ROWS))
    columns: dict[str, ColumnSummary] = {"x": numbers(some), "plan": words(["a", "a", None, "?"] * 500)}
    rows = independent_rows(columns)
    again = {"x": numbers(np.asarray(rows["x"])), "plan": words(list(rows["plan"]))}
    assert again["x"].missing / len(rows["x"]) == pytest.approx(0.2, abs=0.03)
    assert again["plan"].counts["a"] / again["plan"].count == pytest.approx(2 / 3, abs=0.05)  # type: ignore[union-attr]
    judged = Yardstick(columns, rows, {"x": "kolmogorov-smirnov", "plan": "jensen-shannon"})
    assert set(judged.thresholds(500, DAILY)) == set(judged.measure(columns))


def spec() -> ModelSpec:
    """A number and a category."""
    features = [{"name": "wind", "type": "numerical"}, {"name": "sky", "type": "categorical", "categories": ["blue"]}]
    return parse_spec({"model": "rain", "owner": "me", "features": features, "label": {"name": "rain"}})


def test_rows_come_back_from_a_reference_and_from_one_of_yesterday() -> None:
    """Thresholds would be calibrated on other rows than the version was trained on, or not at all."""
    rows: list[dict[str, FeatureValue]] = [
        {"wind": 0.5, "sky": "blue"}, {"wind": None, "sky": "grey"}, {"wind": 2.0, "sky": None}
    ]  # fmt: skip
    reference = Reference.build(spec(), rows)
    document = json.loads(reference.to_bytes())
    del document["rows"]
    for each in (Reference.from_bytes(reference.to_bytes()), Reference.from_bytes(json.dumps(document).encode())):
        found = each.row_columns()
        np.testing.assert_array_equal(np.asarray(found["wind"], dtype=float), [0.5, np.nan, 2.0])
        assert found["sky"] == ["blue", "grey", None]


def test_nothing_to_test_gives_no_thresholds() -> None:
    """A version without a training set would stop its monitoring."""
    assert Yardstick({}, {}, {}).limits(500, DAILY) == {}
