"""What a person asks the registry for: a version's way to the traffic, and a training."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace_cli.commands.options import Model, Reason
from tailrace_cli.connection import run
from tailrace_cli.output import say
from tailrace_cli.registry import issue, outcome
from tailrace_contracts.events import (
    Command,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    TrainModel,
)


def tell(model: str, command: Command, reason: str) -> None:
    """Issue a command, wait for the registry's answer, and say it."""
    answer = run(lambda to: issue(to, model, command, reason))
    say(outcome(answer))


def promote(model: Model, version: Annotated[int, typer.Argument(min=1)], reason: Reason = "") -> None:
    """Make a version the champion, whatever the evidence says so far."""
    tell(model, PromoteVersion(version=version), reason)


def reject(model: Model, version: Annotated[int, typer.Argument(min=1)], reason: Reason = "") -> None:
    """Take a candidate out of shadow or canary for good."""
    tell(model, RejectVersion(version=version), reason)


def rollback(model: Model, reason: Reason = "") -> None:
    """Return to the champion before this one."""
    tell(model, RollbackModel(), reason)


def pause(model: Model, reason: Reason = "") -> None:
    """Promote nothing automatically until `tailrace resume`; rollbacks go on."""
    tell(model, PauseRollout(), reason)


def resume(model: Model, reason: Reason = "") -> None:
    """Promote automatically again, after a pause or a rollback."""
    tell(model, ResumeRollout(), reason)


def train(model: Model, reason: Reason = "") -> None:
    """Train the model in batch, now, on its newest labelled examples."""
    tell(model, TrainModel(), reason)
