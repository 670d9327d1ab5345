"""What serving can be told from outside: `TAILRACE_` and the name in capitals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from tailrace_runtime.settings import ServiceSettings


class ServingSettings(ServiceSettings):
    """The settings of the serving service."""

    port: int = Field(default=8104, ge=0, le=65535, description="0: any free port")
    max_body_bytes: int = Field(default=1_048_576, gt=0, description="a larger request is refused with 413")
    max_rows: int = Field(default=1_000, gt=0, description="rows of one request")
    max_explained_rows: int = Field(default=16, gt=0, description="rows of one request for explanations")
    max_mixed_rows: int = Field(
        default=200_000, gt=0, description="that a model is asked to explain the rows of one request"
    )
    max_waiting_explanations: int = Field(
        default=200, ge=0, description="live predictions waiting to be explained before others go without"
    )
    explanation_seconds: float = Field(
        default=5, gt=0, description="for a live prediction to be explained, before its event goes without"
    )
    max_requests: int = Field(default=256, gt=0, description="answered at once; one more is refused with 429")
    max_explaining: int = Field(
        default=32, gt=0, description="requests for explanations at once, beside those; one more is refused with 429"
    )
    request_seconds: float = Field(default=30, gt=0, description="for a request to arrive and be answered")
    max_pending_rows: int = Field(
        default=2_000, gt=0, description="rows waiting for the other arms before those are shed"
    )
    capture_max_events: int = Field(
        default=100_000, gt=0, description="prediction events held while the broker is away"
    )
    capture_max_bytes: int = Field(default=134_217_728, gt=0, description="the same bound, in bytes")
    capture_linger_seconds: float = Field(default=0.05, ge=0, description="to gather a batch of events")
    capture_retry_seconds: float = Field(default=0.5, gt=0, description="between two attempts to publish")
    capture_flush_seconds: float = Field(default=10, gt=0, description="for what is held, when the service stops")
    acknowledge_seconds: float = Field(default=5, gt=0, description="to wait for the broker where a spec asks for it")
    reply_topics: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("inference-replies",),
        min_length=1,
        description="that requests may name, comma separated; the first is the default",
    )
    in_line_seconds: float = Field(
        default=0.001, ge=0, description="a model that takes longer for one row answers beside the event loop"
    )
    max_loaded_bytes: int = Field(
        default=2_147_483_648, gt=0, description="of models loaded at once; the least recently asked are put away"
    )
    remembered_reply_bytes: int = Field(default=33_554_432, gt=0, description="of replies, to answer repetitions alike")
    measure_seconds: float = Field(default=1, gt=0, description="between two measurements of how versions answer")
    artefact_retry_seconds: float = Field(default=10, gt=0, description="between attempts to load a bad artefact")

    @field_validator("reply_topics", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """`inference-replies,my-replies` as two names."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value
