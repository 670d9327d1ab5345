"""Outcomes by protected group: who is selected, for whom the model is right, and how far groups lie apart.

The rates are those of Hardt, Price and Srebro (2016, "Equality of opportunity in supervised learning"); the difference
of selection rates is demographic parity's (Calders and Verwer 2010), their ratio that of the four-fifths rule (EEOC,
Uniform Guidelines on Employee Selection Procedures 1978, section 4D).

A sample's rates differ by chance alone. So a limit counts as broken where a confidence interval excludes it (Newcombe's
for differences, Koopman's score for ratios), and since many pairs of groups are looked at together, each interval holds
at 1 - error_rate / number of judged comparisons (Bonferroni): the chance that anything at all is called unfair although
every limit is kept is at most the error rate, however the groups depend on each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from tailrace_contracts.events import Bounds, FeatureValue, GroupRates, GroupsCompared
from tailrace_contracts.spec import FairnessMonitor, FairnessRate
from tailrace_statistics.intervals import (
    Counted,
    Interval,
    critical_value,
    koopman_interval,
    newcombe_interval,
    ratio_score,
    wilson_interval,
)

RATES: tuple[FairnessRate, ...] = ("selection_rate", "true_positive_rate", "false_positive_rate")

CROSS = " x "
"""Between the names, and the values, of attributes that make an intersection together."""

Limit = Literal["difference", "ratio"]
Groups = Mapping[str, "GroupCounts"]


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

    def counted(self, rate: FairnessRate) -> Counted:
        """What a rate is a share of."""
        match rate:
            case "selection_rate":
                return Counted(self.tp + self.fp, self.examples)
            case "true_positive_rate":
                return Counted(self.tp, self.tp + self.fn)
            case "false_positive_rate":
                return Counted(self.fp, self.fp + self.tn)

    def rates(self, attribute: str, group: str, min_examples: int | None = None) -> GroupRates:
        """The group's rates with their intervals at 95 %; None where the denominator is 0.

        `min_examples` is from how many on it is judged; None: it is not.
        """
        selected, positive, negative = map(self.counted, RATES)
        right = Counted(self.tp + self.tn, self.examples)
        return GroupRates(
            attribute=attribute,
            group=group,
            examples=self.examples,
            selection_rate=selected.share,
            true_positive_rate=positive.share,
            false_positive_rate=negative.share,
            accuracy=right.share,
            cell=cell_names(attribute, group),
            judged=min_examples is not None and self.examples >= min_examples,
            selection_interval=_wilson(selected),
            true_positive_interval=_wilson(positive),
            false_positive_interval=_wilson(negative),
            accuracy_interval=_wilson(right),
        )


def cell_names(attribute: str, group: str) -> dict[str, str]:
    """The value of each attribute, where the group is an intersection."""
    names, values = attribute.split(CROSS), group.split(CROSS)
    return dict(zip(names, values, strict=True)) if 1 < len(names) == len(values) else {}


def _wilson(counted: Counted) -> Bounds | None:
    return _bounds(wilson_interval(*counted)) if counted.whole else None


def _bounds(interval: Interval) -> Bounds:
    return Bounds(lower=interval.lower, upper=interval.upper if math.isfinite(interval.upper) else None)


def count_groups(
    groups: Iterable[FeatureValue], predictions: Iterable[int], labels: Iterable[int], *, positive: int = 1
) -> dict[str, GroupCounts]:
    """Counts by value of one protected attribute, from parallel columns. A missing value is no group."""
    cells = Counter(zip(groups, predictions, labels, strict=True))
    found: dict[str, GroupCounts] = {}
    for (group, prediction, label), count in cells.items():
        if group is not None:
            name = str(group)
            found[name] = found.get(name, GroupCounts()).plus(cell(prediction == positive, label == positive, count))
    return found


def merge_groups(a: dict[str, GroupCounts], b: dict[str, GroupCounts]) -> dict[str, GroupCounts]:
    """The counts of two disjoint sets of examples, by group."""
    return {name: a.get(name, GroupCounts()).plus(b.get(name, GroupCounts())) for name in sorted(a.keys() | b.keys())}


def group_rates(
    attribute: str, counts: Mapping[str, GroupCounts], min_examples: int | None = None
) -> tuple[GroupRates, ...]:
    """Every group's rates, in the order of the groups' names."""
    return tuple(counts[name].rates(attribute, name, min_examples) for name in sorted(counts))


def selection_gap(rates: Sequence[GroupRates], min_examples: int = 1) -> float:
    """The largest difference of selection rates between groups of at least `min_examples`; 0 with fewer than two."""
    judged = [
        each.selection_rate for each in rates if each.examples >= min_examples and each.selection_rate is not None
    ]
    return max(judged) - min(judged) if len(judged) > 1 else 0.0


def cell(selected: bool, positive: bool, count: int) -> GroupCounts:
    """`count` examples of one outcome; -1 takes one back."""
    match selected, positive:
        case True, True:
            return GroupCounts(tp=count)
        case True, False:
            return GroupCounts(fp=count)
        case False, True:
            return GroupCounts(fn=count)
    return GroupCounts(tn=count)


# ---------------------------------------------------------------- groups against each other


class Pair(NamedTuple):
    """One rate of two groups, and the limits of the spec that they are sure to break."""

    rate: FairnessRate
    group: str
    reference: str
    one: Counted
    other: Counted
    over: tuple[Limit, ...]

    @property
    def difference(self) -> float:
        """The group's rate less the reference's."""
        return (self.one.share or 0.0) - (self.other.share or 0.0)

    @property
    def lower_over_higher(self) -> float:
        """The ratio that the four-fifths rule looks at."""
        low, high = sorted((self.one.share or 0.0, self.other.share or 0.0))
        return low / high if high else 1.0


def judged_groups(groups: Mapping[str, Groups], monitor: FairnessMonitor) -> dict[str, Groups]:
    """By attribute, the groups that have enough examples; attributes with fewer than two of them are left out."""
    enough = {
        attribute: {name: each for name, each in found.items() if each.examples >= monitor.min_group_examples}
        for attribute, found in groups.items()
        if monitor.intersections or CROSS not in attribute
    }
    return {attribute: found for attribute, found in enough.items() if len(found) > 1}


def comparison_confidence(judged: Mapping[str, Groups], monitor: FairnessMonitor) -> float:
    """The confidence of each interval at which all that are judged hold together with 1 - error_rate."""
    limits = (monitor.max_difference is not None) + (monitor.min_ratio is not None)
    pairs = sum(math.comb(len(found), 2) for found in judged.values())
    return 1 - monitor.error_rate / max(1, pairs * len(monitor.rates) * limits)


def compare_groups(groups: Mapping[str, Groups], monitor: FairnessMonitor) -> tuple[GroupsCompared, ...]:
    """Each judged group against the largest one of its attribute, and of the pairs that break a limit the worst.

    All pairs of judged groups are looked at; those of `monitor.rates` are judged.
    """
    judged = judged_groups(groups, monitor)
    confidence = comparison_confidence(judged, monitor)
    return tuple(
        _compared(attribute, pair, confidence)
        for attribute, found in sorted(judged.items())
        for pair in _shown(found, monitor, confidence)
    )


def _shown(found: Groups, monitor: FairnessMonitor, confidence: float) -> Iterator[Pair]:
    by_size = sorted(found, key=lambda name: (-found[name].examples, name))
    for rate in RATES:
        pairs = [
            pair
            for reference, group in combinations(by_size, 2)
            if (pair := _pair(rate, (group, found[group]), (reference, found[reference]), monitor, confidence))
        ]
        against_largest = [pair for pair in pairs if pair.reference == by_size[0]]
        yield from against_largest
        yield from (pair for pair in _worst(pairs) if pair not in against_largest)


def _worst(pairs: Sequence[Pair]) -> list[Pair]:
    """Of the pairs that break a limit, for each limit the one that lies furthest apart."""
    broken = [pair for pair in pairs if "difference" in pair.over]
    worst = [max(broken, key=lambda pair: abs(pair.difference))] if broken else []
    broken = [pair for pair in pairs if "ratio" in pair.over]
    worst += [min(broken, key=lambda pair: pair.lower_over_higher)] if broken else []
    return list(dict.fromkeys(worst))


def _pair(
    rate: FairnessRate,
    group: tuple[str, GroupCounts],
    reference: tuple[str, GroupCounts],
    monitor: FairnessMonitor,
    confidence: float,
) -> Pair | None:
    one, other = group[1].counted(rate), reference[1].counted(rate)
    if not one.whole or not other.whole:
        return None
    over = tuple(_broken(one, other, monitor, confidence)) if rate in monitor.rates else ()
    return Pair(rate, group[0], reference[0], one, other, over)


def _broken(one: Counted, other: Counted, monitor: FairnessMonitor, confidence: float) -> Iterator[Limit]:
    """The limits that the interval excludes."""
    if monitor.max_difference is not None:
        lower, upper = newcombe_interval(one, other, confidence)
        if max(lower, -upper) > monitor.max_difference:
            yield "difference"
    if monitor.min_ratio is not None:
        low, high = sorted((one, other), key=lambda each: each.part / each.whole)
        below = low.part / low.whole < monitor.min_ratio * (high.part / high.whole)
        if below and ratio_score(low, high, monitor.min_ratio) > critical_value(confidence) ** 2:
            yield "ratio"


def _compared(attribute: str, pair: Pair, confidence: float) -> GroupsCompared:
    share = pair.other.share
    return GroupsCompared(
        attribute=attribute,
        rate=pair.rate,
        group=pair.group,
        reference=pair.reference,
        difference=pair.difference,
        difference_interval=_bounds(newcombe_interval(pair.one, pair.other, confidence)),
        ratio=(pair.one.share or 0.0) / share if share else None,
        ratio_interval=_bounds(koopman_interval(pair.one, pair.other, confidence)),
        confidence=confidence,
        over=pair.over,
    )
