"""Inference over Kafka: the question on one topic, the answer on another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.predictions import Explanation
from tailrace_contracts.events.vocabulary import Arm, FeatureValue, Identifier, Outcome
from tailrace_contracts.ranges import Trigger
from tailrace_contracts.spec import Name


class InferenceRequested(Event):
    """Please answer these rows: what a caller puts on `inference-requests`.

    `request_id` names the question: asked again under the same id, it has the same prediction ids and counts once.
    The record's headers may carry `reply-topic` and `correlation-id`.
    """

    type: Literal["inference-requested"] = "inference-requested"
    request_id: str = Field(min_length=1, max_length=120)
    model: Name
    version: str | None = Field(default=None, description="such as `7` or `7.12`; none: the arm that it falls to")
    rows: tuple[dict[str, FeatureValue], ...] = Field(min_length=1, description="features by name, one for each row")
    prediction_ids: tuple[Identifier, ...] | None = Field(
        default=None, description="one for each row; none: the request id, with `/0`, `/1` and so on for several rows"
    )
    entity: Identifier | None = None
    time: AwareDatetime | None = Field(default=None, description="none: the record's time")
    explain: bool = Field(default=False, description="answer each row with what its features contributed")


class AnsweredRow(Value):
    """The answer to one row, and the prediction id that its label will come under."""

    prediction_id: Identifier
    prediction: Outcome
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    explanation: Explanation | None = None


class InferenceAnswered(Event):
    """What became of an inference request: answers for all rows, or an error in one sentence with its kind in `code`."""

    type: Literal["inference-answered"] = "inference-answered"
    request_id: str = Field(default="", description="empty where the request could not be read so far")
    model: str = ""
    arm: Arm | None = None
    version: int | None = Field(default=None, ge=1)
    revision: int | None = Field(default=None, ge=0)
    answers: tuple[AnsweredRow, ...] = ()
    code: str | None = None
    error: str | None = None
    trigger: Trigger
    request_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the request's value")
    time: AwareDatetime
