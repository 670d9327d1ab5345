"""The demos: a real stream through the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write the report to this file, as JSON.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Play only this many rows (default: all).")]


def weather(
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Inferences a second (default: as fast as the loop goes).")
    ] = None,
    limit: Limit = None,
    report: ReportFile = None,
) -> None:
    """Fifty years of weather: train, serve, learn online, drift, retrain, roll out, and report."""
    from tailrace_cli.demo.command import weather

    raise typer.Exit(weather(rate=rate, limit=limit, report_file=report))


def employment(limit: Limit = None, report: ReportFile = None) -> None:
    """277,677 predictions of somebody else's model: statistics, drift, late labels, groups, and report."""
    from tailrace_cli.demo.command import employment

    raise typer.Exit(employment(limit=limit, report_file=report))
