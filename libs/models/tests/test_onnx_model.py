"""Networks for serving."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_models import ONNX, Answer, ArtefactCorrupt, ArtefactIncompatible, OnnxModel, encode_rows, load
from tailrace_models.encoding import Row

onnx = pytest.importorskip("onnx")


def spec() -> ModelSpec:
    """One number and a word of two; classes 3 and 7, of which 3 is asked for."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "o",
            "label": {"name": "rain", "classes": [3, 7], "positive": 3},
            "features": [
                {"name": "wind", "type": "numerical", "on_missing": "flag"},
                {"name": "sky", "type": "categorical", "categories": ["blue", "grey"]},
            ],
        }
    )


def graph(
    *, columns: int = 3, flat: bool = False, named: tuple[str, str] = ("features", "probability"), broken: bool = False
) -> bytes:
    """A logistic regression, missing numbers taken as 2, with the weights 1, 0, -1."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    source, target = named
    weights = onnx.numpy_helper.from_array(np.resize(np.array([[1.0], [0.0], [-1.0]], np.float32), (columns, 1)), "w")
    two = onnx.numpy_helper.from_array(np.array(np.nan if broken else 2.0, np.float32), "two")
    last = onnx.numpy_helper.from_array(np.array([1], np.int64), "last")
    shaped = helper.make_node("Squeeze", ["column", "last"], [target]) if flat else None
    nodes = [
        helper.make_node("IsNaN", [source], ["missing"]),
        helper.make_node("Where", ["missing", "two", source], ["whole"]),
        helper.make_node("MatMul", ["whole", "w"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["column" if shaped else target]),
        *([shaped] if shaped else []),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(source, floats, ["rows", columns])],
        [helper.make_tensor_value_info(target, floats, ["rows"] if flat else ["rows", 1])],
        [weights, two, last],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def sigmoid(scores: Sequence[float]) -> list[float]:
    """The graph's answers, by hand."""
    return [float(1 / (1 + np.exp(-score))) for score in scores]


@pytest.mark.parametrize("flat", [True, False])
def test_answers_are_the_graphs(flat: bool) -> None:
    """Serving would answer something else than what was trained and evaluated."""
    rows: list[Row] = [{"wind": 1.0, "sky": "grey"}, {"wind": None, "sky": "blue"}, {"wind": -1.0, "sky": "?"}]
    model = load(ONNX, graph(flat=flat), signing_key=b"", spec=spec())
    answers = model.predict(rows)
    assert [each.probability for each in answers] == pytest.approx(sigmoid([0.0, 2.0, -1.0]), abs=1e-6)
    assert [each.prediction for each in answers] == [7, 3, 7]
    assert model.predict(rows[:1]) == [Answer(7, 0.5)]


def test_columns_of_answers_are_the_same() -> None:
    """Evaluation, which takes columns, would score other answers than serving gives."""
    rows: list[Row] = [{"wind": float(number), "sky": "blue"} for number in range(-3, 4)]
    model = OnnxModel.from_bytes(graph(), spec())
    many = model.predict_many(rows)
    assert many.probabilities is not None
    assert list(map(Answer, many.predictions.tolist(), many.probabilities.tolist())) == model.predict(rows)
    again = model.predict_matrix(encode_rows(spec(), rows)).probabilities
    assert again is not None
    assert again.tolist() == many.probabilities.tolist()


def number(**limits: float) -> ModelSpec:
    """The same features, and a number to be told."""
    label = {"name": "mm", "limits": limits, "loss_scale": 1}
    return parse_spec({**spec().model_dump(mode="json"), "task": "regression", "label": label})


def test_a_regression_answers_with_a_number_within_the_labels_limits() -> None:
    """Rain of minus two millimetres would be served, or a probability nobody asked for."""
    rows: list[Row] = [{"wind": 1.0, "sky": "grey"}, {"wind": None, "sky": "blue"}, {"wind": -1.0, "sky": "?"}]
    graph_of_numbers = graph(named=("features", "prediction"))
    answers = load(ONNX, graph_of_numbers, signing_key=b"", spec=number()).predict(rows)
    assert [each.prediction for each in answers] == pytest.approx(sigmoid([0.0, 2.0, -1.0]), abs=1e-6)
    assert [each.probability for each in answers] == [None] * 3
    bounded = load(ONNX, graph_of_numbers, signing_key=b"", spec=number(min=0.4, max=0.6)).predict(rows)
    assert [each.prediction for each in bounded] == [0.5, 0.6, 0.4]
    with pytest.raises(ArtefactIncompatible, match="expected 'prediction'"):
        load(ONNX, graph(), signing_key=b"", spec=number())


def test_no_rows_are_no_answers() -> None:
    """An empty request would fail inside the runtime."""
    assert OnnxModel.from_bytes(graph(), spec()).predict([]) == []


def test_a_network_that_answers_nan_is_undecided() -> None:
    """A NaN would go out as a probability, which JSON does not have."""
    assert OnnxModel.from_bytes(graph(broken=True), spec()).predict([{"wind": None, "sky": "blue"}]) == [Answer(7, 0.5)]


@pytest.mark.parametrize(
    "data", [graph(columns=4), graph(named=("rows", "probability")), graph(named=("features", "logit"))]
)
def test_a_graph_for_another_spec_is_refused(data: bytes) -> None:
    """A model of an older spec would be fed with shifted columns."""
    with pytest.raises(ArtefactIncompatible, match="do not fit model 'rain'"):
        OnnxModel.from_bytes(data, spec())


@pytest.mark.parametrize("data", [b"", b"not a graph", graph()[:50]])
def test_what_is_no_graph_is_refused_in_one_sentence(data: bytes) -> None:
    """A damaged artefact would end in a traceback of the runtime."""
    with pytest.raises(ArtefactCorrupt, match="cannot be read"):
        OnnxModel.from_bytes(data, spec())


def test_loading_models_needs_no_torch() -> None:
    """The serving image, which has no torch, could not start; and a process would load libraries that it never uses."""
    program = (
        "import sys, tailrace_models; light = set(sys.modules); from tailrace_models import OnnxModel, RiverModel;"
        "print('torch' in sys.modules, light & {'river', 'onnxruntime'})"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False set()\n"
