"""Stand-ins for monitoring's ports. `MemoryWatches` passes the suite that `PostgresWatches` passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from tailrace_contracts.events import ClaimCheck, ColumnSummary, Event
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Changes, ModelState, Tools
from tailrace_monitoring.domain.trail import Step, Trail
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.ports import ReferenceUnusable


class FixedGazette:
    """Knows what it was told."""

    def __init__(self, known: Mapping[str, Knowledge]) -> None:
        self.known = dict(known)

    async def model(self, name: str) -> Knowledge | None:
        """The model as it was told."""
        return self.known.get(name)


class FixedReferences:
    """References by digest; others are unusable."""

    def __init__(self, known: Mapping[str, Mapping[str, ColumnSummary]] | None = None) -> None:
        self.known = dict(known or {})

    async def columns(self, claim: ClaimCheck) -> Mapping[str, ColumnSummary]:
        """The columns under this digest."""
        if claim.sha256 not in self.known:
            raise ReferenceUnusable(f"nothing under {claim.key}")
        return self.known[claim.sha256]


class SilentMeter:
    """Reports to nobody."""

    def report(self, watch: ModelWatch, changes: Changes) -> None:
        """Nothing."""


class MemorySitting:
    """One model's watch for a while."""

    def __init__(self, watch: ModelWatch, stored: dict[CohortKey, str]) -> None:
        self.watch = watch
        self._stored = stored

    async def cohorts(self, keys: Iterable[CohortKey]) -> list[Cohort]:
        """Stored cohorts, those of the keys that there are."""
        return [Cohort.model_validate_json(self._stored[key]) for key in keys if key in self._stored]


class MemoryWatches:
    """Keeps every watch as the text that a database would hold, and reads it anew for each sitting.

    `published` is what the outbox would hold, in order.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._states: dict[str, str] = {}
        self._steps: dict[str, list[Step]] = {}
        self._cohorts: dict[str, dict[CohortKey, str]] = {}
        self.published: list[Event] = []

    @asynccontextmanager
    async def sitting(self, model: str, trail_length: int) -> AsyncIterator[MemorySitting]:
        """The model's watch; kept when the block ends well."""
        stored = self._cohorts.setdefault(model, {})
        loaded = [Cohort.model_validate_json(text) for text in stored.values()]
        watch = ModelWatch(
            model,
            ModelState.model_validate_json(self._states.get(model, "{}")),
            Trail(trail_length, self._steps.get(model, [])[-trail_length:]),
            [cohort for cohort in loaded if not cohort.closed],
            self._tools,
        )
        yield MemorySitting(watch, stored)
        self._states[model] = watch.state.model_dump_json()
        self._steps.setdefault(model, []).extend(watch.changes.steps)
        stored.update((key, watch.cohorts[key].model_dump_json()) for key in watch.changes.cohorts)
        self.published.extend(watch.changes.events)

    def state(self, model: str) -> ModelState:
        """The state as it is stored."""
        return ModelState.model_validate_json(self._states.get(model, "{}"))
