"""What the handlers need from outside, by role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from tailrace_contracts.events import ClaimCheck, Event
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.lessons import Lesson
from tailrace_monitoring.domain.state import Changes
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.yardsticks import Basis


class Gazette(Protocol):
    """What the other services have announced: specs, versions, deployments, training runs."""

    async def model(self, name: str) -> Knowledge | None:
        """The model as it stands; None where there is no spec of it."""
        ...

    def names(self) -> Iterable[str]:
        """The models of which there is a spec."""
        ...


class Sitting(Protocol):
    """One model's watch, ours alone until the sitting ends. What it changed is stored then, all of it or nothing."""

    @property
    def watch(self) -> ModelWatch:
        """The model under watch."""
        ...

    async def cohorts(self, keys: Iterable[CohortKey]) -> list[Cohort]:
        """Stored cohorts, those of the keys that there are."""
        ...

    async def lessons(self, version: int) -> list[Lesson]:
        """Labelled answers of a version (0: none) that its error is foretold from, newest first, a bounded number."""
        ...

    async def labelled(self, version: int, before: datetime) -> list[Cohort]:
        """Stored cohorts of a version (0: none) with labels that began before a moment, newest first, a bounded number."""
        ...


class WatchStore(Protocol):
    """Where the watches are kept."""

    def sitting(self, model: str, trail_length: int) -> AbstractAsyncContextManager[Sitting]:
        """The model's watch, locked.

        On leaving without an error the changes, the read model's rows and the events that announce them are stored
        in one transaction. Raises RetryLater when the database is not there.
        """
        ...


class ReferenceUnusable(Exception):  # noqa: N818  # named for what is true
    """A reference artefact is missing or damaged. The message is one sentence for a person."""


class References(Protocol):
    """What versions were trained on."""

    async def basis(self, claim: ClaimCheck, version: int) -> Basis:
        """The statistics of a version's columns, rows, labels and answers. Raises ReferenceUnusable, and RetryLater without the store."""
        ...


class Notebook(Protocol):
    """The read model's copy of what others announced."""

    async def note(self, log: Log, facts: Sequence[tuple[int, Event]]) -> None:
        """Keep these facts (offset and event), each the newest of its kind and key. Twice is like once."""
        ...


class Page(Protocol):
    """What the console shows."""

    async def models(self) -> list[dict[str, Any]]:
        """Every model, in short."""
        ...

    async def model(self, name: str) -> dict[str, Any] | None:
        """One model, whole; None where there is none of that name."""
        ...


class Meter(Protocol):
    """Prometheus."""

    def report(self, watch: ModelWatch, changes: Changes) -> None:
        """Where a model stands after a sitting, and what the sitting changed (it has been stored)."""
        ...
