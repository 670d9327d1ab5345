"""What people and tools may ask of the registry, and the sentences in which it refuses.

A person may overrule the evidence: promote a version that is undecided, was rejected or is retired. What was taken out for
a reason (rejected, rolled-back) needs a reason to come back. A version whose inputs are not the spec's never answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from tailrace_contracts.audit import digest_of
from tailrace_contracts.events import (
    ApplySpec,
    Command,
    CommandIssued,
    Evidence,
    MuteAlerts,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    SetAlias,
    TrainModel,
    UnmuteAlerts,
    UnsetAlias,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.model import Decision, Model, inputs_of, refuse, stand
from tailrace_registry.domain.mutes import mute_of, quieten
from tailrace_registry.domain.naming import name_version
from tailrace_registry.domain.rollback import version_before
from tailrace_registry.domain.rollout import crown, return_to


def unknown_model(name: str) -> str:
    """Why a command for a model without a spec is refused."""
    return f"there is no model {name}; apply a spec for it first"


def named_by(command: Command) -> tuple[int, ...]:
    """The versions that a command is about."""
    return (command.version,) if isinstance(command, PromoteVersion | RejectVersion | SetAlias) else ()


def command_evidence(issued: CommandIssued) -> Evidence:
    """What a commanded move rests on: somebody's word."""
    words = issued.reason or "no reason given"
    summary = f"{issued.issued_by} asked for {issued.command.command}: {words}"
    return Evidence(kind="command", event_id=issued.command_id, summary=summary, sha256=digest_of(issued))


def run_of(command_id: str) -> str:
    """The run that a train command asks for: the same command, read twice, asks for the same run."""
    return f"run-{hashlib.sha256(command_id.encode()).hexdigest()[:24]}"


def first_spec(spec: ModelSpec, issued: CommandIssued) -> Decision:
    """A model's first spec makes the model."""
    if spec.model != issued.model:
        return refuse(Model(issued.model, spec, 0), _other_model(issued.model, spec))
    applied = Decision(Model(issued.model, spec, 1), new_spec=True)
    return applied.because(f"revision 1 of the spec of {issued.model} applies", command_evidence(issued))


def apply_spec(model: Model, spec: ModelSpec, issued: CommandIssued) -> Decision:
    """Another spec for a model that has one: nothing for an identical one, a refusal where versions would not fit."""
    if spec.model != model.name:
        return refuse(model, _other_model(model.name, spec))
    if spec == model.spec:
        return stand(model, f"unchanged: revision {model.spec_revision} of the spec of {model.name} says the same")
    if model.newest and inputs_of(spec) != inputs_of(model.spec):
        return refuse(model, _other_inputs(model, spec))
    revision = model.spec_revision + 1
    applied = Decision(replace(model, spec=spec, spec_revision=revision), new_spec=True)
    return applied.because(f"revision {revision} of the spec of {model.name} applies", command_evidence(issued))


def _other_model(name: str, spec: ModelSpec) -> str:
    return f"the command names model {name} and its spec is for {spec.model}; they must be the same"


def _other_inputs(model: Model, spec: ModelSpec) -> str:
    before, after = model.spec.feature_names, spec.feature_names
    added = [name for name in after if name not in before]
    removed = [name for name in before if name not in after]
    parts = [f"adds {', '.join(added)}"] * bool(added) + [f"removes {', '.join(removed)}"] * bool(removed)
    if not parts:
        same = inputs_of(spec)[0] == inputs_of(model.spec)[0]
        parts = ["changes the label" if same else "changes the features' order, types or categories"]
    return (
        f"the spec {' and '.join(parts)}, and the {model.newest} version(s) of {model.name} were trained without "
        "that; give the new spec a model name of its own"
    )


def promote(model: Model, number: int, issued: CommandIssued) -> Decision:
    """A person makes a version the champion."""
    stage = model.stage(number)
    if stage is None:
        return refuse(model, _no_version(model, number))
    if stage == "champion":
        return refuse(model, f"version {number} of {model.name} is the champion already")
    if number in model.misfits:
        return refuse(
            model, f"version {number} of {model.name} was trained for other features or another label than the spec's"
        )
    if stage in {"rejected", "rolled-back"} and not issued.reason.strip():
        return refuse(model, f"version {number} of {model.name} is {stage}; promote it again with a reason")
    why = f"promoted by {issued.issued_by}"
    done = crown(Decision(model), number, why)
    return done.because(f"version {number} is the champion of {model.name}", command_evidence(issued))


def _no_version(model: Model, number: int) -> str:
    known = f"its versions are 1 to {model.newest}" if model.newest else "it has no version yet"
    return f"{model.name} has no version {number}; {known}"


def reject(model: Model, number: int, issued: CommandIssued) -> Decision:
    """A person takes a candidate out for good."""
    stage = model.stage(number)
    if stage is None:
        return refuse(model, _no_version(model, number))
    if stage == "champion":
        return refuse(
            model, f"version {number} is the champion of {model.name}; roll it back or promote another instead"
        )
    if stage not in {"registered", "shadow", "canary"}:
        return refuse(model, f"version {number} of {model.name} is {stage} and no candidate any more")
    done = Decision(model).move(number, "rejected", f"rejected by {issued.issued_by}")
    return done.because(f"version {number} of {model.name} is rejected", command_evidence(issued))


def rollback(model: Model, issued: CommandIssued) -> Decision:
    """A person returns to the champion before this one."""
    champion = model.champion
    if champion is None:
        return refuse(model, f"{model.name} has no champion to roll back")
    previous = version_before(model)
    if previous is None:
        return refuse(model, f"there was no champion of {model.name} before version {champion} that could answer again")
    done = return_to(Decision(model), previous, f"rolled back by {issued.issued_by}")
    reason = f"version {previous} is the champion of {model.name} again, version {champion} is rolled back"
    return done.because(reason, command_evidence(issued))


def pause(model: Model, issued: CommandIssued) -> Decision:
    """A person stops automatic promotions of both lines."""
    why = f"paused by {issued.issued_by}" + (f": {issued.reason}" if issued.reason else "")
    paused = Decision(replace(model, paused={"batch": why, "continual": why}))
    return paused.because(f"nothing of {model.name} is promoted automatically", command_evidence(issued))


def resume(model: Model, issued: CommandIssued) -> Decision:
    """A person has looked: automatic promotions go on."""
    if not model.paused:
        return refuse(model, f"promotions of {model.name} are not paused")
    resumed = Decision(replace(model, paused={}))
    return resumed.because(f"{model.name} is promoted automatically again, on evidence", command_evidence(issued))


def train(model: Model, issued: CommandIssued) -> Decision:
    """A person asks for a batch training."""
    if model.spec.learners.batch is None:
        return refuse(model, f"the spec of {model.name} has no batch learner; add learners.batch to it first")
    asked = Decision(model, training=True)
    return asked.because(f"training {run_of(issued.command_id)} of {model.name} is requested", command_evidence(issued))


def obey(model: Model, issued: CommandIssued, now: datetime) -> Decision:
    """What becomes of a command to a model that has a spec."""
    match issued.command:
        case ApplySpec(spec=spec):
            return apply_spec(model, spec, issued)
        case PromoteVersion(version=number):
            return promote(model, number, issued)
        case RejectVersion(version=number):
            return reject(model, number, issued)
        case MuteAlerts() | UnmuteAlerts():
            return quieten(model, issued.command, issued, now)
        case SetAlias() | UnsetAlias():
            return name_version(model, issued.command, issued.reason, command_evidence(issued))
        case plain:
            return _PLAIN[type(plain)](model, issued)


_PLAIN: Mapping[type[Command], Callable[[Model, CommandIssued], Decision]] = {
    RollbackModel: rollback,
    PauseRollout: pause,
    ResumeRollout: resume,
    TrainModel: train,
}
"""Commands that say nothing but their name."""


def subject_of(issued: CommandIssued) -> str:
    """What a command is about, as the audit log names it."""
    match issued.command:
        case PromoteVersion(version=version) | RejectVersion(version=version):
            return f"version {version}"
        case ApplySpec():
            return "spec"
        case MuteAlerts():
            return mute_of(issued.command_id)
        case UnmuteAlerts(mute_id=mute_id):
            return mute_id
        case SetAlias(alias=alias) | UnsetAlias(alias=alias):
            return f"alias {alias}"
        case _:
            return "model"
