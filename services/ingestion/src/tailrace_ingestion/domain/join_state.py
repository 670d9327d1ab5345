"""What the join keeps of one partition: its shape, its keys, its bytes (msgpack).

progress                        how far both logs are read, and every model's counts
e|<model>|<prediction id>       what is known of one prediction id
w|<topic>|<model>|<base><id>    an index of what waits, by the moment from which it waits
c|<model>|<window>              a window's coverage (coverage.py)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from tailrace_ingestion.domain.coverage import Cohort, CohortKey, sortable

PREDICTIONS, LABELS = "predictions", "labels"
FORMAT = 2
"""Of what is stored: a store of another format is made anew from the topics."""

EXPIRED = "expired"
"""The index of what is remembered for a second horizon, beside those of the two topics."""

PROGRESS = b"progress"


class Half(Struct, gc=False):
    """One side of an example. `base` is the event time (seconds) from which its wait is counted."""

    offset: int
    value: bytes
    base: float
    timestamp_ms: int


class Entry(Struct, gc=False):
    """What is known of one prediction id. `window` begins the cohort that counts it.

    `over`: its horizon has passed; of the prediction only the place is left, of the label what it `said`.
    """

    prediction: Half | None = None
    label: Half | None = None
    revision: int = 0
    window: float = 0.0
    over: bool = False
    said: int | float | None = None


class Counts(Struct, gc=False):
    """What happened to one model on this partition since its beginning; `waiting_*` is what waits now."""

    joined: int = 0
    label_first: int = 0
    corrections: int = 0
    duplicate_predictions: int = 0
    duplicate_labels: int = 0
    forwarded_again: int = 0
    expired_predictions: int = 0
    late_labels: int = 0
    unmatched_labels: int = 0
    waiting_predictions: int = 0
    waiting_labels: int = 0


class Progress(Struct, gc=False):
    """How far this partition's state has come. `next` are offsets, `marks` triggers, `newest` event times by model."""

    format: int = 1
    next: dict[str, int] = msgspec.field(default_factory=dict)
    marks: dict[str, int] = msgspec.field(default_factory=dict)
    newest: dict[str, dict[str, float]] = msgspec.field(default_factory=lambda: {PREDICTIONS: {}, LABELS: {}})
    newest_timestamp_ms: int = 0
    counts: dict[str, Counts] = msgspec.field(default_factory=dict)

    def of(self, model: str) -> Counts:
        """The model's counts."""
        found = self.counts.get(model)
        if found is None:
            found = self.counts[model] = Counts()
        return found


class Reader(Protocol):
    """The store, as far as a transaction reads it."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key."""
        ...

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values under these keys."""
        ...


Keys = Callable[[bytes, bytes, int], list[bytes]]
"""The first so many keys of a store from one key on and before another, in their order."""


decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_decode_cohort = msgspec.msgpack.Decoder(Cohort).decode
pack = msgspec.msgpack.Encoder().encode


def entry_key(model: str, prediction_id: str) -> bytes:
    """The store's key of a prediction id."""
    return f"e|{model}|{prediction_id}".encode()


def wait_prefix(topic: str, model: str) -> bytes:
    """What the index keys of one model's waiting halves begin with; they sort by `base`."""
    return f"w|{topic}|{model}|".encode()


def wait_key(topic: str, model: str, base: float, prediction_id: str) -> bytes:
    """The index key of one waiting half."""
    return wait_prefix(topic, model) + sortable(base) + prediction_id.encode()


def read_progress(store: Reader) -> Progress:
    """How far the store has come."""
    found = store.get(PROGRESS)
    return Progress(format=FORMAT) if found is None else _decode_progress(found)


def read_cohort(store: Reader, key: CohortKey) -> Cohort | None:
    """What the store says of a cohort."""
    found = store.get(key.encode())
    return None if found is None else _decode_cohort(found)
