"""What the registry does with each event: read the model, decide, write the decision.

Every handler gets one event, one transaction (`Entry`) and the time. What it writes takes effect together, so a process
killed in between leaves nothing behind, and the event comes again. An event that comes again after its effect is known by
its identity (command, run, evaluation, alert), wherever it then stands on its topic, and changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

from tailrace_contracts.events import (
    AlertKind,
    AlertRaised,
    ApplySpec,
    ArmsCompared,
    CandidateTrained,
    CommandIssued,
    RevisionTrained,
    SpecTookEffect,
    TrainingProgressed,
)
from tailrace_contracts.spec import SpecError, parse_spec
from tailrace_registry.domain.commands import first_spec, named_by, obey, unknown_model
from tailrace_registry.domain.facts import announce, chained, effect_entry, effect_id, refusal, unreadable
from tailrace_registry.domain.model import Decision, Model
from tailrace_registry.domain.noted import alert_entry, comparison_entry, training_entry
from tailrace_registry.domain.rollback import heed, is_about, last_good
from tailrace_registry.domain.rollout import compare, register, revised
from tailrace_registry.ports import Entry
from tailrace_runtime.errors import PoisonEvent

COMMANDS = (
    "apply-spec",
    "promote",
    "reject",
    "rollback",
    "pause",
    "resume",
    "train",
    "mute-alerts",
    "unmute-alerts",
    "set-alias",
    "unset-alias",
)
"""What can be asked for."""


_A_VERSION, _AN_ALIAS = "a version, a whole number from 1", "an alias of small letters, digits and hyphens"
_NEEDS = {
    "promote": _A_VERSION,
    "reject": _A_VERSION,
    "mute-alerts": (
        f"an owner and an end (until, a time with its offset); its kinds are {', '.join(get_args(AlertKind))}"
    ),
    "unmute-alerts": "a mute_id",
    "set-alias": f"{_AN_ALIAS}, and {_A_VERSION}",
    "unset-alias": _AN_ALIAS,
}


async def obey_command(issued: CommandIssued, entry: Entry, now: datetime) -> None:
    """Do what a person or a tool asks, or refuse; either way the audit entry with its id is the answer."""
    if isinstance(issued.command, ApplySpec):
        await entry.found(issued.model)
    model = await entry.model(issued.model, named_by(issued.command))
    if await entry.answered(issued.command_id):
        return
    if model is not None:
        decision = obey(model, issued, now)
    elif isinstance(issued.command, ApplySpec):
        decision = first_spec(issued.command.spec, issued)
    else:
        await entry.publish(refusal(issued, unknown_model(issued.model), await entry.head(), now))
        return
    await _write(decision, entry, now, issued)


async def refuse_unreadable(document: Any, entry: Entry, now: datetime) -> None:
    """Answer a command that cannot be read, where it at least says who asks for which model; else it is poison."""
    match document:
        case {"command_id": str(command_id), "model": str(model), "issued_by": str(actor)}:
            pass
        case _:
            raise PoisonEvent(
                "unreadable-command", "the value is no command: command_id, model or issued_by is missing"
            )
    if await entry.answered(command_id):
        return
    blank = unreadable(model, command_id, actor, _fault_of(document))
    await entry.publish(chained([blank], await entry.head(), now))


def _fault_of(document: dict[str, Any]) -> str:
    """What is wrong with a command, in one sentence."""
    match document.get("command"):
        case {"command": "apply-spec", "spec": spec}:
            try:
                parse_spec(spec, "spec")
            except SpecError as error:
                return str(error)
        case {"command": str(name)} if name in _NEEDS:
            return f"the command {name} needs {_NEEDS[name]}"
        case {"command": str(name)}:
            return f"the registry knows {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and not {name}"
        case _:
            pass
    return "the command is not one that the registry knows; check it against the schema of command-issued"


async def register_candidate(candidate: CandidateTrained, entry: Entry, now: datetime) -> None:
    """Give a trained artefact its number and its first stage."""
    model = await _known(candidate.model, entry)
    if await entry.version_of_run(candidate.model, candidate.run_id) is not None:
        return
    revision = candidate.lineage.spec_revision
    trained_for = await entry.spec(candidate.model, revision)
    if trained_for is None:
        reason = (
            f"run {candidate.run_id} was trained for spec revision {revision} of {model.name}, which was never applied"
        )
        raise PoisonEvent("unknown-spec-revision", reason, model=model.name)
    newest = await entry.newest_revision(candidate.model, candidate.run_id)
    await _write(register(model, candidate, trained_for, newest), entry, now)


async def keep_revision(revision: RevisionTrained, entry: Entry, now: datetime) -> None:
    """A continual version learned on: announce it with its newest artefact, and touch nothing else."""
    if not await entry.newer(revision):
        return
    version = await entry.version_of_run(revision.model, revision.run_id)
    if version is not None and version.revision < revision.revision:
        await entry.publish([revised(version, revision).model_copy(update={"time": now})])


async def weigh_comparison(compared: ArmsCompared, entry: Entry, now: datetime) -> None:
    """Move a candidate if the comparison says enough."""
    model = await _known(compared.model, entry)
    decision = compare(model, compared)
    if decision.model == model or await entry.has_evidence(compared.model, "comparison", compared.evaluation_id):
        return
    await entry.note(compared.model, "comparison", compared.evaluation_id, compared)
    await _write(decision, entry, now, noted=comparison_entry(compared))


async def note_alert(alert: AlertRaised, entry: Entry, now: datetime) -> None:
    """Keep an alert beside the decisions, and return the last good version where the alert is about a bad promotion."""
    model = await _known(alert.model, entry)
    if await entry.has_evidence(alert.model, "alert", alert.alert_id):
        return
    about = [number for number in (model.champion, last_good(model)) if number is not None]
    told = await entry.alerts(alert.model, about) if is_about(alert, model.champion) else ()
    await entry.note(alert.model, "alert", alert.alert_id, alert)
    decision = heed(model, alert, told)
    if decision.model != model:
        await _write(decision, entry, now)
    else:
        await entry.publish(chained([alert_entry(alert, decision.reason)], await entry.head(), now))


async def note_effect(effect: SpecTookEffect, entry: Entry, now: datetime) -> None:
    """Enter into the audit log from which offset of a log a revision of the spec is in force."""
    await _known(effect.model, entry)
    if await entry.has_evidence(effect.model, "spec", effect_id(effect)):
        return
    await entry.note(effect.model, "spec", effect_id(effect), effect)
    await entry.publish(chained([effect_entry(effect)], await entry.head(), now))


async def note_training(progressed: TrainingProgressed, entry: Entry, now: datetime) -> None:
    """Keep how a training ended, and enter it into the audit log."""
    if progressed.stage not in {"finished", "failed"}:
        return
    await _known(progressed.model, entry)
    if await entry.has_evidence(progressed.model, "training", progressed.run_id):
        return
    await entry.note(progressed.model, "training", progressed.run_id, progressed)
    await entry.publish(chained([training_entry(progressed)], await entry.head(), now))


async def _known(name: str, entry: Entry) -> Model:
    model = await entry.model(name)
    if model is None:
        raise PoisonEvent("unknown-model", f"{unknown_model(name)}, then replay this event", model=name)
    return model


async def _write(
    decision: Decision,
    entry: Entry,
    now: datetime,
    issued: CommandIssued | None = None,
    noted: dict[str, Any] | None = None,
) -> None:
    outcome = announce(decision, await entry.head(), now, issued, noted)
    if decision.refused:
        await entry.publish(outcome.events)
    else:
        await entry.save(outcome.model, outcome.events)
