"""The registry's journal: what it wrote into its books, one change after another."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.ranges import Offset
from tailrace_contracts.spec import Name


class ModelRow(Value):
    """What the books say of a model beside its events. A `spec_revision` of 0: no spec has been accepted yet."""

    spec_revision: int = Field(ge=0)
    predecessors: tuple[int, ...] = ()


class Kept(Value):
    """An event that decisions rest on, as it was kept."""

    kind: str
    event_id: str
    event: str = Field(description="its JSON")


class AppliedLog(Value):
    """How far a log had been applied when the change was made."""

    topic: str
    partition: Offset
    through_offset: int
    timestamp_ms: int


class BooksWritten(Event):
    """One change of the registry's books, whole: whoever makes all of them again, in order, has the same books.

    Events stand in it as text, byte for byte as they were published, because digests were taken of exactly that.
    """

    type: Literal["books-written"] = "books-written"
    number: int = Field(ge=1, description="one more than that of the change before")
    model: Name
    row: ModelRow | None = Field(default=None, description="none: the change left the model's own row as it was")
    misfits: tuple[int, ...] = Field(default=(), description="versions that were trained for other inputs")
    published: tuple[str, ...] = Field(default=(), description="the JSON of each event that the change announced")
    kept: tuple[Kept, ...] = ()
    revision: str = Field(default="", description="the JSON of a continual run's newest revision")
    applied: tuple[AppliedLog, ...] = ()
    time: AwareDatetime
