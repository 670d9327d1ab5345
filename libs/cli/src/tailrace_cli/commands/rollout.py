"""What a person asks the registry for: a version's way to the traffic, and a training."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from tailrace_cli.commands.options import Model, Reason
from tailrace_cli.connection import CommandError, run
from tailrace_cli.lineage import number
from tailrace_cli.output import say
from tailrace_cli.registry import issue, outcome
from tailrace_cli.state import known
from tailrace_contracts.events import (
    Command,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    SetAlias,
    TrainModel,
    UnsetAlias,
)

Version = Annotated[
    str,
    typer.Argument(help="A number, or a name: champion, canary, shadow, standby, latest, or one that somebody set."),
]
Name = Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")]


def tell(model: str, command: Command, reason: str) -> None:
    """Issue a command, wait for the registry's answer, and say it."""
    answer = run(lambda to: issue(to, model, command, reason))
    say(outcome(answer))


def numbered(model: str, named: str) -> int:
    """The number of a version: a name is looked up now, so that the audit log has what was meant. Raises CommandError."""
    found = int(named) if named.isdecimal() else number(run(known), model, named)
    if found < 1:
        raise CommandError("versions are numbered from 1")
    return found


def promote(model: Model, version: Version, reason: Reason) -> None:
    """Make a version the champion, whatever the evidence says so far."""
    tell(model, PromoteVersion(version=numbered(model, version)), reason)


def reject(model: Model, version: Version, reason: Reason) -> None:
    """Take a candidate out of shadow or canary for good."""
    tell(model, RejectVersion(version=numbered(model, version)), reason)


def alias(model: Model, name: Name, version: Version, reason: Reason) -> None:
    """Give a version a name of your own, such as `approved`; it resolves wherever a version is named."""
    tell(model, SetAlias(alias=_name(name), version=numbered(model, version)), reason)


def unalias(model: Model, name: Name, reason: Reason) -> None:
    """Take a name away that somebody gave."""
    tell(model, UnsetAlias(alias=_name(name)), reason)


def _name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise CommandError(
            f"{name!r} is no name for a version; begin with a small letter, then small letters, digits, hyphens"
        )
    return name


def rollback(model: Model, reason: Reason) -> None:
    """Return to the champion before this one."""
    tell(model, RollbackModel(), reason)


def pause(model: Model, reason: Reason) -> None:
    """Promote nothing automatically until `tailrace resume`; rollbacks go on."""
    tell(model, PauseRollout(), reason)


def resume(model: Model, reason: Reason) -> None:
    """Promote automatically again, after a pause or a rollback."""
    tell(model, ResumeRollout(), reason)


def train(model: Model, reason: Reason) -> None:
    """Train the model in batch, now, on its newest labelled examples."""
    tell(model, TrainModel(), reason)
