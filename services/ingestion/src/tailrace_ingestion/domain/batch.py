"""One batch of one log on its way through all checks: parse, spec, classes, event time.

Each event meets one fate: forwarded (as it came, or rewritten) or refused with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tailrace_ingestion.domain import wire
from tailrace_ingestion.domain.checks import Change, rewritten
from tailrace_ingestion.domain.reasons import Rejection

E = TypeVar("E", wire.Prediction, wire.Label)


class Arrivals(Protocol):
    """Records of one log as the checks see them, column by column."""

    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


@dataclass(slots=True)
class Batch(Generic[E]):
    """Records of one log on their way through the checks. Positions are those of `arrivals`."""

    arrivals: Arrivals
    events: list[E | None] = field(default_factory=list)
    unknown: dict[int, str] = field(default_factory=dict)
    refused: dict[int, Rejection] = field(default_factory=dict)
    replaced: dict[int, bytes] = field(default_factory=dict)
    changed: dict[int, Change] = field(default_factory=dict)

    def by_model(self) -> dict[str, list[int]]:
        """The positions of each model's events."""
        models: dict[str, list[int]] = {}
        for position, event in enumerate(self.events):
            if event is not None and position not in self.refused:
                models.setdefault(event.model, []).append(position)
        return models

    def original(self, position: int) -> bytes:
        """The event as it came, unwrapped."""
        return self.replaced.get(position, self.arrivals.values[position] or b"")

    def value(self, position: int) -> bytes:
        """What is forwarded: the original bytes, unless something had to change."""
        change = self.changed.get(position)
        original = self.original(position)
        return original if change is None else rewritten(original, change)
