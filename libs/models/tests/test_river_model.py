"""Online learners: what they learn, what they survive, and that their bytes say nothing but their state."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, preprocessing

from tailrace_contracts import Log, ModelSpec, parse_spec
from tailrace_contracts.spec import OnlineLearner
from tailrace_models import RIVER, Answer, ArtefactIncompatible, RiverModel, load
from tailrace_models.encoding import Row

KEY = b"k" * 32
EVERY = {*get_args(OnlineLearner.model_fields["algorithm"].annotation)}
ALGORITHMS = sorted(EVERY - {"linear-regression"})
REGRESSORS = sorted(EVERY - {"logistic-regression"})


def spec(**label: Any) -> ModelSpec:
    """Two numbers and a word."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "o",
            "label": {"name": "rain", **label},
            "features": [
                {"name": "wind", "type": "numerical", "on_missing": "flag"},
                {"name": "pressure", "type": "numerical", "on_missing": "flag"},
                {"name": "sky", "type": "categorical", "categories": ["blue", "grey"], "on_missing": "flag"},
            ],
        }
    )


def number(**label: Any) -> ModelSpec:
    """The same features, and how many millimetres of rain fall."""
    changes = {"task": "regression", "label": {"name": "mm", "loss_scale": 50} | label}
    return parse_spec(spec().model_dump(mode="json") | changes)


def regressor(algorithm: str, **label: Any) -> RiverModel:
    """An untrained model of a number."""
    return RiverModel.build(OnlineLearner.model_validate({"algorithm": algorithm}), number(**label))


def wet_days(count: int, seed: int = 1, scale: float = 1.0) -> list[tuple[Row, float]]:
    """Days on which the rain grows with wind and with both ends of the pressure, more of it under a grey sky."""
    chance = random.Random(seed)
    found: list[tuple[Row, float]] = []
    for _ in range(count):
        wind, pressure, sky = chance.gauss(20, 5), chance.gauss(1013, 8), chance.choice(["blue", "grey"])
        mean = 400 + 8 * (wind - 20) + 0.3 * (pressure - 1013) ** 2 + 20 * (sky == "grey")
        found.append(({"wind": wind, "pressure": pressure, "sky": sky}, scale * (mean + chance.gauss(0, 5))))
    return found


def mean_error(model: RiverModel, examples: list[tuple[Row, float]]) -> float:
    """Test, then train: the mean absolute error over the stream."""
    total = 0.0
    for row, label in examples:
        total += abs(model.predict(row).prediction - label)
        model.learn(row, label)
    return total / len(examples)


def build(algorithm: str, **label: Any) -> RiverModel:
    """An untrained model."""
    return RiverModel.build(OnlineLearner.model_validate({"algorithm": algorithm}), spec(**label))


def days(count: int, seed: int = 1) -> list[tuple[Row, int]]:
    """Days on which it rains when wind is far from its mean, more so under a grey sky."""
    chance = random.Random(seed)
    found: list[tuple[Row, int]] = []
    for _ in range(count):
        row: dict[str, float | str | None] = {
            "wind": chance.gauss(20, 5),
            "pressure": chance.gauss(1013, 8),
            "sky": chance.choice(["blue", "grey"]),
        }
        far = abs(float(row["wind"] or 0) - 20) / 5 + (row["sky"] == "grey") / 2 + chance.gauss(0, 0.2)
        found.append((row, int(far > 1)))
    return found


def accuracy(model: RiverModel, examples: list[tuple[Row, int]]) -> float:
    """Test, then train: the share of right answers over the stream."""
    right = 0
    for row, label in examples:
        right += model.predict(row).prediction == label
        model.learn(row, label)
    return right / len(examples)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns(algorithm: str) -> None:
    """A spec could name an algorithm that stays at guessing."""
    assert accuracy(build(algorithm), days(1_200)) > 0.7


def test_the_linear_learner_bends_its_boundary() -> None:
    """Users would do better with plain river: a model of straight lines cannot tell both ends from the middle."""
    examples = days(2_500)
    plain = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    right = 0
    for row, label in examples:
        numbers = {name: value for name, value in row.items() if name != "sky"}
        right += plain.predict_one(numbers) == bool(label)
        plain.learn_one(numbers, bool(label))
    assert accuracy(build("logistic-regression"), examples) > right / len(examples) + 0.1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_untrained_model_says_one_half_and_negative(algorithm: str) -> None:
    """Before its first example a model would answer at random, or fail."""
    model = build(algorithm, classes=[7, 3], positive=7)
    assert model.predict({"wind": 1.0, "pressure": 1.0, "sky": "blue"}) == Answer(3, 0.5)
    assert model.predict({}) == Answer(3, 0.5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_answers_are_classes_of_the_spec(algorithm: str) -> None:
    """Labels 3 and 7 would be answered with 0 and 1."""
    model = build(algorithm, classes=[3, 7], positive=3)
    for row, label in days(150):
        model.learn(row, 3 if label else 7)
    answers = [model.predict(row) for row, _ in days(50, seed=2)]
    assert {each.prediction for each in answers} <= {3, 7}
    assert all((each.prediction == 3) == ((each.probability or 0) > 0.5) for each in answers)


def test_a_label_outside_the_classes_is_refused() -> None:
    """A broken label would be learned as the negative class."""
    with pytest.raises(ValueError, match="label 2 is none of the classes"):
        build("logistic-regression").learn({"wind": 1.0}, 2)


def not_finite(state: Any) -> list[float]:
    """Every NaN and infinity in a learner's state."""
    found: list[float] = []

    class Search(pickle.Pickler):
        def persistent_id(self, obj: Any) -> None:
            if isinstance(obj, float) and not math.isfinite(obj):
                found.append(obj)

    Search(io.BytesIO()).dump(state)
    return found


@pytest.mark.parametrize("algorithm", REGRESSORS)
@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_every_algorithm_learns_numbers_of_any_size(algorithm: str, scale: float) -> None:
    """A spec could name a regression that stays at guessing the mean, or one that diverges on large numbers."""
    model, examples = regressor(algorithm), wet_days(1_200, scale=scale)
    mean_error(model, examples[:600])
    labels = [label for _, label in examples]
    guessing = sum(abs(label - sum(labels) / len(labels)) for label in labels) / len(labels)
    assert mean_error(model, examples[600:]) < guessing * 0.6


@pytest.mark.parametrize("algorithm", REGRESSORS)
def test_answers_are_numbers_within_the_labels_limits(algorithm: str) -> None:
    """A rainfall below nothing would be served, or a probability beside it."""
    model = regressor(algorithm, limits={"min": 0, "max": 30})
    assert model.predict({}) == Answer(0.0, None)
    for row, label in wet_days(150):
        model.learn(row, max(0, min(30, (label - 400) / 10)))
    answers = [
        model.predict({**row, "wind": 1e9 if number % 2 else -1e9}) for number, (row, _) in enumerate(wet_days(50))
    ]
    assert all(0 <= each.prediction <= 30 and each.probability is None for each in answers)


@pytest.mark.parametrize("algorithm", REGRESSORS)
def test_a_restored_regression_goes_on_as_if_nothing_had_been(algorithm: str) -> None:
    """After a restart the learner would answer differently, or its state ask for what is not allowed."""
    model = regressor(algorithm)
    for row, label in wet_days(600):
        model.learn(row, label)
    envelope = model.to_envelope(KEY)
    restored = RiverModel.from_envelope(envelope, KEY).model
    assert restored.to_envelope(KEY) == envelope
    for row, label in wet_days(200, seed=2):
        assert restored.predict(row) == model.predict(row)
        model.learn(row, label)
        restored.learn(row, label)
    assert restored.to_envelope(KEY) == model.to_envelope(KEY)
    served = load(RIVER, envelope, signing_key=KEY, spec=number(limits={"min": 0, "max": 1}))
    assert served.predict([wet_days(1)[0][0]]) == [Answer(1.0)]
    with pytest.raises(ArtefactIncompatible):
        load(RIVER, envelope, signing_key=KEY, spec=spec())


def test_one_absurd_label_is_soon_forgotten() -> None:
    """A single label 1e30 times too large would carry every later answer away."""
    steady, struck = regressor("linear-regression"), regressor("linear-regression")
    for place, (row, label) in enumerate(wet_days(2_000)):
        steady.learn(row, label)
        struck.learn(row, 1e30 if place == 1_000 else label)
    later = wet_days(500, seed=3)
    assert mean_error(struck, later) < mean_error(steady, later) * 1.2


def test_many_features_do_not_make_the_linear_regression_diverge() -> None:
    """Least mean squares with a constant step grows beyond all bounds once there are enough features."""
    features = [{"name": f"x{place}", "type": "numerical"} for place in range(60)]
    learner = OnlineLearner(algorithm="linear-regression")
    model = RiverModel.build(learner, parse_spec(number().model_dump(mode="json") | {"features": features}))
    chance = random.Random(5)
    stream: list[tuple[Row, float]] = []
    for _ in range(1_000):
        row: dict[str, float] = {f"x{place}": chance.gauss(0, 1) for place in range(60)}
        stream.append((row, 10 * row["x0"] - 5 * row["x1"]))
    mean_error(model, stream[:800])
    assert mean_error(model, stream[800:]) < 6


values = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([1.8e308, -1.8e308, 5e-324, 1e154, 0.0, -0.0, 1.0, 94.0]),
    st.integers(-(2**63), 2**63),
    st.booleans(),
)
rows = st.fixed_dictionaries(
    {}, optional={"wind": values, "pressure": values, "sky": st.sampled_from(["blue", "grey", "?", None])}
)


@pytest.mark.parametrize("algorithm", ["logistic-regression", "hoeffding-adaptive-tree"])
@settings(max_examples=60, deadline=None)
@given(examples=st.lists(st.tuples(rows, st.booleans()), min_size=1, max_size=25))
def test_no_value_breaks_a_learner(algorithm: str, examples: list[tuple[Row, bool]]) -> None:
    """One broken sensor would turn every later answer into NaN."""
    model = build(algorithm)
    for row, label in examples * 3:
        model.learn(row, int(label))
        assert 0 <= (model.predict(row).probability or 0) <= 1
    assert not [each for each in not_finite((model._scaler, model._estimator)) if math.isnan(each)]
    if algorithm == "logistic-regression":
        assert not not_finite((model._scaler, model._estimator))


@pytest.mark.parametrize("algorithm", ["linear-regression", "hoeffding-adaptive-tree"])
@settings(max_examples=40, deadline=None)
@given(examples=st.lists(st.tuples(rows, st.floats(-sys.float_info.max, sys.float_info.max)), min_size=1, max_size=25))
def test_no_value_breaks_a_regression(algorithm: str, examples: list[tuple[Row, float]]) -> None:
    """One broken sensor, or one absurd label, would turn every later answer into NaN."""
    model = regressor(algorithm)
    for row, label in examples * 3:
        model.learn(row, label)
        assert math.isfinite(model.predict(row).prediction)
    assert not [each for each in not_finite((model._scaler, model._estimator)) if math.isnan(each)]


def test_one_absurd_reading_is_soon_forgotten() -> None:
    """A single reading 1e30 times too large would blind the model to that feature for good."""
    steady, struck = build("logistic-regression"), build("logistic-regression")
    for number, (row, label) in enumerate(days(2_000)):
        steady.learn(row, label)
        struck.learn({**row, "wind": 1e30} if number == 1_000 else row, label)
    later = days(500, seed=3)
    assert accuracy(struck, later) > accuracy(steady, later) - 0.05


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_restored_learner_goes_on_as_if_nothing_had_been(algorithm: str) -> None:
    """After a restart the learner would answer differently, or forget how far it had come."""
    model = build(algorithm)
    for row, label in days(200):
        model.learn(row, label)
    through = {Log("labelled-examples", 1): 41, Log("labelled-examples", 0): 7}
    envelope = model.to_envelope(KEY, through, {"revision": 4})
    restored = RiverModel.from_envelope(envelope, KEY)
    assert (restored.through, restored.extra) == (through, {"revision": 4})
    assert (restored.model.examples, restored.model.learner) == (200, model.learner)
    assert restored.model.to_envelope(KEY, through, {"revision": 4}) == envelope
    probe = [row for row, _ in days(30, seed=4)]
    assert [restored.model.predict(row) for row in probe] == [model.predict(row) for row in probe]
    served = load(RIVER, envelope, signing_key=KEY, spec=spec())
    assert served.predict(probe) == [model.predict(row) for row in probe]


def test_the_same_stream_gives_the_same_bytes_in_any_process() -> None:
    """An auditor who replays the log would find another artefact than the one that decided."""
    program = Path(__file__).with_name("stream_digests.py")
    runs = [
        subprocess.Popen(
            [sys.executable, str(program), restarts],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for restarts, hash_seed in (("0", "1"), ("3", "2"))
    ]
    digests = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert digests[0] == digests[1]
    assert all(algorithm in digests[0] for algorithm in (*ALGORITHMS, *REGRESSORS))
    assert len(json.loads(digests[0])) == len(ALGORITHMS) + len(REGRESSORS)
