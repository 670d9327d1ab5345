"""From topics to arms: the loader.

Three followers hand it every event of `model-specs`, `model-versions` and `deployments`; it remembers the newest of each
and marks the model. One task takes marked models in turn and brings their arms up to date, so whatever arrives while
an artefact is being loaded is served by one more turn with the newest, however many events it was: revisions are
skipped, never queued. An artefact that cannot be used leaves the old one serving; it is tried again with every event
that touches the model, and every `retry_seconds`. What is deployed already when the process starts may be loaded by
another rule than what is deployed later (`at_start`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from tailrace_contracts.events import Event
from tailrace_runtime import health
from tailrace_runtime.records import Record
from tailrace_serving.domain.arms import Table
from tailrace_serving.domain.deployment import Facts
from tailrace_serving.handlers import Refreshed, refresh
from tailrace_serving.ports import Artefacts, Meter

log = structlog.get_logger(__name__)

Learn = Callable[[Facts, Any], bool]
Routes = Mapping[str, Mapping[type[Event], Learn]]
"""For each topic, what to do with each kind of event on it; True says that the event's model is to be looked at."""


class Loader:
    """Keeps the table of arms true to the topics."""

    def __init__(
        self,
        routes: Routes,
        table: Table,
        artefacts: Artefacts,
        meter: Meter,
        *,
        retry_seconds: float,
        at_start: Artefacts | None = None,
    ) -> None:
        self.facts = Facts()
        self._routes = routes
        self._table = table
        self._artefacts = artefacts
        self._at_start = at_start or artefacts
        self._meter = meter
        self._retry_seconds = retry_seconds
        self._marked: dict[str, None] = {}
        self._troubled: set[str] = set()
        self._told: dict[str, Mapping[int, str]] = {}
        self._wake = asyncio.Event()
        self._health = health.Health()
        self._task: asyncio.Task[None] | None = None
        self._caught_up = False

    # ------------------------------------------------------------ what followers call

    def on_event(self, event: Event | None, record: Record) -> None:
        """A record of one of the three topics; None stands for a tombstone."""
        learn = self._routes[record.topic].get(type(event)) if event is not None else None
        if event is not None and learn is not None:
            if learn(self.facts, event):
                self._mark(event.model)  # type: ignore[attr-defined]  # every routed event names its model
        elif event is None and record.topic == "model-specs" and record.key is not None:
            self._forget(record.key.decode())

    def _mark(self, model: str) -> None:
        self._marked[model] = None
        self._wake.set()

    def _forget(self, model: str) -> None:
        self.facts.specs.pop(model, None)
        self._table.drop(model)

    # ------------------------------------------------------------ the task

    async def start(self) -> None:
        """Serve what the followers, started before, have read; then go on in the background."""
        self._health = health.here()
        self._caught_up = True
        await self._bring_up_to_date(self._at_start)
        self._task = asyncio.create_task(self._run(), name="serving-loader")

    async def wait(self) -> None:
        """Return when the loader has been stopped; raise what made it fail."""
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def stop(self) -> None:
        """Load nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._marked_or_due()
            await self._bring_up_to_date(self._artefacts)

    async def _marked_or_due(self) -> None:
        try:
            async with asyncio.timeout(self._retry_seconds if self._troubled else None):
                await self._wake.wait()
        except TimeoutError:
            self._marked.update(dict.fromkeys(self._troubled))

    async def _bring_up_to_date(self, artefacts: Artefacts) -> None:
        self._wake.clear()
        while self._marked:
            model = next(iter(self._marked))
            del self._marked[model]
            self._report(model, await refresh(model, self.facts, self._table, artefacts))
        reason = self._champions_waited_for()
        if reason:
            self._health.waiting("champions", reason)
        else:
            self._health.ready("champions")

    def _report(self, model: str, refreshed: Refreshed) -> None:
        self._troubled.discard(model)
        if refreshed.problems:
            self._troubled.add(model)
            self._meter.count("tailrace_artefact_failures_total", len(refreshed.problems), model=model)
        if self._told.get(model, {}) != refreshed.problems:
            self._told[model] = refreshed.problems
            for version, problem in refreshed.problems.items():
                log.error("a deployed version is not served", model=model, version=version, reason=problem)
        if refreshed.arms is not None:
            self._meter.count("tailrace_swaps_total", model=model)
        for loaded in refreshed.loaded:
            log.info("in its place", model=model, version=loaded.label, learner=loaded.learner)

    # ------------------------------------------------------------ readiness

    def waiting(self) -> str | None:
        """What readiness waits for, in a sentence; None when every deployed champion answers.

        The broker is not among it: without one, what is loaded goes on answering.
        """
        if not self._caught_up:
            return f"the topics {', '.join(self._routes)} have not been read to their ends yet"
        _, report = self._health.readiness()
        stopping: str | None = report["waiting"].get("service")
        return stopping or self._champions_waited_for()

    def _champions_waited_for(self) -> str | None:
        for model, deployment in self.facts.deployments.items():
            if model not in self.facts.specs or deployment.champion is None:
                continue
            arms = self._table.get(model)
            if arms is None or not arms.ready:
                problem = arms.problems.get(deployment.champion) if arms else None
                return f"champion {deployment.champion} of model {model!r} is not loaded: {problem or 'loading'}"
        return None
