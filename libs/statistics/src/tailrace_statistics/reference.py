"""What a version was trained on: statistics of every column, and a sample of rows. Drift is measured against it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tailrace_contracts.events import ColumnSummary, FeatureValue, NumericalSummary
from tailrace_contracts.spec import ClassLabel, Feature, Label, Limits, ModelSpec, NumericalFeature
from tailrace_statistics.columns import CategoricalFold, NumericalFold, fold_for
from tailrace_statistics.labels import column_of_classes, rows_of_classes

MEDIA_TYPE = "application/vnd.tailrace.reference+json"
SAMPLE_ROWS = 500

KEPT_ROWS = 20_000
"""Rows that are kept in columns, for calibration; fewer where they would be more than `KEPT_VALUES` values."""

KEPT_VALUES = 2_000_000

MOST_WORDS = 30_000
"""Different words of a column that are kept apart."""

Row = Mapping[str, FeatureValue]
Values = npt.NDArray[np.float64] | list[FeatureValue]


class ReferenceInvalid(ValueError):  # noqa: N818  # named for what is true
    """Bytes that are no reference; its text is one sentence for a person."""


class PackedColumn(BaseModel):
    """A column of rows in base64: 32-bit floats, NaN where missing; or 16-bit places in `words`, -1 where missing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    words: tuple[str, ...] | None = None
    data: str

    @classmethod
    def of(cls, feature: Feature, values: Sequence[FeatureValue]) -> PackedColumn:
        """Pack a feature's values."""
        numerical = isinstance(feature, NumericalFeature)
        return cls.pack(np.array(values, dtype=np.float64) if numerical else list(values))

    @classmethod
    def pack(cls, values: Values) -> PackedColumn:
        """Pack numbers, or words."""
        if isinstance(values, np.ndarray):
            with np.errstate(over="ignore"):
                return cls(data=_packed(values.astype("<f4")))
        words = tuple(sorted({str(value) for value in values if value is not None}))[:MOST_WORDS]
        places = {word: place for place, word in enumerate(words)}
        codes = [-1 if value is None else places.get(str(value), len(words) - 1) for value in values]
        return cls(words=words, data=_packed(np.array(codes, dtype="<i2")))

    def values(self) -> Values:
        """The values again. Raises ValueError for damaged data."""
        data = base64.b64decode(self.data, validate=True)
        if self.words is None:
            return np.frombuffer(data, dtype="<f4").astype(np.float64)
        words: list[FeatureValue] = [*self.words, None]
        return [words[code] for code in np.frombuffer(data, dtype="<i2")]


class Reference(BaseModel):
    """Columns by name, row samples evenly spread over the rows in their order, and what the labels were.

    `sample` is for reading; `rows` are more of them, in columns, from which thresholds are calibrated. References that
    were made before there were `rows` have the sample for both.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    model: str
    examples: int = Field(ge=0)
    columns: dict[str, ColumnSummary]
    sample: tuple[dict[str, FeatureValue], ...] = ()
    rows: dict[str, PackedColumn] = {}
    label_rate: float | None = Field(default=None, description="share of the positive class; none without labels")
    labels: NumericalSummary | None = Field(default=None, description="the labels of a regression; none without labels")
    label_rows: PackedColumn | None = Field(default=None, description="a regression's labels, of rows evenly spread")
    answers: dict[str, ColumnSummary] = Field(default={}, description="prediction and probability on held-out rows")
    answer_rows: dict[str, PackedColumn] = {}

    @classmethod
    def build(
        cls,
        spec: ModelSpec,
        rows: Sequence[Row],
        labels: Sequence[float] = (),
        sample_rows: int = SAMPLE_ROWS,
        evaluated: Sequence[float] = (),
    ) -> Reference:
        """The reference of training rows, and of their labels where there are any. The same rows give the same sample.

        `evaluated` is what was answered where the answers were measured: probabilities of the positive class, or numbers.
        """
        answers = _answers(spec.label, evaluated)
        columns: dict[str, ColumnSummary] = {}
        for feature in spec.features:
            column: Any = [row.get(feature.name) for row in rows]  # numbers or words, as the feature is
            fold = fold_for(feature)
            fold.fold(column)
            columns[feature.name] = fold.summary()
        return cls(
            model=spec.model,
            examples=len(rows),
            columns=columns,
            sample=tuple({name: row.get(name) for name in spec.feature_names} for row in _spread(rows, sample_rows)),
            rows=_columns(spec, rows),
            label_rate=_rate(spec.label, labels),
            labels=_distribution(spec.label, labels),
            label_rows=_label_rows(spec.label, labels),
            answers={name: _summarised(values) for name, values in answers.items()},
            answer_rows={name: PackedColumn.pack(values) for name, values in answers.items()},
        )

    @property
    def label_column(self) -> ColumnSummary | None:
        """The labels; of classes 1 is the positive one. None without labels."""
        if self.labels is not None:
            return self.labels
        return None if self.label_rate is None else column_of_classes(self._positives, self.examples)

    @property
    def _positives(self) -> int:
        return round((self.label_rate or 0.0) * self.examples)

    def label_values(self) -> Values:
        """Labels of single rows; of classes made from their counts, of a regression none before there were `label_rows`.

        Raises ReferenceInvalid.
        """
        try:
            if self.label_rows is not None:
                return self.label_rows.values()
        except ValueError as error:
            raise ReferenceInvalid(f"labels of the reference: {error}; train the version again") from None
        return [] if self.label_rate is None else rows_of_classes(self._positives, self.examples, KEPT_ROWS)

    def answer_columns(self) -> dict[str, Values]:
        """The answers on held-out rows, by column. Raises ReferenceInvalid."""
        try:
            return {name: column.values() for name, column in self.answer_rows.items()}
        except ValueError as error:
            raise ReferenceInvalid(f"answers of the reference: {error}; train the version again") from None

    def row_columns(self) -> dict[str, Values]:
        """The row sample, by column. Raises ReferenceInvalid."""
        try:
            if self.rows:
                return {name: column.values() for name, column in self.rows.items()}
            return {name: _plain(summary, [row.get(name) for row in self.sample]) for name, summary in self._sampled()}
        except ValueError as error:
            raise ReferenceInvalid(f"rows of the reference: {error}; train the version again") from None

    def _sampled(self) -> Iterable[tuple[str, ColumnSummary]]:
        return self.columns.items() if self.sample else ()

    def to_bytes(self) -> bytes:
        """The reference as JSON of media type `MEDIA_TYPE`."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """The reference in JSON. Raises ReferenceInvalid."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise ReferenceInvalid(
                f"reference of {len(data)} bytes: {where}: {first['msg']}; train the version again"
            ) from None


def _columns(spec: ModelSpec, rows: Sequence[Row]) -> dict[str, PackedColumn]:
    kept = _spread(rows, min(KEPT_ROWS, KEPT_VALUES // len(spec.features)))
    return {each.name: PackedColumn.of(each, [row.get(each.name) for row in kept]) for each in spec.features}


def _plain(summary: ColumnSummary, values: list[FeatureValue]) -> Values:
    return np.array(values, dtype=np.float64) if isinstance(summary, NumericalSummary) else values


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _rate(label: Label, labels: Sequence[float]) -> float | None:
    if not isinstance(label, ClassLabel) or not len(labels):
        return None
    return sum(each == label.positive for each in labels) / len(labels)


def _distribution(label: Label, labels: Sequence[float]) -> NumericalSummary | None:
    if isinstance(label, ClassLabel) or not len(labels):
        return None
    fold = NumericalFold(Limits())
    fold.fold(labels)
    return fold.summary()


def _label_rows(label: Label, labels: Sequence[float]) -> PackedColumn | None:
    if isinstance(label, ClassLabel) or not len(labels):
        return None
    numbers = np.asarray(labels, dtype=np.float64)
    return PackedColumn.pack(numbers[_places(len(numbers), KEPT_ROWS)])


def _answers(label: Label, evaluated: Sequence[float]) -> dict[str, Values]:
    """Answers as windows have them: a regression's numbers, or classes and their probabilities."""
    if not len(evaluated):
        return {}
    numbers = np.asarray(evaluated, dtype=np.float64)
    numbers = numbers[_places(len(numbers), KEPT_ROWS)]
    if not isinstance(label, ClassLabel):
        return {"prediction": numbers.clip(label.limits.min, label.limits.max)}
    other = next(each for each in label.classes if each != label.positive)
    return {
        "prediction": [str(label.positive if each > 0.5 else other) for each in numbers.tolist()],
        "probability": numbers,
    }


def _summarised(values: Values) -> ColumnSummary:
    if isinstance(values, np.ndarray):
        numbers = NumericalFold()
        numbers.fold(values)
        return numbers.summary()
    words = [str(value) for value in values]
    fold = CategoricalFold(set(words))
    fold.fold(words)
    return fold.summary()


def _spread(rows: Sequence[Row], wanted: int) -> list[Row]:
    return [rows[place] for place in _places(len(rows), wanted)]


def _places(count: int, wanted: int) -> list[int]:
    return list(range(count)) if count <= wanted else [index * count // wanted for index in range(wanted)]
