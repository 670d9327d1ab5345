"""How often equal groups are called unequal, and unequal ones are found: intervals beside a bare gap.

    uv run python tests/benchmarks/fairness.py

Cohorts of the survey's size (5,700 answers) are drawn with the survey's two sexes and nine races and the groups that both
make. `gap` is the rule of before: the two groups with the highest and the lowest selection rate lie further apart than
the spec allows. `intervals` is what monitoring does.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tailrace_contracts.spec import FairnessMonitor
from tailrace_statistics.fairness import CROSS, GroupCounts, compare_groups, group_rates, selection_gap

SEX = {"1": 0.48, "2": 0.52}
RACE = {"1": 0.815, "2": 0.061, "6": 0.062, "8": 0.031, "9": 0.0275, "3": 0.001, "5": 0.001, "7": 0.001, "4": 0.0005}
COHORT = 5_700
LIMIT = 0.1
RUNS = 2_000

Groups = dict[str, dict[str, GroupCounts]]


def cohort(draw: np.random.Generator, rate: float, lower_for_race_2: float) -> Groups:
    """One cohort: everybody is selected at `rate`, those of race 2 less often."""
    groups: Groups = {"SEX": {}, "RAC1P": {}, f"SEX{CROSS}RAC1P": {}}
    for (sex, share), (race, part) in product(SEX.items(), RACE.items()):
        count = int(draw.poisson(COHORT * share * part))
        selected = int(draw.binomial(count, rate - lower_for_race_2 * (race == "2")))
        cell = GroupCounts(fp=selected, tn=count - selected)
        for attribute, name in (("SEX", sex), ("RAC1P", race), (f"SEX{CROSS}RAC1P", f"{sex}{CROSS}{race}")):
            groups[attribute][name] = groups[attribute].get(name, GroupCounts()).plus(cell)
    return groups


def gap_alerts(groups: Groups, monitor: FairnessMonitor) -> bool:
    """The rule of before, on single attributes."""
    limit = monitor.max_difference or 1.0
    return any(
        selection_gap(group_rates(attribute, found), monitor.min_group_examples) > limit
        for attribute, found in groups.items()
        if CROSS not in attribute
    )


def interval_alerts(groups: Groups, monitor: FairnessMonitor) -> bool:
    """Monitoring's rule, intersections included."""
    return any(each.over for each in compare_groups(groups, monitor))


def main() -> None:
    """Print a table."""
    draw = np.random.default_rng(7)
    print(f"limit {LIMIT:.0%}, {RUNS:,} cohorts of {COHORT:,}; share of cohorts with an alert")
    print(f"{'smallest group':>14} {'true gap':>9} {'gap':>7} {'intervals':>10}")
    for smallest, apart in product((50, 150), (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)):
        monitor = FairnessMonitor(max_difference=LIMIT, min_group_examples=smallest)
        drawn = [cohort(draw, 0.5, apart) for _ in range(RUNS)]
        found = [sum(rule(each, monitor) for each in drawn) / RUNS for rule in (gap_alerts, interval_alerts)]
        print(f"{smallest:>14} {apart:>9.0%} {found[0]:>7.1%} {found[1]:>10.1%}")


if __name__ == "__main__":
    main()
