"""Commands: what a person or a tool asks the registry for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import AlertKind, Identifier
from tailrace_contracts.spec import ModelSpec, Name


class ApplySpec(Value):
    """Make this the model's spec."""

    command: Literal["apply-spec"] = "apply-spec"
    spec: ModelSpec


class PromoteVersion(Value):
    """Make this version the champion."""

    command: Literal["promote"] = "promote"
    version: int = Field(ge=1)


class RejectVersion(Value):
    """Take this candidate out of shadow or canary for good."""

    command: Literal["reject"] = "reject"
    version: int = Field(ge=1)


class RollbackModel(Value):
    """Return to the champion before this one."""

    command: Literal["rollback"] = "rollback"


class PauseRollout(Value):
    """Promote nothing automatically until the rollout is resumed."""

    command: Literal["pause"] = "pause"


class ResumeRollout(Value):
    """Promote automatically again, after a pause by a person or by a rollback."""

    command: Literal["resume"] = "resume"


class TrainModel(Value):
    """Train the model in batch on its newest examples."""

    command: Literal["train"] = "train"


class MuteAlerts(Value):
    """Stay quiet about these alerts until then. They are still found, recorded and shown, as muted."""

    command: Literal["mute-alerts"] = "mute-alerts"
    kinds: tuple[AlertKind, ...] = ()
    subjects: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=50)
    owner: str = Field(min_length=1, max_length=200, description="who answers for the silence")
    until: AwareDatetime


class UnmuteAlerts(Value):
    """End a mute before its time."""

    command: Literal["unmute-alerts"] = "unmute-alerts"
    mute_id: Identifier


AliasName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class SetAlias(Value):
    """Give a version a name, or another version a name that there is."""

    command: Literal["set-alias"] = "set-alias"
    alias: AliasName
    version: int = Field(ge=1)


class UnsetAlias(Value):
    """Take a name away."""

    command: Literal["unset-alias"] = "unset-alias"
    alias: AliasName


Command = Annotated[
    ApplySpec
    | PromoteVersion
    | RejectVersion
    | RollbackModel
    | PauseRollout
    | ResumeRollout
    | TrainModel
    | MuteAlerts
    | UnmuteAlerts
    | SetAlias
    | UnsetAlias,
    Field(discriminator="command"),
]


class CommandIssued(Event):
    """A person or a tool asks the registry for something; the answer is the audit entry with the same command_id."""

    type: Literal["command-issued"] = "command-issued"
    command_id: Identifier
    model: Name
    command: Command
    issued_by: str
    reason: str = ""
    time: AwareDatetime
