"""What every event has: it is frozen, carries its own type, and is read by older and newer code."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A part of an event: frozen, readable by older and newer code."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Value):
    """A fact on a topic. `type` tells which one; `ce_type` is the same with the project's prefix."""

    type: str
    content_type: ClassVar[str] = "application/json"

    @classmethod
    def type_name(cls) -> str:
        """The value of `type`, such as `prediction-made`."""
        return str(cls.model_fields["type"].default)

    def encode(self) -> bytes:
        """The JSON value that goes on the topic."""
        return self.model_dump_json().encode()


def utc(moment: datetime) -> str:
    """RFC 3339 in UTC with a `Z`, as the events are written."""
    return moment.isoformat().replace("+00:00", "Z")
