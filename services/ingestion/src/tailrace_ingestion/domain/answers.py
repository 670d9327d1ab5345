"""What arms answered, as columns beside the features: who, which class or number, how probable, how fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace_contracts.spec import ClassLabel, Label
from tailrace_ingestion.domain import wire
from tailrace_ingestion.domain.checks import Column, Floats, Integers, Mask, NumberColumn, WordColumn, coded
from tailrace_ingestion.domain.model import Shape
from tailrace_ingestion.domain.parts import arm_word
from tailrace_ingestion.domain.rows import Rows, taken


def served_columns(
    events: Sequence[wire.Prediction], features: dict[str, Column], rows: Integers, label: Label
) -> tuple[WordColumn, dict[str, Column]]:
    """Who answered, and the columns: the served output beside the features."""
    answers = [event.served for event in events]
    outputs = _outputs(answers, label) | {"latency_ms": _numbers([event.latency_ms for event in events])}
    if len(rows) == len(next(iter(features.values())).missing):
        return _arms(answers), outputs | features
    return _arms(answers), outputs | {name: taken(column, rows) for name, column in features.items()}


def shadow_rows(
    shape: Shape, events: Sequence[wire.Prediction], offsets: Integers, windows: Floats, valid: Mask
) -> Rows:
    """What shadows answered, a row for each answer."""
    rows = np.array([row for row, event in enumerate(events) for _ in event.shadows], dtype=np.int64)
    answers = [answer for event in events for answer in event.shadows]
    outputs = _outputs(answers, shape.spec.label)
    return Rows(shape, offsets[rows], windows[rows], valid[rows], _arms(answers), outputs, of_shadows=True)


def _arms(answers: Sequence[wire.Output | None]) -> WordColumn:
    """Who answered, as `champion/3`."""
    named = {each: arm_word(*each) for each in {(out.arm, out.version) for out in answers if out is not None}}
    if len(named) == 1 and all(answers):
        none = np.zeros(len(answers), np.bool_)
        return WordColumn(np.zeros(len(answers), np.int64), [*named.values()], 0, none, none)
    return coded([None if out is None else named[out.arm, out.version] for out in answers], ())


def _outputs(answers: Sequence[wire.Output | None], label: Label) -> dict[str, Column]:
    """Answers as columns: classes are words, a regression's predictions are numbers.

    Under `probability_if_positive` and `..._negative` stand the probabilities of those that said so.
    """
    predicted: list[Any] = [None if output is None else output.prediction for output in answers]
    probability = _numbers([None if output is None else output.probability for output in answers])
    if not isinstance(label, ClassLabel):
        return {"prediction": _numbers(predicted), "probability": probability}
    prediction = coded(predicted, label.classes)
    positive = prediction.codes == label.classes.index(label.positive)
    return {
        "prediction": prediction,
        "probability": probability,
        "probability_if_positive": _where(positive, probability),
        "probability_if_negative": _where(~positive, probability),
    }


def _where(mask: Mask, column: NumberColumn) -> NumberColumn:
    """The values of some rows; those of the others are not missing, they are none of its business."""
    nothing = np.zeros(len(mask), np.bool_)
    return NumberColumn(np.where(mask, column.values, np.nan), nothing, nothing)


def _numbers(cells: Sequence[float | None]) -> NumberColumn:
    values = np.array(cells, dtype=np.float64)
    return NumberColumn(values, np.isnan(values), np.zeros(len(values), dtype=np.bool_))
