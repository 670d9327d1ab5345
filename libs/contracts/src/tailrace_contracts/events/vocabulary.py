"""The words that several events share: ids, values of features and outcomes, arms, stages, windows."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from tailrace_contracts.events.event import Value

Identifier = Annotated[str, Field(min_length=1, max_length=128)]

FeatureValue = float | str | bool | None

_EXACT = 2**53


def _number(value: Any) -> int | float:
    """A finite number, and a whole one as an integer: a class out of a column of floats is a class."""
    value = value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value  # numpy's scalars
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise PydanticCustomError("number", "Input should be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "Input should be a number")
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        raise PydanticCustomError("number", "Input should be a finite number")
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


Outcome = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A prediction or a label: one of the two integers of a binary model's classes, or the finite number of a regression."""

Arm = Literal["champion", "canary", "shadow", "external"]

Line = Literal["batch", "continual"]
"""Where a version comes from: trainings in batch, or a learner that goes on."""

AlertKind = Literal["feature-drift", "concept-drift", "performance", "fairness", "data-quality", "errors", "latency"]

Stage = Literal["registered", "shadow", "canary", "champion", "rejected", "rolled-back", "retired"]


class WindowSpan(Value):
    """A tumbling window of event time: [start, end)."""

    start: AwareDatetime
    end: AwareDatetime
