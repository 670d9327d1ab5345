"""Errors of a regression by protected group: how large they are, in which direction they lean, how far groups lie apart.

The mean absolute error says for whom the model is less exact, the bias (mean of prediction less label) whom it overrates.
Both have intervals from the sums alone, since an error's square is that of its size: Student's for a mean, Welch's for
the difference of two. As with rates (`fairness`), a limit is broken where an interval excludes it, and the intervals of
all judged comparisons hold together (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

from tailrace_contracts.events import Bounds, GroupRates, GroupsCompared
from tailrace_contracts.spec import FairnessMonitor
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.fairness import CROSS, cell_names
from tailrace_statistics.intervals import Interval, Sample, mean_interval, mean_ratio_interval, welch_interval

ErrorRate = Literal["mae", "bias"]
ERROR_RATES: tuple[ErrorRate, ...] = ("mae", "bias")

Errors = Mapping[str, ErrorSums]


def sample_of(sums: ErrorSums, rate: ErrorRate) -> Sample:
    """The errors' sizes, or the errors themselves, as a sample."""
    n, mean = sums.examples, sums.mae if rate == "mae" else sums.bias
    variance = max(0.0, sums.squared - n * mean * mean) / (n - 1) if n > 1 else 0.0
    return Sample(n, mean, variance)


def error_rates(groups: Mapping[str, Errors], min_examples: int) -> Iterator[GroupRates]:
    """Every group's errors with their intervals at 95 %, by attribute and name."""
    for attribute, found in sorted(groups.items()):
        for group, sums in sorted(found.items()):
            yield GroupRates(
                attribute=attribute,
                group=group,
                examples=sums.examples,
                metrics=sums.metrics(),
                cell=cell_names(attribute, group),
                judged=sums.examples >= min_examples,
                mae_interval=_mean(sums, "mae"),
                bias_interval=_mean(sums, "bias"),
            )


def compare_errors(groups: Mapping[str, Errors], monitor: FairnessMonitor) -> tuple[GroupsCompared, ...]:
    """Each judged group against the largest one of its attribute, and of the pairs that break a limit the worst."""
    judged = {
        attribute: {name: sums for name, sums in found.items() if sums.examples >= max(2, monitor.min_group_examples)}
        for attribute, found in groups.items()
        if monitor.intersections or CROSS not in attribute
    }
    limits = {rate: limit for rate in ERROR_RATES if (limit := limit_of(rate, monitor)) is not None}
    looked = sum(math.comb(len(found), 2) for found in judged.values()) * len(limits)
    confidence = 1 - monitor.error_rate / max(1, looked)
    return tuple(
        pair
        for attribute, found in sorted(judged.items())
        for rate in ERROR_RATES
        for pair in _shown(Question(attribute, rate, limits.get(rate), confidence), found)
    )


class Question(NamedTuple):
    """Which figure of which attribute's groups is compared, how far they may lie apart, and how sure one has to be."""

    attribute: str
    rate: ErrorRate
    limit: float | None
    confidence: float


def limit_of(rate: ErrorRate, monitor: FairnessMonitor) -> float | None:
    """How far two groups may lie apart by the spec, in the label's unit."""
    return monitor.max_mae_difference if rate == "mae" else monitor.max_bias_difference


def _shown(question: Question, found: Errors) -> Iterator[GroupsCompared]:
    by_size = sorted(found, key=lambda name: (-found[name].examples, name))
    pairs = [_compared(question, group, reference, found) for reference, group in combinations(by_size, 2)]
    against_largest = [pair for pair in pairs if pair.reference == by_size[0]]
    yield from against_largest
    worst = max((pair for pair in pairs if pair.over), key=lambda pair: abs(pair.difference), default=None)
    if worst is not None and worst not in against_largest:
        yield worst


def _compared(question: Question, group: str, reference: str, found: Errors) -> GroupsCompared:
    attribute, rate, limit, confidence = question
    one, other = (sample_of(found[name], rate) for name in (group, reference))
    apart = welch_interval(one, other, confidence)
    ratio = mean_ratio_interval(one, other, confidence) if rate == "mae" else Interval(0.0, math.inf)
    broken = limit is not None and max(apart.lower, -apart.upper) > limit
    return GroupsCompared(
        attribute=attribute,
        rate=rate,
        group=group,
        reference=reference,
        difference=one.mean - other.mean,
        difference_interval=_bounds(apart),
        ratio=one.mean / other.mean if rate == "mae" and other.mean > 0 else None,
        ratio_interval=_bounds(ratio),
        confidence=confidence,
        over=("difference",) if broken else (),
    )


def _mean(sums: ErrorSums, rate: ErrorRate) -> Bounds | None:
    return _bounds(mean_interval(sample_of(sums, rate))) if sums.examples > 1 else None


def _bounds(interval: Interval) -> Bounds:
    return Bounds(lower=interval.lower, upper=interval.upper if math.isfinite(interval.upper) else None)
