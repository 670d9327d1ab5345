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


class Explanation(Value):
    """Why an answer is what it is, feature by feature: `base_value` and all contributions add up to `output`.

    `output` is the served probability or number, or what the model adds up before it becomes that: `log-odds`, or a
    number that is not yet moved to the label's limits. `base_value` is the mean of the same over the reference rows.
    """

    method: Literal["linear-exact", "sampling-shapley"]
    scale: Literal["log-odds", "probability", "value"]
    base_value: float
    output: float
    contributions: dict[str, float] = Field(description="by feature; Shapley values against the reference rows")
    standard_errors: dict[str, float] = Field(default={}, description="of the contributions, where they are sampled")
    permutations: int = Field(default=0, ge=0, description="orders that were walked; 0 where the method is exact")
    seed: int = Field(default=0, ge=0, description="of the orders: it follows from model, version and prediction id")
    reference_rows: int = Field(ge=1)
    reference_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="of the version's reference artefact, or of the rows in the model itself"
    )


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
    explanation: Explanation | None = Field(
        default=None, description="of the served answer, where it was asked for or drawn for the spec's sample"
    )
