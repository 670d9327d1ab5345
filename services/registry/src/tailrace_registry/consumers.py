"""From records to handlers: decode, open a transaction, call. The one place that knows which event stands on which topic."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tailrace_contracts.events import CommandIssued, Event, RevisionTrained, decode
from tailrace_registry.handlers import refuse_unreadable
from tailrace_registry.ports import Books, Entry
from tailrace_runtime.clock import Clock
from tailrace_runtime.consumer import BatchHandler, Outcome, each
from tailrace_runtime.errors import PoisonEvent
from tailrace_runtime.records import Outgoing, Record

Handler = Callable[[Any, Entry, datetime], Awaitable[None]]
Handlers = Mapping[type[Event], Handler]
"""What handles each event of a topic. Events of a topic that are not named decide nothing here."""


def deciding(handlers: Handlers, books: Books, clock: Clock) -> BatchHandler:
    """Each record in a transaction of its own: what one event decides, the next one finds."""

    async def handle(record: Record) -> Sequence[Outgoing]:
        event = _read(record)
        handler = handlers.get(type(event)) if event is not None else None
        if handler is not None:
            async with books.entry(record) as entry:
                if entry is not None:
                    await handler(event, entry, clock.now())
        return ()

    return each(handle)


def newest_of_each_run(handlers: Handlers, books: Books, clock: Clock) -> BatchHandler:
    """The cheap path for revisions: of a batch, only the newest of each run is worth a transaction."""
    decide = deciding(handlers, books, clock)

    async def handle(records: Sequence[Record]) -> Outcome:
        newest = {_run_of(record): record for record in records}
        return await decide(sorted(newest.values(), key=lambda record: record.offset))

    return handle


def answering(handlers: Handlers, books: Books, clock: Clock) -> BatchHandler:
    """Commands: like `deciding`, and one that cannot be read is answered too, as long as it says who asks."""
    obey = handlers[CommandIssued]

    async def handle(record: Record) -> Sequence[Outgoing]:
        issued = _command(record)
        async with books.entry(record) as entry:
            if entry is None:
                return ()
            if issued is not None:
                await obey(issued, entry, clock.now())
            else:
                await refuse_unreadable(_json(record.value), entry, clock.now())
        return ()

    return each(handle)


def _command(record: Record) -> CommandIssued | None:
    try:
        event = _read(record)
    except PoisonEvent:
        return None
    return event if isinstance(event, CommandIssued) else None


def _run_of(record: Record) -> object:
    """What a record of `revision-trained` is a state of; the record itself where it cannot be read."""
    try:
        event = _read(record)
    except PoisonEvent:
        return record.offset
    return (event.model, event.run_id) if isinstance(event, RevisionTrained) else record.offset


def _read(record: Record) -> Event | None:
    """The event in a record; None for a tombstone."""
    if record.value is None:
        return None
    try:
        return decode(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the value"
        raise PoisonEvent("unreadable-event", f"{record} is no event of ours: {where}: {first['msg']}") from None


def _json(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"")
    except ValueError:
        return None
