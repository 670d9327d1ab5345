"""A model that learns on: a river pipeline for the features of one spec.

An example goes through two parts. The first makes features fit for learning: numbers are clipped to a size whose
square is still a number and missing ones replaced by the mean so far. For the linear learner they are scaled to mean 0
and variance 1 and cut at a few standard deviations, so that a broken sensor moves the weights no more than a rare day
does; their squares and products stand beside them, so that a boundary may be curved; words are one-hot encoded. Trees
take words as they are, with missing and unseen ones as one word more. The second part is river's classifier or
regressor. Both learn from each example, in order; the state depends on nothing but the configuration and the examples.

A regression's label is cut like a number that the scaler learns, and so is the answer. The linear learner learns how
far the label lies from its mean so far, by normalised least mean squares (Nagumo and Noda 1967, "A learning method for
system identification"): the step is divided by one plus the squared length of the features, so that no number of
features, and no scale of the label, makes it diverge. Regression trees are given scaled numbers, because their
splitter lays a grid of one width over all features, and words one-hot encoded, because their leaves are linear.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel
from river import base, forest, linear_model, optim, preprocessing, tree

from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import (
    ClassLabel,
    Feature,
    Label,
    ModelSpec,
    NumericalFeature,
    NumericalLabel,
    OnlineLearner,
)
from tailrace_models import envelope, pickling
from tailrace_models.answers import Answer, answer, within
from tailrace_models.encoding import Row, number
from tailrace_models.explaining import Reference, digest_of
from tailrace_models.reservoir import Reservoir
from tailrace_models.river_linear import Linear

LINEAR = {"logistic-regression", "linear-regression"}

DEVIATIONS = 3.0
"""Scaled numbers are cut at this many standard deviations."""

OUTLYING = 10.0
"""Once mean and variance have settled, they learn numbers cut at this many standard deviations."""

SETTLED_EXAMPLES = 100

MOST_MULTIPLIED = 12
"""Up to so many numerical features are all multiplied with each other; of more only the squares are taken."""

RATE = 0.02
"""The linear classifier's constant step: it keeps following a stream that changes."""

NORMALISED_RATE = 0.05
"""The same of the linear regression, before it is divided by the features' squared length."""

SEARCH, SEARCH_EXAMPLES = 10.0, 200.0
"""Its first steps are so many times as long: search, then converge (Darken and Moody 1991, equation 2)."""

_JOIN = "\x1f"  # stands in no name that a person would give


_TARGET = f"{_JOIN}label"
"""The label's place among the columns of the scaler."""

ASKED = {"type", "name", "categories"}
"""What of a feature a model depends on. Limits and policies may change freely."""


class Restored(NamedTuple):
    """A model out of its envelope, with what was written beside it."""

    model: RiverModel
    through: dict[Log, int]
    extra: dict[str, Any]


class RiverModel:
    """Learns one example after another and answers in between. Not for use by two threads at once."""

    def __init__(self, learner: OnlineLearner, features: Sequence[Feature], label: Label) -> None:
        self.learner = learner
        self.features = tuple(features)
        self.label = label
        self.examples = 0
        self._scaler = preprocessing.StandardScaler()
        self._regression = isinstance(label, NumericalLabel)
        self._estimator: Any = _regressor(learner) if self._regression else _classifier(learner)
        self._linear = learner.algorithm in LINEAR
        self._numerical = [each.name for each in self.features if isinstance(each, NumericalFeature)]
        self._categorical = [
            (each.name, {category: f"{each.name}{_JOIN}{category}" for category in each.categories})
            for each in self.features
            if not isinstance(each, NumericalFeature)
        ]
        self._products = [(a, b, f"{a}{_JOIN}{b}") for a, b in _pairs(self._numerical)]
        self._reservoir = Reservoir(self.features)

    @classmethod
    def build(cls, learner: OnlineLearner, spec: ModelSpec) -> RiverModel:
        """An untrained model for the spec's features and label."""
        return cls(learner, spec.features, spec.label)

    def learn(self, features: Row, label: float) -> None:
        """Learn one example. Raises ValueError for a label that is none of the spec's classes, or no finite number."""
        if isinstance(self.label, ClassLabel) and label not in self.label.classes:
            raise ValueError(f"label {label} is none of the classes {self.label.classes}; correct the label event")
        if not math.isfinite(label):
            raise ValueError(f"label {label} is not finite; correct the label event")
        numbers = self._numbers(features)
        if isinstance(self.label, ClassLabel):
            self._scaler.learn_one({name: self._believed(name, value) for name, value in numbers.items()})
            self._estimator.learn_one(self._prepared(features, numbers), label == self.label.positive)
        else:
            self._learn_number(features, numbers, self._believed(_TARGET, number(label)))
        self.examples += 1
        self._reservoir.learn(self.examples, features)

    def _learn_number(self, features: Row, numbers: dict[str, float], target: float) -> None:
        believed = {name: self._believed(name, value) for name, value in numbers.items()}
        self._scaler.learn_one({**believed, _TARGET: target})
        prepared = self._prepared(features, numbers)
        if self._linear:
            length = sum(value * value for value in prepared.values() if isinstance(value, float))
            longer = max(SEARCH / (1 + self.examples / SEARCH_EXAMPLES), 1.0)
            self._estimator.learn_one(prepared, target - self._scaler.means[_TARGET], w=longer / (1 + length))
        else:
            self._estimator.learn_one(prepared, target)

    def predict(self, features: Row) -> Answer:
        """The answer for one row of features; before the first example one half, and so the negative class, or 0."""
        prepared = self._prepared(features, self._numbers(features))
        if isinstance(self.label, ClassLabel):
            return self._class(self.label, prepared)
        mean = self._scaler.means.get(_TARGET, 0.0)
        found = float(self._estimator.predict_one(prepared)) + (mean if self._linear else 0.0)
        return within(self.label, self._believed(_TARGET, found) if math.isfinite(found) else mean)

    def _class(self, label: ClassLabel, prepared: dict[str, float | str]) -> Answer:
        found = self._estimator.predict_proba_one(prepared)
        total = sum(found.values())
        if not total > 0:
            return answer(label, 0.5)
        return answer(label, float(found.get(True, 0.0) / total))

    def to_envelope(
        self, signing_key: bytes, through: Mapping[Log, int] | None = None, extra: Mapping[str, Any] | None = None
    ) -> bytes:
        """The model as signed bytes, with the offset it has learned through in each log and any JSON beside it."""
        header = {
            "learner": self.learner.model_dump(mode="json"),
            "features": [each.model_dump(mode="json", include=ASKED) for each in self.features],
            "label": json.loads(self.label.model_dump_json()),
            "examples": self.examples,
            "reference": self._reservoir.to_json(),
            "through": [[topic, partition, offset] for (topic, partition), offset in sorted((through or {}).items())],
            "extra": dict(extra or {}),
        }
        return envelope.seal(header, pickling.dump((self._scaler, self._estimator)), signing_key)

    @classmethod
    def from_envelope(cls, data: bytes, signing_key: bytes) -> Restored:
        """The model in signed bytes. Raises ArtefactCorrupt, SignatureInvalid or ArtefactIncompatible."""
        header, state = envelope.unseal(data, signing_key)
        spec = _Described.model_validate(header)
        model = cls(spec.learner, spec.features, spec.label)
        model.examples = header["examples"]
        model._scaler, model._estimator = pickling.restore(state)
        model._reservoir = Reservoir.from_json(model.features, header.get("reference"))
        through = {Log(topic, partition): offset for topic, partition, offset in header["through"]}
        return Restored(model, through, header["extra"])

    def reference(self) -> Reference:
        """A sample of the rows that it has learned from; none where it was written before there were samples."""
        rows = self._reservoir.rows()
        return Reference(rows, digest_of(rows))

    def scaled_numbers(self, features: Row) -> list[float]:
        """The numerical features as the linear learners see them; a missing number adds as much as the mean: nothing."""
        scaled = self._scaled(self._numbers(features))
        return [scaled.get(name, 0.0) for name in self._numerical]

    def linear(self) -> Linear | None:
        """The weights, where it is a linear learner that has them."""
        if not self._linear:
            return None
        weights: dict[str, float] = self._estimator.weights
        places = {name: place for place, name in enumerate(self._numerical)}
        products = np.zeros((len(places), len(places)))
        for a, b, product in self._products:
            half = weights.get(product, 0.0) / 2
            products[places[a], places[b]] += half
            products[places[b], places[a]] += half
        mean = self._scaler.means.get(_TARGET, 0.0) if self._regression else 0.0
        return Linear(
            float(self._estimator.intercept) + mean,
            tuple(self._numerical),
            np.array([weights.get(name, 0.0) for name in self._numerical]),
            products,
            {
                name: {category: weights.get(column, 0.0) for category, column in columns.items()}
                for name, columns in self._categorical
            },
        )

    def _numbers(self, features: Row) -> dict[str, float]:
        found = {name: number(features.get(name)) for name in self._numerical}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def _believed(self, name: str, value: float) -> float:
        """The value as the scaler learns it: one absurd reading must not become the yardstick of all others."""
        if self._scaler.counts.get(name, 0) < SETTLED_EXAMPLES:
            return value
        mean, deviation = self._scaler.means[name], math.sqrt(self._scaler.vars[name])
        return min(max(value, mean - OUTLYING * deviation), mean + OUTLYING * deviation) if deviation else value

    def _prepared(self, features: Row, numbers: dict[str, float]) -> dict[str, float | str]:
        if self._linear:
            return self._multiplied(features, numbers)
        return self._whole(features, numbers) if self._regression else self._imputed(features, numbers)

    def _scaled(self, numbers: dict[str, float]) -> dict[str, float]:
        scaled: dict[str, float] = {}
        for name, value in self._scaler.transform_one(numbers).items():
            scaled[name] = min(max(value, -DEVIATIONS), DEVIATIONS)
        return scaled

    def _multiplied(self, features: Row, numbers: dict[str, float]) -> dict[str, float | str]:
        """For the linear learners: scaled numbers and their products, and the words that are there."""
        scaled = self._scaled(numbers)
        prepared: dict[str, float | str] = dict(scaled)
        for a, b, product in self._products:
            if a in scaled and b in scaled:
                prepared[product] = scaled[a] * scaled[b]
        for name, columns in self._categorical:
            column = columns.get(features.get(name))  # type: ignore[arg-type]  # other types are unseen values
            if column is not None:
                prepared[column] = 1.0
        return prepared

    def _whole(self, features: Row, numbers: dict[str, float]) -> dict[str, float | str]:
        """For regression trees: every column in every row, scaled numbers and words as 0 or 1."""
        scaled = self._scaled(numbers)
        prepared: dict[str, float | str] = {name: scaled.get(name, 0.0) for name in self._numerical}
        for name, columns in self._categorical:
            value = features.get(name)
            prepared.update({column: float(category == value) for category, column in columns.items()})
        return prepared

    def _imputed(self, features: Row, numbers: dict[str, float]) -> dict[str, float | str]:
        """For classification trees: numbers and words as they are."""
        means = self._scaler.means
        prepared: dict[str, float | str] = {name: numbers.get(name, means.get(name, 0.0)) for name in self._numerical}
        for name, columns in self._categorical:
            value = features.get(name)
            prepared[name] = value if value in columns and isinstance(value, str) else ""
        return prepared


class _Described(BaseModel):
    """The part of the envelope's header that a model is built from."""

    learner: OnlineLearner
    features: tuple[Feature, ...]
    label: Label


def _pairs(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    if len(names) <= MOST_MULTIPLIED:
        return itertools.combinations_with_replacement(names, 2)
    return zip(names, names, strict=True)


def _classifier(learner: OnlineLearner) -> base.Classifier:
    match learner.algorithm:
        case "logistic-regression":
            return linear_model.LogisticRegression(optim.SGD(RATE), intercept_lr=RATE)
        case "hoeffding-adaptive-tree":
            return tree.HoeffdingAdaptiveTreeClassifier(seed=learner.seed)
        case "adaptive-random-forest":
            return forest.ARFClassifier(n_models=10, seed=learner.seed)
    raise ValueError(f"{learner.algorithm} learns no classes")


def _regressor(learner: OnlineLearner) -> base.Regressor:
    match learner.algorithm:
        case "linear-regression":
            return linear_model.LinearRegression(optim.SGD(NORMALISED_RATE), intercept_lr=NORMALISED_RATE)
        case "hoeffding-adaptive-tree":
            return tree.HoeffdingAdaptiveTreeRegressor(splitter=tree.splitter.QOSplitter(), seed=learner.seed)
        case "adaptive-random-forest":
            return forest.ARFRegressor(n_models=10, splitter=tree.splitter.QOSplitter(), seed=learner.seed)
    raise ValueError(f"{learner.algorithm} learns no numbers")
