"""Outcomes by protected group: who is selected, and for whom the model is right.

The rates are those of Hardt, Price and Srebro (2016, "Equality of opportunity in supervised learning"); the gap of
selection rates is demographic parity's difference (Calders and Verwer 2010).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tailrace_contracts.events import FeatureValue, GroupRates


class GroupCounts(NamedTuple):
    """One group's examples by prediction and truth. Counts of disjoint examples add."""

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0

    @property
    def examples(self) -> int:
        """All of the group's examples."""
        return self.tp + self.fp + self.tn + self.fn

    def plus(self, other: GroupCounts) -> GroupCounts:
        """The counts of both."""
        return GroupCounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def rates(self, attribute: str, group: str) -> GroupRates:
        """The group's rates; None where the denominator is 0."""
        return GroupRates(
            attribute=attribute,
            group=group,
            examples=self.examples,
            selection_rate=_share(self.tp + self.fp, self.examples),
            true_positive_rate=_share(self.tp, self.tp + self.fn),
            false_positive_rate=_share(self.fp, self.fp + self.tn),
            accuracy=_share(self.tp + self.tn, self.examples),
        )


def count_groups(
    groups: Iterable[FeatureValue], predictions: Iterable[int], labels: Iterable[int], *, positive: int = 1
) -> dict[str, GroupCounts]:
    """Counts by value of one protected attribute, from parallel columns. A missing value is no group."""
    cells = Counter(zip(groups, predictions, labels, strict=True))
    found: dict[str, GroupCounts] = {}
    for (group, prediction, label), count in cells.items():
        if group is not None:
            name = str(group)
            found[name] = found.get(name, GroupCounts()).plus(_cell(prediction == positive, label == positive, count))
    return found


def merge_groups(a: dict[str, GroupCounts], b: dict[str, GroupCounts]) -> dict[str, GroupCounts]:
    """The counts of two disjoint sets of examples, by group."""
    return {name: a.get(name, GroupCounts()).plus(b.get(name, GroupCounts())) for name in sorted(a.keys() | b.keys())}


def group_rates(attribute: str, counts: dict[str, GroupCounts]) -> tuple[GroupRates, ...]:
    """Every group's rates, in the order of the groups' names."""
    return tuple(counts[name].rates(attribute, name) for name in sorted(counts))


def selection_gap(rates: Sequence[GroupRates], min_examples: int = 1) -> float:
    """The largest difference of selection rates between groups of at least `min_examples`; 0 with fewer than two."""
    judged = [
        each.selection_rate for each in rates if each.examples >= min_examples and each.selection_rate is not None
    ]
    return max(judged) - min(judged) if len(judged) > 1 else 0.0


def _cell(selected: bool, positive: bool, count: int) -> GroupCounts:
    match selected, positive:
        case True, True:
            return GroupCounts(tp=count)
        case True, False:
            return GroupCounts(fp=count)
        case False, True:
            return GroupCounts(fn=count)
    return GroupCounts(tn=count)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
