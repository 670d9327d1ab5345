"""Alerts, and the mutes that keep them quiet."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

from tailrace_cli import alerts as quiet
from tailrace_cli.commands.options import AsJson, Model, OneModel, Reason
from tailrace_cli.commands.rollout import tell
from tailrace_cli.connection import CommandError, run
from tailrace_cli.output import show
from tailrace_contracts.events import MuteAlerts, UnmuteAlerts

NEWEST_ALERTS = 20


def list_alerts(
    model: OneModel = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, and muted ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest alerts, oldest first: what moved, since when, and what it led to. Muted ones only with --all."""
    told = run(quiet.read)
    found = [each for each in told.alerts if model in {None, each.model} and (everything or not each.muted_by)]
    found = found if everything else found[-NEWEST_ALERTS:]
    rows = [(quiet.alert_document if as_json else quiet.alert_row)(each, told) for each in found]
    show(rows, as_json=as_json, empty="no alerts")


def mute_alerts(
    model: Model,
    *,
    until: Annotated[str, typer.Option(help="The end: a day, a time, or a span such as 12h, 7d, 2w.")],
    reason: Annotated[str, typer.Option(help="Why; shown with the mute, and kept in the audit log.")],
    kind: Annotated[list[str] | None, typer.Option(help="Only alerts of this kind; may be repeated.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only about this; a pattern such as 'RAC1P*'.")] = None,
    owner: Annotated[str, typer.Option(help="Who answers for the silence (default: you).")] = "",
    everything: Annotated[bool, typer.Option("--everything", help="All alerts of the model.")] = False,
) -> None:
    """Do not be told of some alerts for a while: they are still found and shown, but ask for no training."""
    if bool(kind or subject) == everything:
        msg = "say which alerts with --kind or --subject, or mute all of them with --everything"
        raise CommandError(msg)
    command = MuteAlerts(
        kinds=quiet.kinds_of(kind or []),
        subjects=tuple(subject or ()),
        owner=owner or getpass.getuser(),
        until=quiet.until_of(until, datetime.now(UTC)),
    )
    tell(model, command, reason)


def unmute_alerts(
    model: Model,
    mute: Annotated[str, typer.Argument(help="The mute's id, as `tailrace mutes` shows it.")],
    reason: Reason,
) -> None:
    """End a mute before its time."""
    tell(model, UnmuteAlerts(mute_id=mute), reason)


def list_mutes(model: OneModel = None, as_json: AsJson = False) -> None:
    """Show the mutes in force: what, until when, who answers for it, and why."""
    found = list(run(quiet.read).mutes(model, datetime.now(UTC)))
    rows = [
        {"model": name, **mute.model_dump(mode="json")} if as_json else quiet.mute_row(name, mute)
        for name, mute in found
    ]
    show(rows, as_json=as_json, empty="no mutes")
