"""Rows of features as a matrix: the one encoding that batch training and serving share.

Columns stand in the order of the spec's features. A numerical feature is one column, its value as it is, NaN where it
is missing. A categorical feature is one column for each of its categories, 1 where the value is that category; a
missing or unseen value is a row of zeros. Scaling and imputation are the model's own business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import ModelSpec, NumericalFeature

LARGEST = 1e30
"""Numbers are clipped to this size, so that scaling a 32-bit float cannot overflow."""

Row = Mapping[str, FeatureValue]
Matrix = npt.NDArray[np.float32]


def column_names(spec: ModelSpec) -> tuple[str, ...]:
    """The matrix's columns: `name` of a numerical feature, `name=category` of a categorical one."""
    return tuple(
        column
        for feature in spec.features
        for column in (
            [feature.name]
            if isinstance(feature, NumericalFeature)
            else [f"{feature.name}={category}" for category in feature.categories]
        )
    )


def number(value: FeatureValue) -> float:
    """A numerical value as a finite float of at most `LARGEST`, or NaN where it is missing, NaN or infinite."""
    if value is None:
        return math.nan
    found = float(value)
    if math.isfinite(found):
        return min(max(found, -LARGEST), LARGEST)
    return math.nan


class Encoder:
    """`encode_rows` with the spec looked at once; for callers that encode one row after another."""

    def __init__(self, spec: ModelSpec) -> None:
        self.columns = column_names(spec)
        self._numerical: list[tuple[str, int]] = []
        self._categorical: list[tuple[str, dict[FeatureValue, int]]] = []
        index = 0
        for feature in spec.features:
            if isinstance(feature, NumericalFeature):
                self._numerical.append((feature.name, index))
                index += 1
            else:
                self._categorical.append((feature.name, {each: index + n for n, each in enumerate(feature.categories)}))
                index += len(feature.categories)

    def encode(self, rows: Sequence[Row]) -> Matrix:
        """A float32 matrix of shape [rows, columns]."""
        width = len(self.columns)
        blank = [0.0] * width
        table = []
        for row in rows:
            line = blank.copy()
            for name, index in self._numerical:
                value = row.get(name)
                line[index] = value if type(value) is float and -LARGEST <= value <= LARGEST else number(value)
            for name, places in self._categorical:
                index_or_none = places.get(row.get(name))
                if index_or_none is not None:
                    line[index_or_none] = 1.0
            table.append(line)
        return np.array(table, dtype=np.float32).reshape(len(rows), width)


def encode_rows(spec: ModelSpec, rows: Sequence[Row]) -> Matrix:
    """Rows of features as a float32 matrix of shape [rows, columns]; see the module for the columns.

    >>> from tailrace_contracts import parse_spec
    >>> spec = parse_spec({"model": "m", "owner": "o", "label": {"name": "y"}, "features": [
    ...     {"name": "age", "type": "numerical"}, {"name": "sex", "type": "categorical", "categories": ["f", "m"]}]})
    >>> encode_rows(spec, [{"age": 3, "sex": "m"}, {"age": None, "sex": "?"}]).tolist()
    [[3.0, 0.0, 1.0], [nan, 0.0, 0.0]]
    """
    return Encoder(spec).encode(rows)
