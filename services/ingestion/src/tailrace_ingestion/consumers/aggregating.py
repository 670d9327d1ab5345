"""The role `aggregate`: partials in, windows out. What the stream framework calls, without the framework.

Every partial goes to its model's windows and, if it says something new, into the table that survives a crash. About
once a second the windows that are due are published; after the acknowledgement the partials that led to them count as
handled. A process that dies in between finds the partials again, in the table or on the topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from pydantic import ValidationError

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import PartialSummarised
from tailrace_contracts.spec import Monitors
from tailrace_ingestion.consumers.validating import PREDICTION_EVENTS, partition_of_model
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.merging import ModelWindows, Timing
from tailrace_ingestion.domain.partials import record_key
from tailrace_ingestion.domain.wire import encode_summary
from tailrace_ingestion.ports import Specs
from tailrace_runtime.errors import PoisonEvent
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Outgoing, Record, event_headers

STATISTICS = "feature-statistics"
log = structlog.get_logger(__name__)


class Tables(Protocol):
    """Two tables with a changelog, written for the partition of the record in hand."""

    def keep_partial(self, key: str, value: bytes | None) -> None:
        """Store a partial under its record key; None forgets it."""
        ...

    def keep_model(self, model: str, value: bytes) -> None:
        """Store a model's state."""
        ...


class Aggregating:
    """State: the windows of the models whose partials are read here."""

    def __init__(
        self,
        specs: Specs,
        *,
        metrics: Metrics,
        window_seconds: float,
        idle_source_seconds: float,
        gone_source_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._specs = specs
        self._metrics = metrics
        self._window_seconds = window_seconds
        self._idle_source_seconds = idle_source_seconds
        self._gone_source_seconds = gone_source_seconds
        self._monotonic = monotonic
        self._models: dict[str, ModelWindows] = {}
        self._kept_at: dict[str, float] = {}

    def rebuild(self, partials: Iterable[bytes], states: Iterable[tuple[str, bytes]], partitions: set[int]) -> None:
        """Begin anew from the tables, with the models of these partitions."""
        before = self._models
        self._models = {
            model: ModelWindows(model, state) for model, state in states if partition_of_model(model) in partitions
        }
        self._kept_at.clear()
        for value in partials:
            partial = PartialSummarised.model_validate_json(value)
            if partition_of_model(partial.model) in partitions:
                self._windows(partial.model).restore(partial)
        for model in before.keys() - self._models.keys():
            self._metrics.forget("tailrace_late_events", model=model)
        for model in self._models:
            self._tell_late(model)

    def partial(self, record: Record, tables: Tables) -> None:
        """Take a partial in. Raises PoisonEvent for a record that is none."""
        if record.value is None:
            return
        try:
            partial = PartialSummarised.model_validate_json(record.value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the value"
            sentence = f"{record} is no partial-summarised event: {where}: {first['msg']}"
            raise PoisonEvent("not-an-event", sentence) from None
        windows, timing = self._windows(partial.model), self._timing(partial.model)
        if windows.apply(partial, record.timestamp_ms):
            tables.keep_partial(record_key(partial), record.value)
        elif windows.too_late:
            self._metrics.count("tailrace_partials_too_late_total", windows.too_late)
            log.warning(
                "a partial came after its window was forgotten", record=str(record), partial=str(partial.source)
            )
            windows.too_late = 0
        over = windows.forget(timing)
        for old in over:
            tables.keep_partial(record_key(old), None)
        if over or self._monotonic() - self._kept_at.get(partial.model, float("-inf")) >= self._window_seconds:
            self._kept_at[partial.model] = self._monotonic()
            tables.keep_model(partial.model, windows.dump())
        self._tell_late(partial.model)

    def due(self) -> list[Outgoing]:
        """What is to be published now."""
        now = self._monotonic()
        return [
            Outgoing(STATISTICS, encode_summary(window), model.encode(), headers=event_headers(window))
            for model, windows in self._models.items()
            for window in windows.due(self._timing(model), now, self._window_seconds)
        ]

    @property
    def open_windows(self) -> int:
        """Windows in hand."""
        return sum(len(windows.windows) for windows in self._models.values())

    def _tell_late(self, model: str) -> None:
        self._metrics.gauge("tailrace_late_events", self._models[model].late, model=model)

    def _windows(self, model: str) -> ModelWindows:
        return self._models.setdefault(model, ModelWindows(model))

    def _timing(self, model: str) -> Timing:
        """The model's timing; a day of lateness where its spec is not known (any more)."""
        known = self._specs.models().get(model)
        lateness = known.shape.lateness if known else DAY_SECONDS
        rows = known.shape.plan.sample_rows if known else Monitors().sample_rows
        sources = topics()[PREDICTION_EVENTS].partitions
        return Timing(lateness, self._idle_source_seconds, sources, rows, self._gone_source_seconds)
