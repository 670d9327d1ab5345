"""`tailrace import`: a model that was trained elsewhere, as a version of a model here.

An ONNX file, or an MLflow model folder with an onnx flavour, whose `MLmodel` is read as data: nothing of the folder's
code is run, and a folder with nothing but a `python_function` is refused. The graph is given the names that serving
asks by (`features` in, `probability` or `prediction` out), loaded against the model's present spec, and asked one row,
all as serving will do it. Then it goes into the object store under its digest and is offered on `candidate-trained`.
It is known by that digest, so that importing it twice makes one version.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.referencing import reference_of
from tailrace_cli.state import known
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import CandidateTrained, ClaimCheck, Lineage, SpecApplied, VersionChanged
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import ModelSpec, NumericalFeature
from tailrace_models import ONNX, ArtefactError, column_names, load
from tailrace_runtime.errors import TailraceError
from tailrace_runtime.objects import ObjectStore
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE

ANSWER_SECONDS = 30.0
_FLOAT = 1  # onnx.TensorProto.FLOAT
_LARGEST_BYTES = 2_000_000_000


class Found(NamedTuple):
    """Where a graph lies, and what is told about where it comes from."""

    graph: Path
    parameters: dict[str, Any]


async def offer(
    connection: Connection, model: str, path: Path, output: str = "", reference: Path | None = None
) -> VersionChanged:
    """Offer the model at `path` as a version of `model`, with reference rows, and wait for the registry to number it.

    Raises CommandError: no such model, not a graph that fits its spec, or nobody answers.
    """
    applied = (await known(connection)).specs.get(model)
    if applied is None:
        msg = f"no model {model!r} has a spec here; apply one with `tailrace apply SPEC.yaml` first"
        raise CommandError(msg)
    found = located(path)
    data = await asyncio.to_thread(fitted, found.graph, applied.spec, output)
    rows = await asyncio.to_thread(reference_of, reference, applied.spec) if reference else None
    try:
        objects = ObjectStore.from_url(connection.object_store)
        claim = await objects.put_artefact(data, ONNX)
        beside = await objects.put_artefact(rows, REFERENCE) if rows else None
    except TailraceError as error:
        raise CommandError(str(error)) from None
    candidate = CandidateTrained(
        run_id=_run_id(claim, beside),
        model=model,
        learner="imported",
        continual=False,
        artefact=claim,
        reference=beside,
        lineage=_lineage(applied, found.parameters),
        time=datetime.now(UTC),
    )
    async with AsyncPublisher(connection.bootstrap, topic_prefix=connection.topic_prefix, source="/cli") as publisher:
        await publisher.publish("candidate-trained", model, candidate)
    return await _numbered(connection, model, candidate.run_id)


def _run_id(artefact: ClaimCheck, reference: ClaimCheck | None) -> str:
    """The same model with the same reference is the same version."""
    if reference is None:
        return f"import-{artefact.sha256[:32]}"
    return f"import-{hashlib.sha256((artefact.sha256 + reference.sha256).encode()).hexdigest()[:32]}"


def _lineage(applied: SpecApplied, parameters: dict[str, Any]) -> Lineage:
    """Not trained on anything of ours: no ranges, no examples, and what the file says of itself."""
    return Lineage(
        trained_on=LogRanges(),
        examples=0,
        spec_revision=applied.spec_revision,
        code_version="imported",
        parameters=parameters,
    )


async def _numbered(connection: Connection, model: str, run_id: str) -> VersionChanged:
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        versions = (await known(connection)).versions.get(model, {})
        for version in versions.values():
            if version.run_id == run_id:
                return version
        await asyncio.sleep(0.2)
    msg = f"the registry has not numbered the import within {ANSWER_SECONDS:.0f} s; is it running? (`tailrace status`)"
    raise CommandError(msg)


# ---------------------------------------------------------------- finding


def located(path: Path) -> Found:
    """The graph at a path: the file itself, or what an MLflow folder says. Raises CommandError."""
    if (path / "MLmodel").is_file():
        return _in_mlflow(path)
    if path.is_file():
        return Found(path, {"file": path.name})
    what = "a folder without an MLmodel file" if path.is_dir() else "no such file"
    msg = f"{path}: {what}; name an ONNX file or an MLflow model folder"
    raise CommandError(msg)


def _in_mlflow(folder: Path) -> Found:
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavors = dict(described["flavors"])
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, ValueError):
        msg = f"{folder / 'MLmodel'} is not MLflow's description of a model; expected YAML with `flavors`"
        raise CommandError(msg) from None
    if "onnx" not in flavors:
        names = ", ".join(sorted(map(str, flavors))) or "none"
        msg = (
            f"{folder} has the flavours {names}, expected onnx: a python_function is code that would have to be run to be"
            " asked, so it is not imported; log the model with mlflow.onnx, or convert it to ONNX"
        )
        raise CommandError(msg)
    flavor = flavors["onnx"]
    name = flavor.get("data", "model.onnx") if isinstance(flavor, dict) else None
    graph = (folder / str(name)).resolve()
    if not isinstance(name, str) or not graph.is_relative_to(folder.resolve()) or not graph.is_file():
        msg = f"{folder / 'MLmodel'} names the graph {name!r}, expected a file in the folder"
        raise CommandError(msg)
    if graph.is_dir():
        graph /= "model.onnx"
    told = ("run_id", "model_uuid", "mlflow_version", "utc_time_created")
    return Found(graph, {"mlflow": folder.name} | {key: str(described[key]) for key in told if described.get(key)})


# ---------------------------------------------------------------- fitting


def fitted(path: Path, spec: ModelSpec, output: str = "") -> bytes:
    """The graph with the names that serving asks by, checked against the spec. Raises CommandError."""
    import onnx

    try:
        graph = onnx.load(str(path))  # with its weights, where they lie in files beside it
        onnx.checker.check_model(graph)
    except Exception as error:  # noqa: BLE001  # protobuf, onnx and files have no other base
        msg = f"{path}: not an ONNX graph ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
        raise CommandError(msg) from None
    if graph.ByteSize() > _LARGEST_BYTES:
        msg = f"{path}: {graph.ByteSize()} bytes, expected at most {_LARGEST_BYTES}"
        raise CommandError(msg)
    _name_input(graph.graph, path, spec)
    _name_output(graph.graph, path, output, "prediction" if spec.task == "regression" else "probability")
    data = bytes(graph.SerializeToString(deterministic=True))
    try:
        load(ONNX, data, signing_key=b"", spec=spec).predict([_middle(spec)])
    except ArtefactError as error:
        msg = f"{path}: {error}"
        raise CommandError(msg) from None
    except Exception as error:  # noqa: BLE001  # onnxruntime's own classes share no other base
        msg = f"{path}: the graph fails on a row within the spec's limits ({str(error).partition(chr(10))[0]})"
        raise CommandError(msg) from None
    return data


def _name_input(graph: Any, path: Path, spec: ModelSpec) -> None:
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    columns = column_names(spec)
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != _FLOAT:
        found = ", ".join(each.name for each in inputs) or "none"
        msg = (
            f"{path}: the graph's inputs are {found}, expected one of float32 with the {len(columns)} columns"
            f" {', '.join(columns[:12])}{' …' if len(columns) > 12 else ''}"
        )
        raise CommandError(msg)
    (only,) = inputs
    dimensions = only.type.tensor_type.shape.dim
    if len(dimensions) != 2 or dimensions[1].dim_value not in {0, len(columns)}:
        shape = [each.dim_value or each.dim_param or "?" for each in dimensions]
        msg = f"{path}: input {only.name!r} has shape {shape}, expected [rows, {len(columns)}]"
        raise CommandError(msg)
    dimensions[0].Clear()
    dimensions[0].dim_param = "rows"
    dimensions[1].dim_value = len(columns)
    _rename(graph, only.name, "features")


def _name_output(graph: Any, path: Path, wanted: str, name: str) -> None:
    """Make one float output the answer: a column, or of two columns (a probability for each class) the second."""
    from onnx import TensorProto, helper

    names = [each.name for each in graph.output]
    numbers = [each for each in graph.output if each.type.tensor_type.elem_type == _FLOAT]
    chosen = [each for each in numbers if each.name == wanted] if wanted else numbers
    if len(chosen) != 1:
        msg = (
            f"{path}: the graph's outputs are {', '.join(names)}, expected one of float32"
            f"{'' if wanted else '; name it with --output'}"
        )
        raise CommandError(msg)
    (only,) = chosen
    shape = only.type.tensor_type.shape.dim
    width = shape[1].dim_value if len(shape) == 2 else 1
    if len(shape) not in {1, 2} or (len(shape) == 2 and width not in {1, 2}) or (width == 2 and name == "prediction"):
        found = [each.dim_value or each.dim_param or "?" for each in shape]
        expected = "[rows] or [rows, 1]" + (" or [rows, 2]" if name == "probability" else "")
        msg = f"{path}: output {only.name!r} has shape {found}, expected {expected}"
        raise CommandError(msg)
    source, made = only.name, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1])
    if width == 2:
        _rename(graph, source, "probabilities_of_classes")
        index = helper.make_tensor("tailrace_second", TensorProto.INT64, [1], [1])
        graph.initializer.append(index)
        graph.node.append(helper.make_node("Gather", ["probabilities_of_classes", "tailrace_second"], [name], axis=1))
    else:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1] if len(shape) == 2 else ["rows"])
        _rename(graph, source, name)
    del graph.output[:]
    graph.output.append(made)


def _rename(graph: Any, old: str, new: str) -> None:
    """The same value under another name, wherever the graph mentions it."""
    if old == new:
        return
    mentioned = {name for node in graph.node for name in (*node.input, *node.output)}
    if new in mentioned:
        _rename(graph, new, f"{new}_before_import")
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if each.name == old:
            each.name = new


def _middle(spec: ModelSpec) -> dict[str, Any]:
    """A row within the spec's limits."""
    return {
        each.name: min(max(0.0, each.limits.min), each.limits.max)
        if isinstance(each, NumericalFeature)
        else each.categories[0]
        for each in spec.features
    }
