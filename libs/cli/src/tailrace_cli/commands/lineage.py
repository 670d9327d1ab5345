"""Where a version comes from, and which versions learned from an event."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace_cli import lineage as made
from tailrace_cli.commands.options import AsJson, Model
from tailrace_cli.connection import CommandError, Connection, run
from tailrace_cli.output import out, show
from tailrace_cli.state import Known, known
from tailrace_contracts.events import VersionChanged


def lineage(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(help="A number, or a name: champion, canary, shadow, standby, latest, one of yours.")
    ] = None,
    saw: Annotated[
        str,
        typer.Option(
            help="A prediction's id, or a place such as 'predictions[2]@1204': the versions that learned from it."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a version was made from; or, with --saw, which versions learned from one event."""
    if bool(version) == bool(saw):
        raise CommandError("name a version, or an event with --saw")
    if saw:
        found = run(lambda to: _that_saw(to, model, saw))
        rows = [_row(each) for each in found]
        show(rows, as_json=as_json, empty=f"no version of {model} has learned from {saw}")
        return
    one = made.version(run(lambda to: _facts(to, model)), model, version or "")
    if as_json:
        out.print_json(one.model_dump_json())
        return
    show([{"of": name, "is": value} for name, value in _lines(one)], as_json=False, empty="")


def _row(each: VersionChanged) -> dict[str, object]:
    return {
        "version": f"{each.version}.{each.revision}" if each.continual else str(each.version),
        "stage": each.stage,
        "learner": each.learner,
        "examples": each.lineage.examples,
        "trained_on": str(each.lineage.trained_on),
    }


def _lines(each: VersionChanged) -> list[tuple[str, object]]:
    lineage = each.lineage
    return [
        ("version", f"{each.version}.{each.revision}" if each.continual else str(each.version)),
        ("stage", each.stage),
        ("artefact", each.artefact.sha256),
        ("run", each.run_id),
        ("learner", each.learner),
        ("code version", lineage.code_version),
        ("spec revision", lineage.spec_revision),
        ("parent", lineage.parent_version),
        ("examples", lineage.examples),
        ("trained on", str(lineage.trained_on)),
        ("seed", lineage.seed),
        *((f"parameter {name}", value) for name, value in sorted(lineage.parameters.items())),
        *((f"metric {name}", float(f"{value:.6g}")) for name, value in sorted(each.metrics.items())),
        *((f"gate {gate.gate}", f"{gate.state}: {gate.reason}") for gate in each.gates),
    ]


async def _that_saw(to: Connection, model: str, event: str) -> list[VersionChanged]:
    facts = await _facts(to, model)
    return made.that_saw(facts, model, await made.examples_of(to, model, event))


async def _facts(to: Connection, model: str) -> Known:
    facts = await known(to)
    if model not in facts.specs:
        raise CommandError(f"there is no model {model}; `tailrace models` names those that there are")
    return facts
