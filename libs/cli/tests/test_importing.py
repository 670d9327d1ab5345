"""`tailrace import`: graphs of others get our names, are tried, and come back as a numbered version."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper
from pyarrow import parquet

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.importing import fitted, located, offer
from tailrace_cli.referencing import reference_of
from tailrace_contracts import parse_spec
from tailrace_contracts.events import CandidateTrained, Event, SpecApplied, VersionChanged
from tailrace_contracts.spec import ModelSpec
from tailrace_models import ONNX, load
from tailrace_runtime.follower import Follower
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_statistics.reference import Reference
from tailrace_testing import Broker, eventually

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def rain(**changes: object) -> ModelSpec:
    """A spec with three columns."""
    features = [
        {"name": "humidity", "type": "numerical", "limits": {"min": 0, "max": 100}},
        {"name": "sky", "type": "categorical", "categories": ["clear", "clouded"]},
    ]
    return parse_spec({"model": "rain", "owner": "weather", "label": {"name": "rain"}, "features": features, **changes})


ROW: dict[str, Any] = {"humidity": 2.0, "sky": "clouded"}


def graph(
    outputs: tuple[tuple[str, int, list[Any]], ...] = (("probabilities", TensorProto.FLOAT, [None, 2]),),
    *,
    columns: int = 3,
    name: str = "X",
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """What converters write: `X` in; a label, and for each class a probability, out."""
    weights = np.zeros((columns, 2), dtype=np.float32)
    weights[0] = [-0.5, 0.5]
    nodes = [
        helper.make_node("MatMul", [name, "W"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        helper.make_node("Gather", ["scores", "one"], ["flat"], axis=1),
        helper.make_node("Identity", ["probabilities"], ["features"]),
    ]
    made = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info(name, kind, [None, columns])],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(np.array([1]), "one")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path, model: onnx.ModelProto, **how: Any) -> Path:
    """The graph in a file."""
    path = folder / "theirs.onnx"
    onnx.save_model(model, str(path), **how)
    return path


def mlflow(folder: Path, text: str) -> Path:
    """An MLflow model folder."""
    (folder / "MLmodel").write_text(text)
    return folder


def test_two_columns_of_probabilities_become_one(tmp_path: Path) -> None:
    """If it failed, what converters of scikit-learn write could not be imported, or would answer for the wrong class."""
    outputs = (("label", TensorProto.INT64, [None]), ("probabilities", TensorProto.FLOAT, [None, 2]))
    data = fitted(saved(tmp_path, graph(outputs)), rain())
    answers = load(ONNX, data, signing_key=b"", spec=rain()).predict([ROW, {**ROW, "humidity": 0.0}])
    assert answers[0].prediction == 1
    assert [each.probability for each in answers] == pytest.approx([1 / (1 + np.exp(-2.0)), 0.5])
    assert fitted(saved(tmp_path, graph(outputs)), rain()) == data


def test_number_for_a_regression(tmp_path: Path) -> None:
    """If it failed, a regression that was trained elsewhere could not be imported."""
    spec = rain(task="regression", label={"name": "rain", "limits": {"min": -10, "max": 10}})
    data = fitted(saved(tmp_path, graph((("flat", TensorProto.FLOAT, [None, 1]),))), spec)
    assert load(ONNX, data, signing_key=b"", spec=spec).predict([ROW])[0].prediction == pytest.approx(1.0)


def test_mlflow_folder_is_read_as_data(tmp_path: Path) -> None:
    """If it failed, a model that MLflow has logged could not be imported, or its code would be run."""
    folder = mlflow(
        tmp_path, "run_id: r1\nflavors:\n  onnx: {data: theirs.onnx}\n  python_function: {loader_module: x}\n"
    )
    saved(folder, graph(), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").is_file()
    found = located(folder)
    assert found.parameters["run_id"] == "r1"
    assert load(ONNX, fitted(found.graph, rain()), signing_key=b"", spec=rain()).predict([ROW])[0].prediction == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "flavors: {python_function: {loader_module: os}}",
            "has the flavours python_function, expected onnx: a python_fu",
        ),
        (
            "flavors: {onnx: {data: ../../etc/passwd}}",
            "names the graph '../../etc/passwd', expected a file in the folder",
        ),
        ("flavors: {onnx: {data: missing.onnx}}", "names the graph 'missing.onnx', expected a file in the folder"),
        ("flavors: {onnx: null}", "names the graph None, expected a file"),
        ("flavors: {}", "has the flavours none, expected onnx"),
        ("- not a model", "is not MLflow's description of a model"),
        ("flavors: !!python/object/apply:os.getcwd []", "is not MLflow's description of a model"),
    ],
)
def test_mlflow_folder_that_is_refused_says_why(tmp_path: Path, text: str, sentence: str) -> None:
    """If it failed, code out of a model folder would be run, or a file outside of it read."""
    with pytest.raises(CommandError) as refused:
        located(mlflow(tmp_path, text))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("model", "output", "sentence"),
    [
        (graph(columns=4), "", "input 'X' has shape ['?', 4], expected [rows, 3]"),
        (
            graph(kind=TensorProto.DOUBLE),
            "",
            "the graph's inputs are X, expected one of float32 with the 3 columns humidity",
        ),
        (
            graph((("probabilities", TensorProto.FLOAT, [None, 2]), ("flat", TensorProto.FLOAT, [None, 1]))),
            "",
            "the graph's outputs are probabilities, flat, expected one of float32; name it with --output",
        ),
        (graph(), "nothing", "the graph's outputs are probabilities, expected one of float32"),
        (graph((("label", TensorProto.INT64, [None]),)), "", "the graph's outputs are label, expected one of float32"),
        (graph((("probabilities", TensorProto.FLOAT, [None, 3]),)), "", "output 'probabilities' has shape ['?', 3]"),
    ],
)
def test_graph_that_does_not_fit_is_refused(tmp_path: Path, model: onnx.ModelProto, output: str, sentence: str) -> None:
    """If it failed, a model for other features would be offered, and answer nonsense."""
    path = saved(tmp_path, model)
    with pytest.raises(CommandError) as refused:
        fitted(path, rain(), output)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("rows.csv", "humidity\n1\n", ":2: feature 'sky' is missing"),
        ("rows.csv", "humidity,sky\nwet,clear\n", ":2: feature 'humidity' is 'wet', expected a number"),
        ("rows.csv", "humidity,sky\n", "no rows"),
        ("rows.jsonl", "[1]\n", ":1: not a row"),
        ("rows.jsonl", "{\n", ":1: not JSON"),
        ("rows.parquet", "x", "not a Parquet file"),
        ("rows.csv", "\0", "no rows"),
    ],
)
def test_rows_that_are_no_reference_are_refused(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    """If it failed, a model would be explained against rows that are none of its own, or a slip end in a traceback."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(CommandError) as refused:
        reference_of(path, rain())
    assert sentence in str(refused.value)
    with pytest.raises(CommandError, match="no such file"):
        reference_of(tmp_path / "nowhere.csv", rain())


def test_rows_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a file of somebody else's would end in a traceback."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "rows.csv"
    path.write_text("humidity,sky\n1,clear\n")
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(CommandError, match=r"rows.csv: cannot be read \(Permission denied\)"):
        reference_of(path, rain())


def test_rows_of_every_kind_are_a_reference(tmp_path: Path) -> None:
    """If it failed, the rows that a model was trained on would have to be written anew to be used."""
    rows = [{"humidity": 1.5, "sky": "clear"}, {"humidity": None, "sky": None}]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(each) for each in [rows[0], {"features": rows[1]}]))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("sky,humidity\nclear,1.5\n,NaN\n")
    for name in ("rows.jsonl", "rows.parquet", "rows.csv"):
        assert list(Reference.from_bytes(reference_of(tmp_path / name, rain())).sample) == rows


def test_file_that_is_no_graph(tmp_path: Path) -> None:
    """If it failed, a mistyped path would end in a traceback."""
    (tmp_path / "text.onnx").write_text("hello")
    for path, sentence in (
        (tmp_path / "nowhere.onnx", "no such file; name an ONNX file or an MLflow model folder"),
        (tmp_path, "a folder without an MLmodel file"),
    ):
        with pytest.raises(CommandError, match=sentence):
            located(path)
    with pytest.raises(CommandError, match="not an ONNX graph"):
        fitted(tmp_path / "text.onnx", rain())


async def test_import_is_offered_once_and_numbered(kafka: Broker, tmp_path: Path) -> None:
    """If it failed, an imported model would not become a version, or a version without its lineage."""
    prefix = kafka.unique("import") + "-"
    for topic in ("model-specs", "model-versions", "deployments", "candidate-trained"):
        await kafka.create_topic(prefix + topic)
    (tmp_path / "objects").mkdir()
    (tmp_path / "rows.csv").write_text("humidity,sky,rain\n10,clear,0\n,clouded,1\n")
    connection = Connection(kafka.bootstrap, prefix, "", "", (tmp_path / "objects").as_uri())
    offered: list[CandidateTrained] = []

    def note(event: Event | None, _: Record) -> None:
        assert isinstance(event, CandidateTrained)
        offered.append(event)

    follower, producer = Follower(connection.kafka, "candidate-trained", note), Producer(connection.kafka)
    await producer.start()
    await follower.start()
    path = saved(tmp_path, graph())
    try:
        with pytest.raises(CommandError, match="no model 'rain' has a spec here"):
            await offer(connection, "rain", path)
        applied = SpecApplied(model="rain", spec_revision=4, spec=rain(), applied_by="t", time=NOW)
        await producer.send_all([outgoing(applied, "model-specs", "rain")])
        asked = asyncio.create_task(offer(connection, "rain", path))
        await eventually(lambda: offered or asked.done())
        (candidate,) = offered
        taken = candidate.model_dump(include={"run_id", "model", "learner", "continual", "artefact", "lineage"})
        version = VersionChanged(version=3, stage="registered", time=NOW, **taken)
        await producer.send_all([outgoing(version, "model-versions", "rain|3")])
        assert (await asked).version == 3
        again = await offer(connection, "rain", path)
        with_rows = asyncio.create_task(offer(connection, "rain", path, reference=tmp_path / "rows.csv"))
        await eventually(lambda: len(offered) == 3 or with_rows.done())
        explained = offered[-1]
        with_rows.cancel()
    finally:
        await follower.stop()
        await producer.stop()
    assert again.version == 3
    assert candidate.reference is None
    assert explained.artefact == candidate.artefact
    assert explained.run_id != candidate.run_id
    assert explained.reference is not None
    rows = await ObjectStore.from_url(connection.object_store).get_artefact(explained.reference)
    assert Reference.from_bytes(rows).sample == (
        {"humidity": 10.0, "sky": "clear"},
        {"humidity": None, "sky": "clouded"},
    )
    assert (candidate.learner, candidate.lineage.spec_revision) == ("imported", 4)
    assert candidate.lineage.parameters == {"file": "theirs.onnx"}
    assert list(candidate.lineage.trained_on) == []
    data = await ObjectStore.from_url(connection.object_store).get_artefact(candidate.artefact)
    assert load(ONNX, data, signing_key=b"", spec=rain()).predict([ROW])[0].prediction == 1
