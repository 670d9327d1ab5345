"""The audit chain: list, verify, export."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tailrace_cli import audit as chain
from tailrace_cli.commands.options import AsJson, Model
from tailrace_cli.connection import CommandError, run
from tailrace_cli.output import near, say, show


def list_entries(model: Model, as_json: AsJson = False) -> None:
    """List what was asked, decided and refused about a model, oldest first."""
    entries = run(lambda to: chain.of_model(to, model))
    rows = [
        {
            "entry": each.sequence,
            "time": f"{each.time:%Y-%m-%d %H:%M:%S}",
            "actor": each.actor,
            "action": each.action,
            "subject": each.subject,
            "outcome": each.outcome,
            "reason": each.reason,
        }
        for each in entries
    ]
    show(rows, as_json=as_json, empty="")


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="A file of `tailrace audit export`; without it, the topic.")
    ] = None,
) -> None:
    """Check that no entry was changed, lost or added."""
    found = chain.verified_file(file) if file else run(chain.verified)
    if not found.intact:
        raise CommandError(found.reason)
    say(f"intact: {found.entries} entries, the last one is {found.head.sequence} with sha256 {found.head.sha256}")


def export(
    model: Model,
    since: Annotated[datetime | None, typer.Option("--from", help="The first moment, in UTC (default: all).")] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="The moment before which to end (default: now).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file instead of printing.")] = None,
) -> None:
    """Write a file that an outsider can check without Tailrace; see docs/reference/audit-export.md."""
    lines, checked = run(lambda to: chain.exported(to, model, since, until))
    if output is None:
        for line in lines:
            say(line)
        return
    try:
        output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror}); name another file") from None
    say(
        f"wrote {checked.entries} links of the chain to {near(output)}; `tailrace audit verify {near(output)}` checks it"
    )
