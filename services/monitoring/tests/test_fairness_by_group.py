"""Fairness of a cohort: groups and their intersections, what breaks a limit, and the words of the alert."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tailrace_contracts.events import ExampleLabelled, FeatureValue
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import FairnessMonitor, ModelSpec, load_spec
from tailrace_monitoring.domain import alerts
from tailrace_monitoring.domain.cohort_book import CohortBook
from tailrace_monitoring.domain.cohorts import Cohort, combinations_of, unfair_pairs, window_of
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.testing import FIRST_DAY, NOW, answered, labelled, tide_spec
from tailrace_statistics.fairness import GroupCounts

DATA = Path(__file__).parents[3] / "libs" / "cli" / "src" / "tailrace_cli" / "data"
FEATURES = [
    {"name": "quay", "type": "categorical", "categories": ["north", "south"]},
    {"name": "flag", "type": "categorical", "categories": ["red", "blue"]},
    {"name": "crew", "type": "categorical", "categories": ["old", "new"]},
]


def spec_of(*protected: str) -> ModelSpec:
    """`tide` with three categories, of which these are protected."""
    return tide_spec(features=FEATURES, protected=list(protected))


def cohort_of(spec: ModelSpec, *examples: ExampleLabelled) -> Cohort:
    """The one cohort in which these are counted."""
    book = CohortBook([])
    for offset, example in enumerate(examples):
        book.count(Placed(Log("labelled-examples", 0), offset, example), spec)
    (cohort,) = book.news()
    return cohort


def asked(number: int, label: int, prediction: int, **features: FeatureValue) -> ExampleLabelled:
    """An example of one day, for which the champion said `prediction`."""
    return labelled(number, label, answered("champion", prediction, 1), features=features, time=FIRST_DAY)


def counted(selected: dict[str, tuple[int, int]], attribute: str = "quay") -> Cohort:
    """A cohort with so many selected of so many examples in each group; every label is negative."""
    cohort = Cohort(span=window_of(FIRST_DAY, 30), arm="champion", version=1)
    cohort.groups[attribute] = {name: GroupCounts(fp=part, tn=whole - part) for name, (part, whole) in selected.items()}
    return cohort


def test_intersections_of_protected_attributes_are_counted() -> None:
    """A group that is treated badly only where two attributes meet would never be seen."""
    examples = [
        asked(n, n % 2, int(n % 3 == 0), quay="north" if n % 4 else "south", flag="red" if n % 5 else "blue")
        for n in range(40)
    ]
    cohort = cohort_of(spec_of("quay", "flag"), *examples)
    expected: Counter[str] = Counter(f"{each.features['quay']} x {each.features['flag']}" for each in examples)
    assert {name: each.examples for name, each in cohort.groups["quay x flag"].items()} == expected
    cells = {rates.group: rates.cell for rates in cohort.rates(FairnessMonitor()) if rates.attribute == "quay x flag"}
    assert cells["north x red"] == {"quay": "north", "flag": "red"}


def test_three_attributes_are_combined_in_pairs_and_together_and_many_only_so_far() -> None:
    """Ten protected attributes would make a thousand combinations and a table that nobody reads."""
    assert combinations_of(("a",)) == (("a",),)
    three = combinations_of(("a", "b", "c"))
    assert three == (("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c"))
    many = tuple("abcdefghij")
    assert len(combinations_of(many)) == 20
    assert combinations_of(many)[-1] == many


def test_a_correction_moves_the_cells_too() -> None:
    """A corrected label would be counted twice in an intersection, or a cell would become negative."""
    first = asked(0, 1, 1, quay="north", flag="red")
    second = first.model_copy(update={"label": 0, "label_revision": 1, "replaces": 1})
    cohort = cohort_of(spec_of("quay", "flag"), first, second)
    for attribute, group in (("quay", "north"), ("flag", "red"), ("quay x flag", "north x red")):
        assert cohort.groups[attribute] == {group: GroupCounts(fp=1)}


def test_an_attribute_that_becomes_protected_is_counted_from_the_next_cohort_on() -> None:
    """Half a cohort's counts, and corrections of what was never counted, would be shown as rates."""
    cohort = cohort_of(spec_of("quay"), asked(0, 1, 1, quay="north", flag="red"))
    cohort.fold(asked(1, 1, 1, quay="north", flag="red"), answered("champion", 1, 1), spec_of("quay", "flag"))
    assert list(cohort.groups) == ["quay"]
    old = Cohort.model_validate(cohort.model_dump(exclude={"grouped_by"}))
    old.fold(asked(2, 1, 1, quay="north", flag="red"), answered("champion", 1, 1), spec_of("quay", "flag"))
    assert list(old.groups) == ["quay"]


@pytest.mark.parametrize(
    ("north", "south", "found"),
    [
        ((130, 200), (100, 200), []),  # 15 points apart
        ((150, 200), (100, 200), []),  # 25 points apart: chance explains the 5 over the limit
        ((1_500, 2_000), (1_000, 2_000), ["difference"]),
        ((30, 40), (8, 40), []),  # too few to judge
    ],
)
def test_a_limit_is_broken_where_the_interval_excludes_it(
    north: tuple[int, int], south: tuple[int, int], found: list[str]
) -> None:
    """Every small cohort would raise an alert by chance, or a real difference none."""
    cohort = counted({"north": north, "south": south})
    monitor = FairnessMonitor(max_difference=0.2, min_group_examples=100)
    assert [each.limit for each in unfair_pairs(cohort, monitor)] == found


def test_four_fifths_is_a_limit_on_the_ratio() -> None:
    """Two groups that are hardly ever selected, one of them half as often, would pass for equal."""
    cohort = counted({"north": (300, 10_000), "south": (150, 10_000)})
    assert list(unfair_pairs(cohort, FairnessMonitor(max_difference=0.2))) == []
    (found,) = unfair_pairs(cohort, FairnessMonitor(max_difference=0.2, min_ratio=0.8))
    alert = alerts.unfair(alerts.Stamp("a", "tide", NOW), cohort, found, 0.8, FIRST_DAY)
    assert (alert.subject, alert.statistic, alert.threshold) == ("quay", "selection rate ratio", 0.8)
    assert alert.value == pytest.approx(0.5)
    assert "version 1 selects quay=south 0.50 times as often as quay=north (0.4" in alert.message
    assert alert.message.endswith("; the spec asks for 0.80")


def test_the_true_positive_rate_is_judged_where_the_spec_says_so() -> None:
    """A model that misses the sick of one group, and selects both equally, would be called fair."""
    cohort = counted({})
    cohort.groups["quay"] = {
        "north": GroupCounts(tp=900, fn=100, fp=100, tn=900),
        "south": GroupCounts(tp=400, fn=600, fp=600, tn=400),
    }
    assert list(unfair_pairs(cohort, FairnessMonitor())) == []
    monitor = FairnessMonitor(rates=("true_positive_rate", "false_positive_rate"))
    first, second = unfair_pairs(cohort, monitor)
    assert [first.pair.rate, second.pair.rate] == ["true_positive_rate", "false_positive_rate"]
    alert = alerts.unfair(alerts.Stamp("a", "tide", NOW), cohort, first, 0.2, FIRST_DAY - timedelta(days=60))
    assert alert.value == pytest.approx(0.5)
    assert "the true positive rate of version 1 is 50.0% higher for quay=north than for quay=south" in alert.message
    assert "as since 2019-11-02" in alert.message
    assert alert.since == FIRST_DAY - timedelta(days=60)


def test_an_intersection_alerts_where_its_attributes_do_not() -> None:
    """Women of one race would be passed over while women and the race as such are not."""
    cohort = counted({"n": (500, 1_000), "s": (500, 1_000)})
    cohort.groups["flag"] = {"r": GroupCounts(fp=500, tn=500), "b": GroupCounts(fp=500, tn=500)}
    cohort.groups["quay x flag"] = {
        "n x r": GroupCounts(fp=400, tn=100),
        "n x b": GroupCounts(fp=100, tn=400),
        "s x r": GroupCounts(fp=100, tn=400),
        "s x b": GroupCounts(fp=400, tn=100),
    }
    (found,) = unfair_pairs(cohort, FairnessMonitor())
    assert found.pair.attribute == "quay x flag"
    assert list(unfair_pairs(cohort, FairnessMonitor(intersections=False))) == []
    cohort.groups["quay"] = {"n": GroupCounts(fp=900, tn=100), "s": GroupCounts(fp=100, tn=900)}
    (found,) = unfair_pairs(cohort, FairnessMonitor())
    assert found.pair.attribute == "quay"


def a_year_of_the_survey() -> list[dict[str, Any]]:
    """The first rows of the employment stream."""
    columns = ["SEX", "RAC1P", "employed", "prediction"]
    rows: list[dict[str, Any]] = pq.read_table(DATA / "employment.parquet", columns=columns)[:30_000].to_pylist()
    return rows


def test_the_survey_by_sex_and_race_is_what_a_plain_count_says() -> None:
    """The rates of real people's groups would be wrong."""
    spec, rows = load_spec(DATA / "employment.yaml"), a_year_of_the_survey()
    cohort = Cohort(span=window_of(FIRST_DAY, 30), arm="external", version=None)
    for number, row in enumerate(rows):
        features = {name: row[name] for name in ("SEX", "RAC1P")}
        example = labelled(number, row["employed"], features=features)
        cohort.fold(example, answered("external", row["prediction"]), spec)
    monitor = spec.monitors.fairness
    found = {(each.attribute, each.group): each for each in cohort.rates(monitor)}
    for sex in ("1", "2"):
        for race in ("1", "2", "6"):
            mine = [row for row in rows if str(row["SEX"]) == sex and str(row["RAC1P"]) == race]
            rates = found["SEX x RAC1P", f"{sex} x {race}"]
            positives = [row for row in mine if row["employed"] == 1]
            hits = sum(row["prediction"] == 1 for row in positives)
            assert rates.examples == len(mine)
            assert rates.judged == (len(mine) >= 500)
            assert rates.selection_rate == sum(row["prediction"] == 1 for row in mine) / len(mine)
            assert rates.true_positive_rate == hits / len(positives)
    men, women = found["SEX", "1"], found["SEX", "2"]
    (compared,) = [
        each
        for each in cohort.measured("e", "employment", monitor, NOW).comparisons
        if each.attribute == "SEX" and each.rate == "selection_rate"
    ]
    assert (men.examples + women.examples, compared.group, compared.reference) == (30_000, "1", "2")
    assert compared.difference == pytest.approx((men.selection_rate or 0) - (women.selection_rate or 0))
    assert compared.difference_interval.lower < compared.difference < (compared.difference_interval.upper or 0)
