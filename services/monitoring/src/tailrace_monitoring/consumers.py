"""From records to handlers: decode, find out what is known of the model, call.

The role `watch` reads labelled examples and windows into the watches, and what others announce into the read model.
Everything is stored in PostgreSQL, events to publish in its outbox, before the offset is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from tailrace_contracts.events import Event, ExampleLabelled, ServingMeasured, WindowSummarised, decode
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.handlers import (
    Watchers,
    by_model,
    let_time_pass,
    observe_answers,
    observe_examples,
    observe_window,
)
from tailrace_monitoring.ports import Notebook
from tailrace_runtime.consumer import Outcome, Parked, Stateless
from tailrace_runtime.records import Record


class Reading:
    """A batch, decoded: the events with their records, and what cannot be read."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.events: list[tuple[Record, Event]] = []
        self.parked: list[Parked] = []
        for record in records:
            if record.value is not None:
                self._read(record, record.value)

    def _read(self, record: Record, value: bytes) -> None:
        try:
            self.events.append((record, decode(value)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "value"
            reason = f"{record} is no event of ours: {where}: {first['msg']}"
            self.parked.append(Parked(record, "unreadable-event", reason))

    def park_unknown(self, model: str, records: Iterable[Record]) -> None:
        """These are of a model that nobody has described."""
        reason = f"there is no model {model}; apply a spec for it first, then replay this event"
        self.parked.extend(Parked(record, "unknown-model", reason, model) for record in records)


class WatchRole(Stateless):
    """The handlers of the role `watch`, and the models of which something waits for its time."""

    def __init__(self, watchers: Watchers, notebook: Notebook) -> None:
        self._watchers = watchers
        self._notebook = notebook
        self._waiting: set[str] | None = None

    async def examples(self, records: Sequence[Record]) -> Outcome:
        """`labelled-examples`, model by model."""
        reading = Reading(records)
        placed = [
            Placed(record.log, record.offset, event)
            for record, event in reading.events
            if isinstance(event, ExampleLabelled)
        ]
        for model, batch in by_model(placed).items():
            known = await self._watchers.gazette.model(model)
            if known is None:
                reading.park_unknown(model, _of(model, reading.events))
            elif await observe_examples(model, batch, known, self._watchers):
                self._wait_for(model)
        return Outcome(parked=reading.parked)

    def _wait_for(self, model: str) -> None:
        if self._waiting is not None:
            self._waiting.add(model)

    async def windows(self, records: Sequence[Record]) -> Outcome:
        """`feature-statistics`; of an open window that comes several times in a batch only the last state counts."""
        reading = Reading(records)
        for record, window in _newest_states(reading.events):
            known = await self._watchers.gazette.model(window.model)
            if known is None:
                reading.park_unknown(window.model, [record])
            else:
                await observe_window((record.log, record.offset, window), known, self._watchers)
        return Outcome(parked=reading.parked)

    async def answers(self, records: Sequence[Record]) -> Outcome:
        """`serving-measurements`, model by model."""
        reading = Reading(records)
        measured: dict[str, list[tuple[Log, int, ServingMeasured]]] = {}
        for record, event in reading.events:
            if isinstance(event, ServingMeasured):
                measured.setdefault(event.model, []).append((record.log, record.offset, event))
        for model, batch in measured.items():
            known = await self._watchers.gazette.model(model)
            if known is None:
                reading.park_unknown(model, _of(model, reading.events))
            elif await observe_answers(model, batch, known, self._watchers):
                self._wait_for(model)
        return Outcome(parked=reading.parked)

    async def notes(self, records: Sequence[Record]) -> Outcome:
        """What others announce: copied into the read model."""
        reading = Reading(records)
        if reading.events:
            facts = [(record.offset, event) for record, event in reading.events]
            await self._notebook.note(records[0].log, facts)
        return Outcome(parked=reading.parked)

    async def tick(self) -> Outcome:
        """Do what has been waiting for its time; after a start, look at every model once."""
        if self._waiting is None:
            self._waiting = set(self._watchers.gazette.names())
        for model in sorted(self._waiting):
            known = await self._watchers.gazette.model(model)
            if known is None or not await let_time_pass(model, known, self._watchers):
                self._waiting.discard(model)
        return Outcome()


def _of(model: str, events: Iterable[tuple[Record, Event]]) -> list[Record]:
    return [record for record, event in events if getattr(event, "model", None) == model]


def _newest_states(events: Iterable[tuple[Record, Event]]) -> list[tuple[Record, WindowSummarised]]:
    """The last state of each window, in the order of the log."""
    newest: dict[tuple[object, ...], tuple[Record, WindowSummarised]] = {}
    for record, event in events:
        if isinstance(event, WindowSummarised):
            newest[event.model, event.window.start, event.closed] = (record, event)
    return sorted(newest.values(), key=lambda each: each[0].offset)
