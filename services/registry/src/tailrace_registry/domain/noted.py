"""What is written into the audit chain about events that decisions rest on, whether or not they moved anything.

An entry vouches for an event by its digest: `sha256` of its canonical JSON, as for an entry's own. So the table `evidence`
is covered by the chain: a comparison, an alert or the end of a training that was changed afterwards shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tailrace_contracts.audit import digest_of
from tailrace_contracts.events import AlertRaised, ArmsCompared, AuditRecorded, Evidence, TrainingProgressed
from tailrace_registry.domain.facts import entry
from tailrace_registry.domain.rollback import alert_evidence
from tailrace_registry.domain.rollout import comparison_evidence

ENTERED = frozenset({"alert", "comparison", "training"})
"""Actions of entries that say that an event was noted, and that it moved nothing."""


class EvidenceName(NamedTuple):
    """The name under which an event is kept."""

    model: str
    kind: str
    event_id: str


def alert_entry(alert: AlertRaised, why_nothing: str) -> dict[str, Any]:
    """An alert that moved nothing, and why it did not."""
    reason = f"{alert.kind}: {alert.message}; it moves nothing: {why_nothing}"
    return entry(alert.model, "monitoring", "alert", alert.subject, reason, alert_evidence(alert))


def comparison_entry(compared: ArmsCompared) -> dict[str, Any]:
    """A comparison that changed how a version stands at its gates, and nothing else."""
    evidence = comparison_evidence(compared)
    return entry(
        compared.model, "monitoring", "comparison", f"version {compared.candidate}", evidence.summary, evidence
    )


def training_entry(progressed: TrainingProgressed) -> dict[str, Any]:
    """A training is over."""
    summary = f"{progressed.run_id} {progressed.stage}" + (f": {progressed.message}" if progressed.message else "")
    evidence = Evidence(
        kind="training",
        event_id=progressed.run_id,
        summary=summary,
        derived_from=progressed.ranges,
        sha256=digest_of(progressed),
    )
    return entry(progressed.model, "training", "training", progressed.run_id, summary, evidence)


def vouched(link: AuditRecorded) -> Iterator[tuple[EvidenceName, str]]:
    """The kept events that a link of the chain vouches for, with their digests.

    A version is registered on the training's candidate, which is no event of those that are kept, under the run's name.
    """
    for evidence in link.evidence:
        kept = evidence.kind in {"comparison", "alert", "spec"} or link.action in ENTERED
        if evidence.sha256 and kept:
            yield EvidenceName(link.model, evidence.kind, evidence.event_id), evidence.sha256


def unfaithful(vouchers: Mapping[EvidenceName, str], found: Mapping[EvidenceName, str]) -> str:
    """What is wrong with kept events by the digests that the chain has of them; empty where nothing is."""
    for kept, sha256 in vouchers.items():
        if kept not in found:
            return f"the {kept.kind} {kept.event_id} of {kept.model}, which the chain has the digest of, is lost"
        if found[kept] != sha256:
            return f"the {kept.kind} {kept.event_id} of {kept.model} is not the one that the chain has the digest of"
    return ""
