"""Explanations of models: exact where they add, sampled where they do not, and both of the same thing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.spec import OnlineLearner
from tailrace_models import ONNX, RIVER, Explained, Explainer, Predictor, Reference, RiverModel, load
from tailrace_models.encoding import Row
from tailrace_models.explaining import REFERENCE_ROWS, Explainable, thinned
from tailrace_models.reservoir import CAPACITY, MEMORY, Reservoir

KEY = b"k" * 32
FEATURES = [
    {"name": "wind", "type": "numerical", "on_missing": "flag"},
    {"name": "pressure", "type": "numerical", "on_missing": "flag"},
    {"name": "sky", "type": "categorical", "categories": ["blue", "grey", "red"], "on_missing": "flag"},
    {"name": "calls", "type": "numerical"},
]
CLASSES = parse_spec({"model": "rain", "owner": "o", "label": {"name": "rain"}, "features": FEATURES})
NUMBER = parse_spec(
    {
        "model": "rain",
        "owner": "o",
        "task": "regression",
        "label": {"name": "mm", "limits": {"min": -500, "max": 500}},
        "features": FEATURES,
    }
)
SKIES = ["blue", "grey", "red", None, "unseen"]

rows_of = st.fixed_dictionaries(
    {
        "wind": st.none() | st.floats(-50, 80),
        "pressure": st.none() | st.floats(900, 1100),
        "sky": st.sampled_from(SKIES),
        "calls": st.floats(0, 5),
    }
)


def weather(count: int, seed: int = 3) -> list[Row]:
    """Rows with holes and unseen words."""
    chance = random.Random(seed)
    return [
        {
            "wind": None if chance.random() < 0.1 else chance.gauss(20, 9),
            "pressure": chance.gauss(1010, 15),
            "sky": chance.choice(SKIES),
            "calls": float(chance.randrange(5)),
        }
        for _ in range(count)
    ]


def truth(row: Row) -> float:
    """What there is to learn."""
    wind, pressure = row["wind"] or 0.0, row["pressure"]
    assert isinstance(wind, float)
    assert isinstance(pressure, float)
    return 2 * wind - 3 * (pressure - 1010) + 0.1 * wind * (pressure - 1010) + 40 * (row["sky"] == "red")


def river(algorithm: str, spec: ModelSpec, examples: int = 400) -> Predictor:
    """A learner of the stream, restored as serving restores it."""
    model = RiverModel.build(OnlineLearner.model_validate({"algorithm": algorithm}), spec)
    for row in weather(examples):
        model.learn(row, truth(row) if spec.task == "regression" else int(truth(row) > 0))
    return load(RIVER, model.to_envelope(KEY), signing_key=KEY, spec=spec)


def explained(predictor: Predictor, row: Row, reference: Reference | None = None, permutations: int = 200) -> Explained:
    """A row's explanation."""
    explainer = predictor.explainer(reference)
    assert explainer is not None
    return run(explainer, row, permutations)


def run(explainer: Explainer, row: Row, permutations: int = 200) -> Explained:
    """All steps of an explanation."""
    steps = explainer.steps(row, permutations, 11)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found = done.value
            assert isinstance(found, Explained)
            return found


class OnItsScale:
    """An adding model that does not know that it adds, asked on the scale on which it does."""

    def __init__(self, of: Explainable) -> None:
        self.names, self.slice_rows = of.names, of.slice_rows
        self.adding_scale = self.answering_scale = of.adding_scale
        self._of = of

    def exactly(self, rows: Sequence[Row]) -> None:
        """It does not know how."""

    def mixing(self, row: Row, rows: Sequence[Row]) -> Any:
        """Answers, on the adding scale."""
        mixed = self._of.mixing(row, rows)

        def asked(chosen: Any, places: Any) -> Any:
            found = mixed(chosen, places)
            return np.log(found / (1 - found)) if self.adding_scale == "log-odds" else found

        return asked


def sampled(predictor: Predictor, row: Row, reference: Reference | None = None, permutations: int = 200) -> Explained:
    """The same row by sampling."""
    explainer = predictor.explainer(reference)
    assert explainer is not None
    return run(Explainer(OnItsScale(explainer._model), explainer.reference), row, permutations)


LINEAR = [("logistic-regression", CLASSES), ("linear-regression", NUMBER)]
LEARNED = {algorithm: river(algorithm, spec) for algorithm, spec in LINEAR}


@settings(deadline=None, max_examples=40)
@given(rows_of, st.sampled_from(sorted(LEARNED)))
def test_a_linear_learners_contributions_are_its_answer(row: Row, algorithm: str) -> None:
    """An exact explanation would be of another model than the one that answered."""
    predictor = LEARNED[algorithm]
    found, (answer,) = explained(predictor, row), predictor.predict([row])
    assert found.method == "linear-exact"
    total = found.base_value + sum(found.contributions.values())
    assert found.output == pytest.approx(total, rel=1e-9, abs=1e-12)
    if answer.probability is None:
        assert min(max(found.output, -500), 500) == pytest.approx(answer.prediction, rel=1e-9, abs=1e-9)
    else:
        assert 1 / (1 + math.exp(-found.output)) == pytest.approx(answer.probability, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("algorithm", sorted(LEARNED))
def test_exact_and_sampled_contributions_of_a_linear_learner_agree(algorithm: str) -> None:
    """The two methods would explain different things under one name."""
    predictor = LEARNED[algorithm]
    for row in weather(8, seed=99):
        exact, by_sampling = explained(predictor, row), sampled(predictor, row)
        assert by_sampling.method == "sampling-shapley"
        assert by_sampling.contributions == pytest.approx(exact.contributions, rel=1e-6, abs=1e-6)
        assert by_sampling.base_value == pytest.approx(exact.base_value, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "spec"),
    [
        (algorithm, spec)
        for algorithm in ("hoeffding-adaptive-tree", "adaptive-random-forest")
        for spec in (CLASSES, NUMBER)
    ],
)
def test_trees_are_explained_by_sampling(algorithm: str, spec: ModelSpec) -> None:
    """A learner that does not add would have no explanation, or one that is not of its answer."""
    predictor = river(algorithm, spec, 250)
    row = weather(1, seed=5)[0]
    found, (answer,) = explained(predictor, row, permutations=16), predictor.predict([row])
    assert (found.method, found.permutations, found.reference_rows) == ("sampling-shapley", 16, 8)
    assert found.output == (answer.prediction if answer.probability is None else answer.probability)
    assert found.base_value + sum(found.contributions.values()) == pytest.approx(found.output, rel=1e-9)
    assert set(found.standard_errors) == set(found.contributions) == {"wind", "pressure", "sky", "calls"}
    assert found == explained(predictor, row, permutations=16)


# ---------------------------------------------------------------- networks


WEIGHTS = np.array([[0.02], [-0.001], [0.3], [-0.5], [0.9], [0.25]], np.float32)
REFERENCE = Reference(weather(150, seed=8), "r" * 64)


def graph(nodes: list[onnx.NodeProto], output: str = "probability", width: int = 1, **constants: Any) -> bytes:
    """A graph of six columns: missing numbers taken as 1, and then these nodes from `whole` on."""
    weights = {"one": np.float32(1), "w": WEIGHTS, "b": np.array([0.1], np.float32), **constants}
    made = helper.make_graph(
        [
            helper.make_node("IsNaN", ["features"], ["missing"]),
            helper.make_node("Where", ["missing", "one", "features"], ["whole"]),
            *nodes,
        ],
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 6])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString())


node = helper.make_node
SCALED = [
    node("Sub", ["whole", "mean"], ["centred"]),
    node("Div", ["centred", "deviation"], ["away"]),
    node("Clip", ["away", "low", "high"], ["cut"]),
    node("Gemm", ["cut", "wide", "b"], ["score"], transB=1),
]
SCALES: dict[str, Any] = {
    "mean": np.array([20, 1010, 0, 0, 0, 2], np.float32),
    "deviation": np.array([9, 15, 1, 1, 1, 1.5], np.float32),
    "low": np.float32(-2),
    "high": np.float32(2),
    "wide": WEIGHTS.T.copy(),
}
BOTH = np.concatenate([-WEIGHTS, WEIGHTS], axis=1)
ADDING: dict[str, tuple[ModelSpec, bytes]] = {
    "a logistic regression": (
        CLASSES,
        graph(
            [
                node("MatMul", ["whole", "w"], ["z"]),
                node("Add", ["z", "b"], ["s"]),
                node("Sigmoid", ["s"], ["probability"]),
            ]
        ),
    ),
    "our own network without a hidden layer": (
        CLASSES,
        graph([*SCALED, node("Sigmoid", ["score"], ["probability"])], **SCALES),
    ),
    "our own network of a number": (
        NUMBER,
        graph(
            [*SCALED, node("Mul", ["score", "by"], ["m"]), node("Add", ["m", "b"], ["prediction"])],
            "prediction",
            **SCALES,
            by=np.array([7], np.float32),
        ),
    ),
    "two layers without anything between": (
        CLASSES,
        graph(
            [
                node("MatMul", ["whole", "w2"], ["h"]),
                node("MatMul", ["h", "v"], ["s"]),
                node("Sigmoid", ["s"], ["probability"]),
            ],
            w2=BOTH,
            v=np.array([[-0.2], [1.0]], np.float32),
        ),
    ),
    "a softmax over two": (
        CLASSES,
        graph(
            [
                node("MatMul", ["whole", "w2"], ["h"]),
                node("Softmax", ["h"], ["both"], axis=1),
                node("Gather", ["both", "second"], ["probability"], axis=1),
            ],
            w2=BOTH,
            second=np.array([1], np.int64),
        ),
    ),
    "scikit-learn's logistic regression": (
        CLASSES,
        graph(
            [
                node("Scaler", ["whole"], ["scaled"], domain="ai.onnx.ml", offset=[0.5] * 6, scale=[0.9] * 6),
                node(
                    "LinearClassifier",
                    ["scaled"],
                    ["label", "raw"],
                    domain="ai.onnx.ml",
                    classlabels_ints=[0, 1],
                    coefficients=[*(-WEIGHTS[:, 0]).tolist(), *WEIGHTS[:, 0].tolist()],
                    intercepts=[-0.3, 0.3],
                    multi_class=0,
                    post_transform="LOGISTIC",
                ),
                node("Normalizer", ["raw"], ["both"], domain="ai.onnx.ml", norm="L1"),
                node("Gather", ["both", "second"], ["probability"], axis=1),
            ],
            second=np.array([1], np.int64),
        ),
    ),
    "scikit-learn's linear regression": (
        NUMBER,
        graph(
            [
                node(
                    "LinearRegressor",
                    ["whole"],
                    ["prediction"],
                    domain="ai.onnx.ml",
                    coefficients=WEIGHTS[:, 0].tolist(),
                    intercepts=[0.3],
                )
            ],
            "prediction",
        ),
    ),
}


@pytest.mark.parametrize("name", list(ADDING))
def test_networks_that_add_are_explained_exactly(name: str) -> None:
    """A linear model would be explained by estimates, or by terms that are not its own."""
    spec, data = ADDING[name]
    predictor = load(ONNX, data, signing_key=b"", spec=spec)
    for row in weather(8, seed=1):
        found, (answer,) = explained(predictor, row, REFERENCE), predictor.predict([row])
        assert (found.method, found.reference_rows, found.reference_sha256) == ("linear-exact", 100, "r" * 64)
        assert found.base_value + sum(found.contributions.values()) == pytest.approx(found.output, rel=1e-9)
        served = answer.prediction if answer.probability is None else answer.probability
        output = found.output if answer.probability is None else 1 / (1 + math.exp(-found.output))
        assert output == pytest.approx(served, rel=1e-4, abs=1e-4)
        by_sampling = sampled(predictor, row, REFERENCE)
        assert by_sampling.contributions == pytest.approx(found.contributions, rel=1e-2, abs=2e-3)


NOT_ADDING = {
    "a hidden layer": graph(
        [
            node("MatMul", ["whole", "w2"], ["h"]),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "v"], ["s"]),
            node("Sigmoid", ["s"], ["probability"]),
        ],
        w2=BOTH,
        v=np.array([[-0.2], [1.0]], np.float32),
    ),
    "a product of columns": graph(
        [
            node("Mul", ["whole", "whole"], ["m"]),
            node("ReduceSum", ["m"], ["q"], keepdims=1),
            node("Sigmoid", ["q"], ["probability"]),
        ]
    ),
    "a product of sums": graph(
        [
            node("MatMul", ["whole", "w"], ["s"]),
            node("Mul", ["s", "s"], ["q"]),
            node("Sigmoid", ["q"], ["probability"]),
        ]
    ),
    "something behind the sigmoid": graph(
        [
            node("MatMul", ["whole", "w"], ["s"]),
            node("Sigmoid", ["s"], ["p"]),
            node("Mul", ["p", "p"], ["probability"]),
        ]
    ),
    "a sum that is no log-odds": graph(
        [node("MatMul", ["whole", "w"], ["s"]), node("Clip", ["s", "zero", "one"], ["probability"])], zero=np.float32(0)
    ),
}


@pytest.mark.parametrize("name", list(NOT_ADDING))
def test_other_networks_are_not_taken_for_sums(name: str) -> None:
    """A network's interactions would be explained away, and called exact."""
    predictor = load(ONNX, NOT_ADDING[name], signing_key=b"", spec=CLASSES)
    row = weather(1, seed=1)[0]
    found, (answer,) = explained(predictor, row, REFERENCE), predictor.predict([row])
    assert (found.method, found.scale, found.permutations) == ("sampling-shapley", "probability", 200)
    assert found.output == pytest.approx(answer.probability, rel=1e-5)
    assert found.base_value + sum(found.contributions.values()) == pytest.approx(found.output, rel=1e-9)
    assert min(found.standard_errors.values()) >= 0


def test_without_rows_there_is_no_explainer() -> None:
    """A model without a reference would be explained against nothing."""
    predictor = load(ONNX, ADDING["a logistic regression"][1], signing_key=b"", spec=CLASSES)
    assert predictor.explainer() is None
    assert predictor.explainer(Reference([], "0" * 64)) is None
    assert river("logistic-regression", CLASSES, examples=0).explainer() is None


def test_a_large_reference_is_thinned_and_keeps_its_digest() -> None:
    """An explanation would cost as much as its reference is large, or not say what it rests on."""
    large = thinned(Reference(weather(1_000), "a" * 64))
    assert (len(large.rows), large.sha256) == (REFERENCE_ROWS, "a" * 64)
    assert large.rows[1] == weather(1_000)[10]


# ---------------------------------------------------------------- what learners keep


def test_a_learner_keeps_a_sample_of_what_it_learned() -> None:
    """Its answers could not be explained, or against rows that it has never seen."""
    kept = Reservoir(CLASSES.features)
    for count in range(1, 10 * MEMORY):
        kept.learn(count, {"wind": float(count), "pressure": None, "sky": SKIES[count % 5], "calls": 0.5})
    found = [row["wind"] for row in kept.rows()]
    assert len(set(found)) == CAPACITY
    ages = [10 * MEMORY - each for each in found if isinstance(each, float)]
    assert np.mean(ages) == pytest.approx(MEMORY, rel=0.4)
    assert kept.rows()[0] == {"wind": found[0], "pressure": None, "sky": kept.rows()[0]["sky"], "calls": 0.5}
    assert {row["sky"] for row in kept.rows()} == {"blue", "grey", "red", None}


@pytest.mark.parametrize("features", [FEATURES, FEATURES[:2], [FEATURES[2]]])
def test_the_sample_survives_a_restart(features: list[dict[str, object]]) -> None:
    """After a restart the same answer would be explained otherwise."""
    spec = parse_spec({"model": "rain", "owner": "o", "label": {"name": "rain"}, "features": features})
    learner, whole = OnlineLearner(), weather(300)
    model, other = RiverModel.build(learner, spec), RiverModel.build(learner, spec)
    for row in whole[:150]:
        model.learn(row, 1)
    model = RiverModel.from_envelope(model.to_envelope(KEY), KEY).model
    for row in whole[150:]:
        model.learn(row, 1)
    for row in whole:
        other.learn(row, 1)
    assert model.reference() == other.reference()
    assert len(model.reference().rows) == CAPACITY
