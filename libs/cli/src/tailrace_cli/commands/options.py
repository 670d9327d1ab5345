"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[str, typer.Argument(help="The model's name, as `tailrace models` shows it.")]
OneModel = Annotated[str | None, typer.Argument(help="Only of this model.")]
OfModel = Annotated[str, typer.Option("--model", help="Only those of this model.")]


def _said(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why, in a few words")
    return reason


Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.", callback=_said)]
OptionalReason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.")]
