"""Model specs: which one is valid, and from which place in a log on."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event
from tailrace_contracts.ranges import Offset
from tailrace_contracts.spec import ModelSpec, Name


class SpecApplied(Event):
    """A model spec took effect; `spec_revision` counts the model's specs from 1."""

    type: Literal["spec-applied"] = "spec-applied"
    model: Name
    spec_revision: int = Field(ge=1)
    spec: ModelSpec
    applied_by: str
    time: AwareDatetime


class SpecTookEffect(Event):
    """From `from_offset` of this log on, a model's events are checked by this revision of its spec.

    It carries the spec, so that the log can be read again as it was read then: `model-specs` keeps the newest only.
    """

    type: Literal["spec-took-effect"] = "spec-took-effect"
    model: Name
    spec_revision: int = Field(ge=1)
    topic: str
    partition: Offset
    from_offset: Offset
    spec: ModelSpec
    time: AwareDatetime
