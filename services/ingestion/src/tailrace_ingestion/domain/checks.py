"""A model's spec, compiled once: a typed decoder for its features and a check of whole batches, column by column.

Events of one model go through `CompiledSpec.check` together. Each feature is one numpy row (or one list of words), so
that limits and missing values cost a few vector operations a batch; only what is wrong is looked at event by event.

A value outside its limits or categories, or missing, meets the feature's policy: `reject` refuses the event, `clip`
and `null` change the value (the event must be written anew), `flag` lets it pass. In all cases it is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
Mask = npt.NDArray[np.bool_]
Change = dict[str, float | str | None]
LARGEST = sys.float_info.max
"""JSON's integers may be larger than any number that a model calculates with."""


@dataclass(slots=True)
class NumberColumn:
    """One numerical feature of a batch. `values` is NaN where there is none (missing, or nulled by policy)."""

    values: Floats
    missing: Mask
    out_of_limits: Mask


@dataclass(slots=True)
class WordColumn:
    """One categorical feature of a batch. `values` is None where there is none (missing, or nulled by policy)."""

    values: list[str | None]
    missing: Mask
    unseen: Mask


Column = NumberColumn | WordColumn


@dataclass(slots=True)
class Checked:
    """A batch after its check. Positions are those of the batch; columns hold every event whose features decoded.

    `decoded` are the positions that the columns' entries belong to.
    """

    decoded: list[int]
    columns: dict[str, Column]
    rejected: dict[int, Rejection] = field(default_factory=dict)
    changed: dict[int, Change] = field(default_factory=dict)


class CompiledSpec:
    """One revision of one model's spec, ready for the hot path."""

    def __init__(self, spec: ModelSpec, revision: int) -> None:
        self.spec = spec
        self.revision = revision
        self.classes = frozenset(spec.label.classes) if isinstance(spec.label, ClassLabel) else None
        self._decode = _features_decoder(spec)

    def check(self, events: Sequence[Prediction]) -> Checked:
        """Check events of this model against the spec: features, limits, and what was predicted."""
        decoded: list[int] = []
        rows: list[tuple[Any, ...]] = []
        rejected: dict[int, Rejection] = {}
        for position, event in enumerate(events):
            try:
                rows.append(msgspec.structs.astuple(self._decode(event.features)))
                decoded.append(position)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                rejected[position] = diagnosis.of_features(bytes(event.features), self.spec, str(error))
        checked = Checked(decoded, {}, rejected)
        if rows:
            self._fill(checked, rows)
        for position, event in enumerate(events):
            if position not in rejected and (wrong := self._wrong_prediction(event)):
                rejected[position] = wrong
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

    def _fill(self, checked: Checked, rows: list[tuple[Any, ...]]) -> None:
        for feature, cells in zip(self.spec.features, zip(*rows, strict=True), strict=True):
            if isinstance(feature, NumericalFeature):
                checked.columns[feature.name] = self._numbers(checked, feature, cells)
            else:
                checked.columns[feature.name] = self._words(checked, feature, cells)

    def _numbers(self, checked: Checked, feature: NumericalFeature, cells: tuple[float | None, ...]) -> NumberColumn:
        values = np.array(cells, dtype=np.float64)
        missing = np.isnan(values)
        with np.errstate(invalid="ignore"):
            outside = (values < feature.limits.min) | (values > feature.limits.max)
        column = NumberColumn(values, missing, outside)
        if outside.any():
            self._outside(checked, feature, column)
        if feature.on_missing == "reject" and missing.any():
            self._refuse(checked, missing, lambda _: _missing(feature.name, self.spec.model))
        return column

    def _outside(self, checked: Checked, feature: NumericalFeature, column: NumberColumn) -> None:
        policy, values, outside = feature.on_out_of_limits, column.values, column.out_of_limits
        if policy == "reject":
            self._refuse(checked, outside, lambda at: _out_of_limits(feature, self.spec.model, float(values[at])))
        elif policy in {"clip", "null"}:
            kept = np.clip(values[outside], feature.limits.min, feature.limits.max) if policy == "clip" else np.nan
            values[outside] = kept
            for at in np.flatnonzero(outside).tolist():
                new = float(values[at]) if policy == "clip" else None
                checked.changed.setdefault(checked.decoded[at], {})[feature.name] = new

    def _words(self, checked: Checked, feature: CategoricalFeature, cells: tuple[str | None, ...]) -> WordColumn:
        values = list(cells)
        known = {*feature.categories, None}
        missing, unseen = np.zeros(len(values), np.bool_), np.zeros(len(values), np.bool_)
        found = set(values)
        if None in found:
            missing = np.fromiter((value is None for value in values), np.bool_, len(values))
        if found - known:
            unseen = np.fromiter((value not in known for value in values), np.bool_, len(values))
            self._unseen(checked, feature, values, unseen)
        if feature.on_missing == "reject" and missing.any():
            self._refuse(checked, missing, lambda _: _missing(feature.name, self.spec.model))
        return WordColumn(values, missing, unseen)

    def _unseen(self, checked: Checked, feature: CategoricalFeature, values: list[str | None], unseen: Mask) -> None:
        if feature.on_unseen == "reject":
            self._refuse(checked, unseen, lambda at: _unseen(feature, self.spec.model, str(values[at])))
        elif feature.on_unseen == "null":
            for at in np.flatnonzero(unseen).tolist():
                values[at] = None
                checked.changed.setdefault(checked.decoded[at], {})[feature.name] = None

    def _refuse(self, checked: Checked, where: Mask, why: Callable[[int], Rejection]) -> None:
        for at in np.flatnonzero(where).tolist():
            checked.rejected.setdefault(checked.decoded[at], why(at))

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


def _features_decoder(spec: ModelSpec) -> Callable[[msgspec.Raw], msgspec.Struct]:
    """A decoder that takes exactly the spec's features, in any order, each of its type or null."""
    kinds: dict[str, Any] = {"numerical": float | None, "categorical": str | None}
    fields = [(f"f{index}", kinds[feature.type]) for index, feature in enumerate(spec.features)]
    rename = {f"f{index}": name for index, name in enumerate(spec.feature_names)}
    shape = msgspec.defstruct("Features", fields, rename=rename, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(shape).decode


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
