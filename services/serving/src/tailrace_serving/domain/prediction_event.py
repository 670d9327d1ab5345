"""The prediction event, written fast.

The same fields as `tailrace_contracts.events.PredictionMade`, which stays the definition: a test holds the two equal.
Building and dumping the pydantic class takes several times as long as answering the question does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from tailrace_contracts.events import Arm, FeatureValue
from tailrace_serving.domain.explanation import Explanation


class Output(msgspec.Struct, frozen=True):
    """What one arm answered: `ArmOutput`."""

    arm: Arm
    prediction: int | float
    probability: float | None
    version: int | None
    revision: int | None


class Prediction(msgspec.Struct):
    """One inference and what each arm answered: `PredictionMade`."""

    prediction_id: str
    model: str
    time: datetime
    features: dict[str, FeatureValue]
    served: Output | None
    shadows: Sequence[Output] = ()
    entity: str | None = None
    latency_ms: float | None = None
    explanation: Explanation | None = None
    type: str = "prediction-made"


_ENCODER = msgspec.json.Encoder()


def encode(prediction: Prediction) -> bytes:
    """The JSON value that goes on the topic."""
    return _ENCODER.encode(prediction)


def in_utc(moment: datetime) -> datetime:
    """The same moment as events are written."""
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
