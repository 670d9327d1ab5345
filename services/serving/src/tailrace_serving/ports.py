"""What serving needs from outside, by role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from tailrace_contracts.events import ClaimCheck
from tailrace_contracts.spec import ModelSpec
from tailrace_models import Reference
from tailrace_serving.domain.arms import Predictor
from tailrace_serving.domain.buffer import Captured


class ArtefactUnusable(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """An artefact is missing, damaged, not ours, or not for this spec: one sentence."""


class Artefacts(Protocol):
    """Turns the claim check of a version into something that answers."""

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Predictor:
        """Fetch, verify and load, without holding up the event loop. Raises ArtefactUnusable."""
        ...

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The row sample of a version's reference. Raises ArtefactUnusable."""
        ...


class NotPublished(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """The broker did not acknowledge; the events may or may not be on the topic. Trying again may help."""


class NeverPublished(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """The broker will never take one of these events."""


class EventLog(Protocol):
    """Where prediction events go."""

    async def publish(self, events: Sequence[Captured]) -> None:
        """Return once all are acknowledged. Raises NotPublished or NeverPublished."""
        ...


class Ledger(Protocol):
    """Counts what is on its way to the broker, for the time after this process."""

    @property
    def left(self) -> Mapping[str, int]:
        """By model: what an earlier process of this name had taken and not settled when it ended."""
        ...

    def take(self, model: str, count: int) -> None:
        """So many answers are to be captured."""
        ...

    def settle(self, model: str, count: int) -> None:
        """So many of them are acknowledged, or counted as lost."""
        ...


RepliesRead = Callable[[str, set[int]], Awaitable[list[bytes]]]
"""The newest replies on a topic that answer requests of these partitions. Raises RetryLater."""


class Meter(Protocol):
    """Counts and measures, under the names of `metrics.py`."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record one measurement."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present moment, in UTC."""
        ...
