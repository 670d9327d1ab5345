"""Predictions: what was asked, and what each arm answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import Arm, FeatureValue, Identifier, Outcome
from tailrace_contracts.spec import Name


class ArmOutput(Value):
    """What one arm answered. `probability` is that of the positive class; a regression has none."""

    arm: Arm
    prediction: Outcome
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    version: int | None = Field(default=None, ge=1)
    revision: int | None = Field(default=None, ge=0)


class PredictionMade(Event):
    """One inference: the question, and what each arm answered. On `prediction-events` and, valid, on `predictions`.

    `served` is None for an observation without a prediction: history that is only to be learned from.
    """

    type: Literal["prediction-made"] = "prediction-made"
    prediction_id: Identifier
    model: Name
    time: AwareDatetime
    features: dict[str, FeatureValue]
    served: ArmOutput | None = None
    shadows: tuple[ArmOutput, ...] = ()
    entity: str | None = Field(default=None, max_length=128)
    latency_ms: float | None = Field(default=None, ge=0)
