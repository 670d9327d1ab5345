"""What a decision tells the world: the events that announce it, in the order in which they are published.

First the spec, then each version that changed, then the deployment, then a training that was asked for, and last the
audit entries, the command's own entry as the very last: whoever waits for the answer to a command finds everything else
said already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tailrace_contracts.audit import Link, digest_of, end_of, seal
from tailrace_contracts.events import (
    AuditRecorded,
    CommandIssued,
    DeploymentChanged,
    Event,
    Evidence,
    MutesChanged,
    SpecApplied,
    SpecTookEffect,
    TrainingRequested,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_registry.domain.commands import run_of, subject_of
from tailrace_registry.domain.model import Decision, Model, Move, Passage, arms_changed, arms_of

REGISTRY = "registry"
"""The actor of what no person asked for."""

INGESTION = "ingestion"
"""The actor of what ingestion wrote down."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decision with everything that is to be stored and published for it."""

    model: Model
    events: tuple[Event, ...]


def announce(
    decision: Decision,
    head: Link,
    now: datetime,
    issued: CommandIssued | None = None,
    noted: dict[str, Any] | None = None,
) -> Outcome:
    """The model as it is to be stored, and the events of the decision.

    `noted` is the audit entry about the event that led to it, where no other entry is to be made.
    """
    actor = issued.issued_by if issued else REGISTRY
    decision = _dated(decision, now)
    model = decision.model
    deployment = _deployment(decision, now)
    if deployment is not None:
        model = replace(model, deployment=deployment)
    muting = _muting(decision, now)
    if muting is not None:
        model = replace(model, muting=muting)
    entries = [_gate_entry(model.name, passage) for passage in decision.passages if _is_worth_a_link(passage)]
    entries += [_move_entry(decision, move, actor) for move in decision.moves]
    if issued is not None:
        entries.append(_command_entry(decision, issued))
    if noted is not None and not entries:
        entries.append(noted)
    events: list[Event | None] = [
        _spec(decision, actor, now),
        *_versions(decision),
        deployment,
        _training(decision, issued, now),
        muting,
        *chained(entries, head, now),
    ]
    return Outcome(model, tuple(event for event in events if event is not None))


def refusal(issued: CommandIssued, reason: str, head: Link, now: datetime) -> tuple[Event, ...]:
    """The answer to a command that changed nothing and has no model to change."""
    answer = entry(issued.model, issued.issued_by, issued.command.command, subject_of(issued), reason)
    return chained([{**answer, "outcome": "refused", "command_id": issued.command_id}], head, now)


def unreadable(model: str, command_id: str, actor: str, reason: str) -> dict[str, Any]:
    """The answer to a command whose content is wrong but whose sender can be told."""
    return {**entry(model, actor, "unreadable", "command", reason), "outcome": "refused", "command_id": command_id}


def effect_id(effect: SpecTookEffect) -> str:
    """What two processes that wrote the same effect down have in common: log, model and revision."""
    return f"{effect.topic}-{effect.partition}-{effect.model}-{effect.spec_revision}"


def effect_entry(effect: SpecTookEffect) -> dict[str, Any]:
    """Ingestion checks a log by a revision of the spec, from an offset on."""
    place = f"{effect.topic}[{effect.partition}] from offset {effect.from_offset}"
    summary = f"revision {effect.spec_revision} of the spec of {effect.model} is in force on {place}"
    first = LogRange(
        topic=effect.topic,
        partition=effect.partition,
        from_offset=effect.from_offset,
        through_offset=effect.from_offset,
    )
    evidence = Evidence(
        kind="spec",
        event_id=effect_id(effect),
        summary=summary,
        derived_from=LogRanges.of(first),
        sha256=digest_of(effect),
    )
    return entry(effect.model, INGESTION, "spec-took-effect", "spec", summary, evidence)


def chained(entries: Sequence[dict[str, Any]], head: Link, now: datetime) -> tuple[AuditRecorded, ...]:
    """The entries as links of the audit chain, behind its present end."""
    sealed: list[AuditRecorded] = []
    for each in entries:
        blank = AuditRecorded(**each, sequence=1, time=now, previous_sha256="", sha256="")
        sealed.append(seal(blank, end_of(sealed[-1]) if sealed else head))
    return tuple(sealed)


def _dated(decision: Decision, now: datetime) -> Decision:
    moved = {move.version for move in decision.moves}
    versions = {
        number: version.model_copy(update={"time": now}) if number in moved else version
        for number, version in decision.model.versions.items()
    }
    return replace(decision, model=replace(decision.model, versions=versions))


def _spec(decision: Decision, actor: str, now: datetime) -> SpecApplied | None:
    if not decision.new_spec:
        return None
    model = decision.model
    return SpecApplied(model=model.name, spec_revision=model.spec_revision, spec=model.spec, applied_by=actor, time=now)


def _versions(decision: Decision) -> Iterator[VersionChanged]:
    for number in sorted({move.version for move in decision.moves} | decision.judged):
        yield decision.model.versions[number]


def _deployment(decision: Decision, now: datetime) -> DeploymentChanged | None:
    model = decision.model
    if decision.refused or not arms_changed(model):
        return None
    arms, before = arms_of(model), model.deployment
    sequence = before.sequence + 1 if before else 1
    return DeploymentChanged(
        model=model.name,
        sequence=sequence,
        reign=before.reign if before and before.champion == arms.champion else sequence,
        returned=model.returned,
        spec_revision=arms.spec_revision,
        champion=arms.champion,
        canary=arms.canary,
        shadows=arms.shadows,
        standby=arms.standby,
        paused=dict(arms.paused),
        aliases=dict(arms.aliases),
        reason=decision.reason,
        evidence=decision.evidence,
        time=now,
    )


def _muting(decision: Decision, now: datetime) -> MutesChanged | None:
    if decision.refused or decision.new_mutes is None:
        return None
    model = decision.model
    sequence = model.muting.sequence + 1 if model.muting else 1
    return MutesChanged(model=model.name, sequence=sequence, mutes=decision.new_mutes, time=now)


def _training(decision: Decision, issued: CommandIssued | None, now: datetime) -> TrainingRequested | None:
    if not decision.training or issued is None:
        return None
    return TrainingRequested(
        run_id=run_of(issued.command_id),
        model=decision.model.name,
        spec_revision=decision.model.spec_revision,
        reason=issued.reason or "asked for by a person",
        requested_by=issued.issued_by,
        time=now,
    )


def entry(model: str, actor: str, action: str, subject: str, reason: str, *evidence: Evidence) -> dict[str, Any]:
    """An audit entry about what was done, before it is a link of the chain."""
    return {
        "model": model,
        "actor": actor,
        "action": action,
        "subject": subject,
        "outcome": "done",
        "reason": reason,
        "evidence": evidence,
    }


def _move_entry(decision: Decision, move: Move, actor: str) -> dict[str, Any]:
    came = f"from {move.before} to {move.after}" if move.before else "registered"
    subject = f"version {move.version}"
    return entry(decision.model.name, actor, move.after, subject, f"{came}: {move.why}", *decision.evidence)


def _is_worth_a_link(passage: Passage) -> bool:
    """That a gate waits is no news before it has passed or failed."""
    return passage.gate.state != "waiting" or passage.was != ""


def _gate_entry(model: str, passage: Passage) -> dict[str, Any]:
    gate = passage.gate
    reason = f"the {gate.gate} gate {'waits' if gate.state == 'waiting' else gate.state}: {gate.reason}"
    evidence = passage.comparison.model_copy(update={"summary": reason, "derived_from": gate.derived_from})
    return entry(model, REGISTRY, f"gate-{gate.state}", f"version {passage.version}", reason, evidence)


def _command_entry(decision: Decision, issued: CommandIssued) -> dict[str, Any]:
    answer = entry(
        issued.model, issued.issued_by, issued.command.command, subject_of(issued), decision.reason, *decision.evidence
    )
    outcome = "refused" if decision.refused else "done"
    return {**answer, "outcome": outcome, "command_id": issued.command_id}
