"""Whether groups fare worse since there is a new champion: it against the one that it replaced, on the same examples.

The alarm that a closed cohort raises comes after a window; this one comes with the example that completes the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator

from tailrace_contracts.events import AlertRaised, GroupWorsened
from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.alerts import RATE_WORDS, Stamp
from tailrace_monitoring.domain.comparison import Comparison
from tailrace_monitoring.domain.knowledge import Knowledge


def groups_worse_off(standby: Comparison, spec: ModelSpec) -> Iterator[GroupWorsened]:
    """Groups that fare worse with the champion than with the version that stands by, beyond the margin and doubt."""
    gate, _ = spec.fairness_gate
    for each in standby.groups.compared(spec.rollout.error_rate, spec):
        upper = each.interval.upper
        if upper is not None and upper < -gate.margin:
            yield each


def worse_for(stamp: Stamp, found: GroupWorsened, standby: Comparison, known: Knowledge) -> AlertRaised:
    """The alert on the champion."""
    gate, metric = known.spec.fairness_gate
    upper = found.interval.upper or 0.0
    words = RATE_WORDS.get(metric, metric)
    message = (
        f"the {words} for {found.attribute}={found.group} is {found.champion:.4g} with version {standby.champion} and "
        f"{found.candidate:.4g} with version {standby.candidate}, which it replaced: worse by {-upper:.4f} to "
        f"{-found.interval.lower:.4f} over {found.examples:,} examples; the spec allows {gate.margin:g}"
    )
    return stamp.alert(
        "fairness",
        f"version {standby.champion}",
        version=standby.champion,
        kept_by=(standby.candidate,),
        statistic=f"{words}, worse than of version {standby.candidate}",
        value=-found.worsening,
        threshold=gate.margin,
        since=known.deployment.time if known.deployment else stamp.now,
        message=message,
        derived_from=standby.spans.ranges(),
    )
