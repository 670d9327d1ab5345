"""The topic catalogue: what each topic is for, as written by hand in `schemas/topics/*.yaml`.

Topic creation, JSON Schemas, AsyncAPI, Kubernetes resources and the documentation's table are all made from it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tailrace_contracts.events import EVENTS, Event

COMPACTED_SEGMENT_BYTES = 16 * 1024 * 1024


class Topic(BaseModel):
    """One topic's card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z-]*$")
    purpose: str
    key: str
    partitions: int = Field(gt=0)
    cleanup: Literal["delete", "compact", "compact,delete"]
    retention_days: float | None = Field(default=None, description="none: for ever")
    max_message_bytes: int = 1_048_576
    public: bool = Field(default=False, description="written by producers who are not Tailrace")
    events: tuple[str, ...]
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]

    @property
    def event_types(self) -> tuple[type[Event], ...]:
        """The classes of the events on this topic."""
        by_name = {each.type_name(): each for each in EVENTS}
        return tuple(by_name[name] for name in self.events)

    def config(self) -> dict[str, str]:
        """Kafka's settings for this topic."""
        retention_ms = -1 if self.retention_days is None else int(self.retention_days * 86_400_000)
        settings = {"cleanup.policy": self.cleanup, "max.message.bytes": str(self.max_message_bytes)}
        if "delete" in self.cleanup:
            settings["retention.ms"] = str(retention_ms)
        if "compact" in self.cleanup:
            settings["segment.bytes"] = str(COMPACTED_SEGMENT_BYTES)  # Kafka never compacts the segment being written
        return settings


@cache
def topics() -> dict[str, Topic]:
    """Every topic of the catalogue, by name, in the catalogue's order."""
    folder = files("tailrace_contracts") / "topics"
    cards = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    loaded = [Topic.model_validate(yaml.safe_load(card.read_text(encoding="utf-8"))) for card in cards]
    return {topic.name: topic for topic in loaded}
