"""Online learners: what they learn, what they survive, and that their bytes say nothing but their state."""

from __future__ import annotations

import io
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
from tailrace_models import RIVER, Answer, RiverModel, load
from tailrace_models.encoding import Row

KEY = b"k" * 32
ALGORITHMS = sorted({*get_args(OnlineLearner.model_fields["algorithm"].annotation)} - {"linear-regression"})


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
    assert all((each.prediction == 3) == (each.probability > 0.5) for each in answers)


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
        assert 0 <= model.predict(row).probability <= 1
    assert not [each for each in not_finite((model._scaler, model._classifier)) if math.isnan(each)]
    if algorithm == "logistic-regression":
        assert not not_finite((model._scaler, model._classifier))


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
    assert all(algorithm in digests[0] for algorithm in ALGORITHMS)
