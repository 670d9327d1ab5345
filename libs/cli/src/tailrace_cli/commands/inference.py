"""Ask a model."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace_cli import asking
from tailrace_cli.commands.options import AsJson, Model
from tailrace_cli.connection import run
from tailrace_cli.output import show


def infer(  # one option for each thing that a question may have
    model: Model,
    *,
    row: Annotated[
        list[str] | None, typer.Option(help='Features by name, as JSON: {"humidity": 40}. Several make one request.')
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="JSON lines (one row a line), Parquet, or - for standard input.")
    ] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="Ask over Kafka instead of HTTP.")] = False,
    version: Annotated[str | None, typer.Option(help="Of this version, such as 7 or 7.12.")] = None,
    entity: Annotated[str | None, typer.Option(help="Who the rows are about; decides on the arm.")] = None,
    request_id: Annotated[
        str | None, typer.Option("--id", help="Names the question: asked again under it, it counts once.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.001, help="To wait for the answer.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Ask a model about rows of features; each answer is recorded under its prediction id, for the label to come."""
    rows = asking.rows_of(row or [], file)
    question = asking.asked(model, rows, request_id, version=version, entity=entity, seconds=seconds)
    answers = run(lambda to: (asking.over_kafka if kafka else asking.over_http)(to, question))
    show(answers, as_json=as_json, empty="no answers", columns=asking.COLUMNS)
