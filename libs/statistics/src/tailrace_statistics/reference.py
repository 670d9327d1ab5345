"""What a version was trained on: statistics of every column, and a sample of rows. Drift is measured against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tailrace_contracts.events import ColumnSummary, FeatureValue, NumericalSummary
from tailrace_contracts.spec import ClassLabel, Label, Limits, ModelSpec
from tailrace_statistics.columns import NumericalFold, fold_for

MEDIA_TYPE = "application/vnd.tailrace.reference+json"
SAMPLE_ROWS = 500

Row = Mapping[str, FeatureValue]


class ReferenceInvalid(ValueError):  # noqa: N818  # named for what is true
    """Bytes that are no reference; its text is one sentence for a person."""


class Reference(BaseModel):
    """Columns by name, a row sample evenly spread over the rows in their order, and what the labels were."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    model: str
    examples: int = Field(ge=0)
    columns: dict[str, ColumnSummary]
    sample: tuple[dict[str, FeatureValue], ...] = ()
    label_rate: float | None = Field(default=None, description="share of the positive class; none without labels")
    labels: NumericalSummary | None = Field(default=None, description="the labels of a regression; none without labels")

    @classmethod
    def build(
        cls, spec: ModelSpec, rows: Sequence[Row], labels: Sequence[float] = (), sample_rows: int = SAMPLE_ROWS
    ) -> Reference:
        """The reference of training rows, and of their labels where there are any. The same rows give the same sample."""
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
            label_rate=_rate(spec.label, labels),
            labels=_distribution(spec.label, labels),
        )

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


def _spread(rows: Sequence[Row], wanted: int) -> list[Row]:
    if len(rows) <= wanted:
        return list(rows)
    return [rows[index * len(rows) // wanted] for index in range(wanted)]
