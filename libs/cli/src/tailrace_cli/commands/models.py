"""Models: apply a spec, import one that was trained elsewhere, show all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tailrace_cli.commands.options import AsJson, Model, OptionalReason
from tailrace_cli.commands.rollout import tell
from tailrace_cli.connection import run
from tailrace_cli.output import say, show
from tailrace_cli.state import known
from tailrace_contracts import load_spec
from tailrace_contracts.events import ApplySpec, VersionChanged


def apply(
    spec: Annotated[Path, typer.Argument(help="A model spec in YAML; see docs/reference/model-spec.md.")],
    reason: OptionalReason = "",
) -> None:
    """Make a YAML file the spec of its model: checked here, then by the registry, then in force everywhere."""
    loaded = load_spec(spec)
    tell(loaded.model, ApplySpec(spec=loaded), reason)


def import_model(
    model: Model,
    path: Annotated[Path, typer.Argument(help="An ONNX file, or an MLflow model folder with an onnx flavour.")],
    output: Annotated[
        str, typer.Option(help="The graph's output that is the answer, where it has several (default: found out).")
    ] = "",
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Rows that it was trained on (CSV, Parquet, JSON lines): explanations and drift start there."
        ),
    ] = None,
) -> None:
    """Offer a model that was trained elsewhere as a version; the registry treats it as it treats any other candidate."""
    from tailrace_cli.importing import offer

    version = run(lambda to: offer(to, model, path, output, reference))
    say(f"imported as version {version.version} of {model} ({version.stage}), artefact {version.artefact.sha256[:12]}")


def models(as_json: AsJson = False) -> None:
    """Show every model with its versions, their roles and what they learned from."""
    facts = run(known)
    rows = [
        {
            "model": model,
            "version": f"{each.version}.{each.revision}" if each.continual else str(each.version),
            "role": facts.role(each),
            "learner": each.learner,
            "examples": each.lineage.examples,
            "accuracy": round(each.metrics["accuracy"], 4) if "accuracy" in each.metrics else None,
            **({"mae": float(f"{each.metrics['mae']:.4g}")} if "mae" in each.metrics else {}),
            **({"gates": _gates(each, as_json=as_json)} if each.gates else {}),
            "trained_on": str(each.lineage.trained_on),
        }
        for model in sorted(facts.specs)
        for each in sorted(facts.versions.get(model, {}).values(), key=lambda version: version.version)
    ]
    errors = ("mae",) if any("mae" in row for row in rows) else ()
    gates = ("gates",) if any("gates" in row for row in rows) else ()
    columns = ("model", "version", "role", "learner", "examples", "accuracy", *errors, *gates, "trained_on")
    none = dict.fromkeys(columns) | {"version": None if as_json else "none yet"}
    rows += [none | {"model": model} for model in sorted(facts.specs) if model not in facts.versions]
    show(rows, as_json=as_json, empty="no models; apply a spec with `tailrace apply SPEC.yaml`", columns=columns)


def _gates(version: VersionChanged, *, as_json: bool) -> object:
    """How a version stands at the gates of its trial; for people only failures are explained."""
    if as_json:
        return [gate.model_dump(mode="json") for gate in version.gates]
    said = (f"{gate.gate} {gate.state}" + f": {gate.reason}" * (gate.state == "failed") for gate in version.gates)
    return "; ".join(said)
