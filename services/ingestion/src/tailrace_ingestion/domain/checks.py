"""A model's spec, compiled once: a typed decoder for its events and a check of whole batches, column by column.

One decoder reads the whole event, features included, and takes events of this model only. Events of one model go
through `CompiledSpec.check` together: all numerical features are one matrix, words are codes, so that limits and
missing values cost a few vector operations a batch; only what is wrong is looked at event by event.

A value outside its limits or categories, or missing, meets the feature's policy: `reject` refuses the event, `clip`
and `null` change the value (the event must be written anew), `flag` lets it pass. In all cases it is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from tailrace_contracts.spec import (
    CategoricalFeature,
    ClassLabel,
    Limits,
    ModelSpec,
    NumericalFeature,
    NumericalLabel,
)
from tailrace_ingestion.domain import diagnosis
from tailrace_ingestion.domain.reasons import Reason, Rejection
from tailrace_ingestion.domain.wire import Output, Prediction

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Change = dict[str, float | str | None]

LARGEST = sys.float_info.max
"""JSON's integers may be larger than any number that a model calculates with."""

_SHADOWS = attrgetter("shadows")

ABSENT = -1
"""The code of a word that is not there."""


@dataclass(slots=True)
class NumberColumn:
    """One numerical feature of a batch. `values` is NaN where there is none (missing, or nulled by policy)."""

    values: Floats
    missing: Mask
    out_of_limits: Mask


@dataclass(slots=True)
class WordColumn:
    """One categorical feature of a batch: `words[code]` is an event's word, and ABSENT stands where there is none.

    The first `known` words are the categories; those behind them were unseen.
    """

    codes: Integers
    words: list[str]
    known: int
    missing: Mask
    unseen: Mask


Column = NumberColumn | WordColumn


@dataclass(slots=True)
class Checked:
    """A batch after its check. Positions are those of the events that were checked."""

    columns: dict[str, Column]
    rejected: dict[int, Rejection] = field(default_factory=dict)
    changed: dict[int, Change] = field(default_factory=dict)


class CompiledSpec:
    """One revision of one model's spec, ready for the hot path."""

    def __init__(self, spec: ModelSpec, revision: int) -> None:
        self.spec = spec
        self.revision = revision
        self.classes = frozenset(spec.label.classes) if isinstance(spec.label, ClassLabel) else None
        self.decode = _decoder(spec)
        fields = [(f"f{index}", feature) for index, feature in enumerate(spec.features)]
        self._numbers = [(name, each) for name, each in fields if isinstance(each, NumericalFeature)]
        self._words = [(name, each) for name, each in fields if isinstance(each, CategoricalFeature)]
        self._lowest = np.array([[each.limits.min] for _, each in self._numbers])
        self._highest = np.array([[each.limits.max] for _, each in self._numbers])
        self._cells = _cells([name for name, _ in self._numbers])

    def check(self, events: Sequence[Prediction]) -> Checked:
        """Check events that `decode` gave: limits, missing and unseen values, and what was predicted."""
        features = [event.features for event in events]
        checked = Checked({feature.name: _NOTHING for feature in self.spec.features})
        if self._numbers:
            self._check_numbers(checked, self._matrix(features))
        for name, feature in self._words:
            checked.columns[feature.name] = self._check_words(checked, feature, map(attrgetter(name), features))
        self._check_predictions(checked, events)
        return checked

    def check_label(self, label: float) -> Rejection | None:
        """Whether a label is one of the classes; for a regression, a number within the label's limits."""
        if isinstance(self.spec.label, NumericalLabel):
            return _label_out_of_limits(self.spec.label, self.spec.model, label)
        if label in self.spec.label.classes and isinstance(label, int):
            return None
        classes = _listed(self.spec.label)
        sentence = f"label {label} for model {self.spec.model}, expected one of its classes {classes}"
        return Rejection(Reason.UNKNOWN_CLASS, sentence, self.spec.model)

    # ------------------------------------------------------------ numbers

    def _matrix(self, features: Sequence[Any]) -> Floats:
        """All numerical features, one row each; NaN for null."""
        shape = len(features), len(self._numbers)
        try:
            cells = np.fromiter(chain.from_iterable(map(self._cells, features)), np.float64, shape[0] * shape[1])
        except TypeError:  # a null
            cells = np.array([self._cells(each) for each in features], dtype=np.float64)
        return np.ascontiguousarray(cells.reshape(shape).T)

    def _check_numbers(self, checked: Checked, matrix: Floats) -> None:
        missing: Mask = np.isnan(matrix)
        with np.errstate(invalid="ignore"):
            outside: Mask = np.asarray((matrix < self._lowest) | (matrix > self._highest))
        some_missing, some_outside = set(_rows(missing)), set(_rows(outside))
        for row, (_, feature) in enumerate(self._numbers):
            column = NumberColumn(matrix[row], missing[row], outside[row])
            checked.columns[feature.name] = column
            if row in some_outside:
                self._outside(checked, feature, column)
            if row in some_missing and feature.on_missing == "reject":
                self._refuse_missing(checked, feature.name, column.missing)

    def _outside(self, checked: Checked, feature: NumericalFeature, column: NumberColumn) -> None:
        policy, values, outside = feature.on_out_of_limits, column.values, column.out_of_limits
        if policy == "reject":
            _refuse(checked, outside, lambda at: _out_of_limits(feature, self.spec.model, float(values[at])))
        elif policy in {"clip", "null"}:
            kept = np.clip(values[outside], feature.limits.min, feature.limits.max) if policy == "clip" else np.nan
            values[outside] = kept
            for at in np.flatnonzero(outside).tolist():
                new = float(values[at]) if policy == "clip" else None
                checked.changed.setdefault(at, {})[feature.name] = new

    # ------------------------------------------------------------ words

    def _check_words(self, checked: Checked, feature: CategoricalFeature, cells: Iterable[str | None]) -> WordColumn:
        column = coded(cells, feature.categories)
        if len(column.words) > column.known:
            self._unseen(checked, feature, column)
        if feature.on_missing == "reject" and column.missing.any():
            self._refuse_missing(checked, feature.name, column.missing)
        return column

    def _unseen(self, checked: Checked, feature: CategoricalFeature, column: WordColumn) -> None:
        if feature.on_unseen == "reject":
            codes, words = column.codes, column.words
            _refuse(checked, column.unseen, lambda at: _unseen(feature, self.spec.model, words[codes[at]]))
        elif feature.on_unseen == "null":
            for at in np.flatnonzero(column.unseen).tolist():
                column.codes[at] = ABSENT
                checked.changed.setdefault(at, {})[feature.name] = None

    # ------------------------------------------------------------ predictions

    def _check_predictions(self, checked: Checked, events: Sequence[Prediction]) -> None:
        if self._all_predictions_fit(events):
            return
        for at, event in enumerate(events):
            if at not in checked.rejected and (wrong := self._wrong_prediction(event)):
                checked.rejected[at] = wrong

    def _all_predictions_fit(self, events: Sequence[Prediction]) -> bool:
        """A quick look at the whole batch; False where it has to be looked at one by one."""
        if any(map(_SHADOWS, events)):
            return False
        predicted = [output.prediction for event in events if (output := event.served) is not None]
        if self.classes is not None:
            return set(map(type, predicted)) <= {int} and self.classes.issuperset(predicted)
        return set(map(type, predicted)) <= {float} and not any(
            output.probability is not None for event in events if (output := event.served) is not None
        )

    def _wrong_prediction(self, event: Prediction) -> Rejection | None:
        for output in (event.served, *event.shadows) if event.shadows else (event.served,):
            if output is None:
                continue
            if self.classes is None:
                if output.probability is not None or not abs(output.prediction) <= LARGEST:
                    return self._not_a_number(output)
            elif output.prediction not in self.classes or output.prediction.__class__ is float:
                return self._not_a_class(output)
        return None

    def _not_a_class(self, output: Output) -> Rejection:
        sentence = (
            f"prediction {output.prediction} of arm {output.arm} for model {self.spec.model}, "
            f"expected one of the label's classes {_listed(self.spec.class_label)}"
        )
        return Rejection(Reason.WRONG_PREDICTION, sentence, self.spec.model)

    def _not_a_number(self, output: Output) -> Rejection:
        found = diagnosis.shown(output.prediction)
        if output.probability is not None:
            found = f"{found} with probability {output.probability:g}"
        sentence = (
            f"prediction {found} of arm {output.arm} for model {self.spec.model}, "
            "expected a number of double precision without a probability: the model is a regression"
        )
        return Rejection(Reason.WRONG_PREDICTION, sentence, self.spec.model)

    def _refuse_missing(self, checked: Checked, name: str, where: Mask) -> None:
        _refuse(checked, where, lambda _: _missing(name, self.spec.model))


def coded(cells: Iterable[str | int | None], categories: Sequence[str | int]) -> WordColumn:
    """Words (or classes) as codes: the categories keep their places, unseen words get the next ones as they come."""
    words = list(categories)
    place = _Places(words)
    codes = np.array([place[cell] for cell in cells], dtype=np.int64)
    unseen = codes >= len(categories) if len(words) > len(categories) else np.zeros(len(codes), np.bool_)
    return WordColumn(codes, [str(word) for word in words], len(categories), codes == ABSENT, unseen)


class _Places(dict[str | int | None, int]):
    """Where each word stands; a word that stands nowhere is put at the end."""

    def __init__(self, words: list[str | int]) -> None:
        super().__init__((word, at) for at, word in enumerate(words))
        self[None] = ABSENT
        self._words = words

    def __missing__(self, word: str | int) -> int:
        self._words.append(word)
        self[word] = len(self._words) - 1
        return self[word]


_NOTHING = NumberColumn(np.empty(0), np.empty(0, np.bool_), np.empty(0, np.bool_))


def _rows(mask: Mask) -> list[int]:
    """The rows in which anything is true."""
    return np.unique(np.nonzero(mask)[0]).tolist() if mask.any() else []


def _refuse(checked: Checked, where: Mask, why: Callable[[int], Rejection]) -> None:
    for at in np.flatnonzero(where).tolist():
        checked.rejected.setdefault(at, why(at))


def _cells(names: Sequence[str]) -> Callable[[Any], tuple[float | None, ...]]:
    """Reads these fields of the decoded features."""
    if len(names) == 1:
        one = attrgetter(names[0])
        return lambda features: (one(features),)
    return attrgetter(*names) if names else lambda _: ()


def _decoder(spec: ModelSpec) -> Callable[[bytes], Prediction]:
    """A decoder of whole events of this model, with exactly the spec's features, each of its type or null."""
    kinds: dict[str, Any] = {"numerical": float | None, "categorical": str | None}
    fields = [(f"f{index}", kinds[feature.type]) for index, feature in enumerate(spec.features)]
    rename = {f"f{index}": name for index, name in enumerate(spec.feature_names)}
    features = msgspec.defstruct("Features", fields, rename=rename, forbid_unknown_fields=True, gc=False)
    own: list[tuple[str, Any]] = [("model", Literal[spec.model]), ("features", features)]
    event = msgspec.defstruct("Event", own, bases=(Prediction,), kw_only=True, frozen=True, gc=False)
    decode: Any = msgspec.json.Decoder(event).decode
    return cast("Callable[[bytes], Prediction]", decode)


def rewritten(value: bytes, change: Change) -> bytes:
    """The event with some features changed, and its `type` written out; everything else as it was."""
    document = msgspec.json.decode(value)
    document.setdefault("type", "label-given" if "label" in document else "prediction-made")
    if change:
        document["features"] |= change
    return msgspec.json.encode(document)


def _out_of_limits(feature: NumericalFeature, model: str, value: float) -> Rejection:
    sentence = f"feature {feature.name} of model {model} is {value:g}, expected {_within(feature.limits)}"
    return Rejection(Reason.OUT_OF_LIMITS, sentence, model)


def _label_out_of_limits(label: NumericalLabel, model: str, value: float) -> Rejection | None:
    if label.limits.min <= value <= label.limits.max and abs(value) <= LARGEST:
        return None
    found = diagnosis.shown(value)
    sentence = f"label {found} for model {model}, expected {_within(label.limits)}"
    return Rejection(Reason.LABEL_OUT_OF_LIMITS, sentence, model)


def _within(limits: Limits) -> str:
    low, high = limits.min, limits.max
    if np.isfinite(low) and np.isfinite(high):
        return f"a number from {low:g} to {high:g}"
    if np.isfinite(low):
        return f"a number of at least {low:g}"
    return f"a number of at most {high:g}" if np.isfinite(high) else "a number of double precision"


def _missing(name: str, model: str) -> Rejection:
    sentence = f"feature {name} of model {model} is null, expected a value (its spec has on_missing: reject)"
    return Rejection(Reason.MISSING_VALUE, sentence, model)


def _unseen(feature: CategoricalFeature, model: str, value: str) -> Rejection:
    sentence = (
        f"feature {feature.name} of model {model} is {diagnosis.shown(value)!r}, "
        f"expected one of its {len(feature.categories)} categories, such as {feature.categories[0]!r}"
    )
    return Rejection(Reason.UNSEEN_CATEGORY, sentence, model)


def _listed(label: ClassLabel) -> str:
    return " and ".join(str(each) for each in sorted(label.classes))
