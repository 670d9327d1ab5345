"""The events of the hot path as msgspec structs: the contracts' shape, decoded forty times as fast.

A value that these decoders take is a valid event of `tailrace_contracts` (a test holds the two together). `features`
stays raw here; the model's own decoder reads it (checks.py). What the decoders refuse, diagnosis.py explains.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, json
from pydantic import BaseModel, RootModel

Identifier = Annotated[str, Meta(min_length=1, max_length=128)]
ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Moment = Annotated[datetime, Meta(tz=True)]
Arm = Literal["champion", "canary", "shadow", "external"]


class Output(Struct, frozen=True, gc=False):
    """What one arm answered: `ArmOutput` of the contracts."""

    arm: Arm
    prediction: int | float
    probability: Annotated[float, Meta(ge=0, le=1)] | None = None
    version: Annotated[int, Meta(ge=1)] | None = None
    revision: Annotated[int, Meta(ge=0)] | None = None


class Explanation(Struct, frozen=True, gc=False):
    """Why it answered that: `Explanation` of the contracts. It is checked and goes on as it came."""

    method: Literal["linear-exact", "sampling-shapley"]
    scale: Literal["log-odds", "probability", "value"]
    base_value: float
    output: float
    contributions: dict[str, float]
    reference_rows: Annotated[int, Meta(ge=1)]
    reference_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    standard_errors: dict[str, float] = {}
    permutations: Annotated[int, Meta(ge=0)] = 0
    seed: Annotated[int, Meta(ge=0)] = 0


class Prediction(Struct, frozen=True):
    """`PredictionMade` of the contracts. A producer may leave `type` out; what is forwarded has it."""

    prediction_id: Identifier
    model: ModelName
    time: Moment
    features: Raw
    type: Literal["prediction-made"] | UnsetType = UNSET
    served: Output | None = None
    shadows: tuple[Output, ...] = ()
    entity: Annotated[str, Meta(max_length=128)] | None = None
    latency_ms: Annotated[float, Meta(ge=0)] | None = None
    explanation: Explanation | None = None


class Label(Struct, frozen=True, gc=False):
    """`LabelGiven` of the contracts."""

    prediction_id: Identifier
    model: ModelName
    time: Moment
    label: int | float
    type: Literal["label-given"] | UnsetType = UNSET


class JoinablePrediction(Struct, frozen=True):
    """A valid prediction as the join needs it: what it hands on stays raw."""

    prediction_id: str
    model: str
    time: Moment
    features: Raw
    served: Raw = Raw(b"null")
    shadows: Raw = Raw(b"[]")
    entity: str | None = None


class SourceRange(Struct, frozen=True, gc=False):
    """`LogRange` of the contracts."""

    topic: str
    partition: int
    from_offset: int
    through_offset: int


class TriggerOffset(Struct, frozen=True, gc=False):
    """`Trigger` of the contracts."""

    topic: str
    partition: int
    offset: int


class Example(Struct, frozen=True):
    """`ExampleLabelled` of the contracts, with the prediction's parts as they came."""

    prediction_id: str
    model: str
    time: datetime
    label_time: datetime
    features: Raw
    label: int | float
    label_revision: int
    replaces: int | float | None
    served: Raw
    shadows: Raw
    entity: str | None
    trigger: TriggerOffset
    derived_from: tuple[SourceRange, ...]
    type: str = "example-labelled"


decode_prediction = json.Decoder(Prediction).decode
decode_joinable = json.Decoder(JoinablePrediction).decode
decode_label = json.Decoder(Label).decode
encode = json.Encoder().encode


def encode_summary(event: BaseModel) -> bytes:
    """A partial or a window as JSON, as pydantic writes it, ten times as fast: they have thousands of small parts."""
    return _encode_models(event)


def _plain(model: BaseModel) -> object:
    return model.root if isinstance(model, RootModel) else vars(model)


_encode_models = json.Encoder(enc_hook=_plain).encode
