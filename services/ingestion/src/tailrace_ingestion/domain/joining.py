"""Predictions meet their labels: one partition's state, and what each record does to it.

A prediction and its label share a key, so they lie in partitions of the same number, and one store holds both. Whichever
comes second completes an example. Cases, each counted:

- a prediction id that comes twice: the first stands, the second is a duplicate;
- a label before its prediction waits for it; a label that comes twice with one value is a duplicate;
- a label with another value corrects the earlier one: a new example that names what it replaces. Its revision counts
  the changes of the label, whether or not the prediction was there, so that it is the same in every life;
- a record that `validate` forwarded again after a crash (its trigger lies at or below the mark) is passed over;
- what waits for longer than the model's horizon expires.

Waiting is measured in event time, by the topic that is waited for: a prediction expires when the newest *label* of its
model is a horizon younger (labels may be far behind predictions when history is played again). Where the other topic is
silent, a horizon of the own topic and of the broker's clock together ends the wait as well.

Everything that a batch changes, its offsets included, is staged in one `Transaction` and written at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from tailrace_ingestion.domain.wire import (
    Example,
    JoinablePrediction,
    Label,
    SourceRange,
    TriggerOffset,
    decode_joinable,
    decode_label,
    encode,
)

PREDICTIONS, LABELS = "predictions", "labels"
_PROGRESS = b"progress"
_EXPIRED_AT_ONCE = 10_000


class Half(Struct, gc=False):
    """One side of an example. `base` is the event time (seconds) from which its wait is counted."""

    offset: int
    value: bytes
    base: float
    timestamp_ms: int


class Entry(Struct, gc=False):
    """What is known of one prediction id."""

    prediction: Half | None = None
    label: Half | None = None
    revision: int = 0


class Counts(Struct, gc=False):
    """What happened on this partition since its beginning; `waiting_*` is what waits now."""

    joined: int = 0
    corrections: int = 0
    duplicate_predictions: int = 0
    duplicate_labels: int = 0
    forwarded_again: int = 0
    expired_predictions: int = 0
    expired_labels: int = 0
    waiting_predictions: int = 0
    waiting_labels: int = 0


class Progress(Struct, gc=False):
    """How far this partition's state has come. `next` are offsets, `marks` triggers, `newest` event times by model."""

    next: dict[str, int] = msgspec.field(default_factory=dict)
    marks: dict[str, int] = msgspec.field(default_factory=dict)
    newest: dict[str, dict[str, float]] = msgspec.field(default_factory=lambda: {PREDICTIONS: {}, LABELS: {}})
    newest_timestamp_ms: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)


class Reader(Protocol):
    """The store, as far as a transaction reads it."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key."""
        ...


Keys = Callable[[bytes, bytes, int], list[bytes]]
"""The first so many keys of a store from one key on and before another, in their order."""


class Joinable(NamedTuple):
    """A record on its way into the join. `trigger` is its offset on the public topic, None where it names none."""

    offset: int
    timestamp_ms: int
    value: bytes
    trigger: int | None


class Joined(NamedTuple):
    """An example that a record completed, ready to be published."""

    model: str
    prediction_id: str
    revision: int
    value: bytes


_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_pack = msgspec.msgpack.Encoder().encode


def entry_key(model: str, prediction_id: str) -> bytes:
    """The store's key of a prediction id."""
    return f"e|{model}|{prediction_id}".encode()


def wait_prefix(topic: str, model: str) -> bytes:
    """What the index keys of one model's waiting halves begin with; they sort by `base`."""
    return f"w|{topic}|{model}|".encode()


def _wait_key(topic: str, model: str, base: float, prediction_id: str) -> bytes:
    return wait_prefix(topic, model) + _sortable(base) + prediction_id.encode()


def _sortable(seconds: float) -> bytes:
    """A moment as eight bytes that sort as moments do, those before 1970 too."""
    return (int(seconds * 1000) + (1 << 62)).to_bytes(8, "big")


def read_progress(store: Reader) -> Progress:
    """How far the store has come."""
    found = store.get(_PROGRESS)
    return Progress() if found is None else _decode_progress(found)


class Transaction:
    """Changes of one batch on one partition, on top of the store; `changes` are to be written in one piece.

    `known` are offsets (next to read) below which the group had committed when the partition was assigned: an example
    of two records that both lie below was published in an earlier life, and is not published again.
    """

    def __init__(self, partition: int, store: Reader, known: Mapping[str, int]) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.progress = read_progress(store)
        self._partition = partition
        self._store = store
        self._known = known
        self._entries: dict[bytes, Entry | None] = {}

    def commit(self) -> dict[bytes, bytes | None]:
        """All changes, with the progress."""
        for key, entry in self._entries.items():
            self.changes[key] = None if entry is None else _pack(entry)
        self.changes[_PROGRESS] = _pack(self.progress)
        return self.changes

    # ------------------------------------------------------------ records

    def prediction(self, record: Joinable) -> Joined | None:
        """Take a prediction in; the example, if its label was waiting."""
        if self._passes_over(PREDICTIONS, record):
            return None
        event, counts = decode_joinable(record.value), self.progress.counts
        self._notice(PREDICTIONS, event.model, event.time.timestamp())
        key = entry_key(event.model, event.prediction_id)
        entry = self._entry(key) or Entry()
        if entry.prediction is not None:
            counts.duplicate_predictions += 1
            return None
        entry.prediction = self._half(PREDICTIONS, LABELS, event, record)
        self._entries[key] = entry
        if entry.label is None:
            counts.waiting_predictions += 1
            return None
        counts.waiting_labels -= 1
        self.changes[_wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
        counts.joined += 1
        return self._example(event, decode_label(entry.label.value), entry, completed_by=PREDICTIONS, replaces=None)

    def label(self, record: Joinable) -> Joined | None:
        """Take a label in; the example that it completes or corrects, if any."""
        if self._passes_over(LABELS, record):
            return None
        event, counts = decode_label(record.value), self.progress.counts
        self._notice(LABELS, event.model, event.time.timestamp())
        key = entry_key(event.model, event.prediction_id)
        entry = self._entry(key) or Entry()
        earlier = None if entry.label is None else decode_label(entry.label.value)
        if earlier is not None and earlier.label == event.label:
            counts.duplicate_labels += 1
            return None
        if entry.prediction is None:
            self._wait(key, entry, event, record)
            return None
        entry.label = self._half(LABELS, PREDICTIONS, event, record, waits=False)
        self._entries[key] = entry
        if earlier is None:
            counts.joined += 1
            counts.waiting_predictions -= 1
        else:
            counts.corrections += 1
            entry.revision += 1
        replaces = None if earlier is None else earlier.label
        prediction = decode_joinable(entry.prediction.value)
        return self._example(prediction, event, entry, completed_by=LABELS, replaces=replaces)

    def _wait(self, key: bytes, entry: Entry, event: Label, record: Joinable) -> None:
        """Keep a label until its prediction comes; a newer value takes the place of one that waits."""
        counts = self.progress.counts
        if entry.label is None:
            counts.waiting_labels += 1
        else:
            counts.corrections += 1
            entry.revision += 1
            self.changes[_wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
        entry.label = self._half(LABELS, PREDICTIONS, event, record)
        self._entries[key] = entry

    def _passes_over(self, topic: str, record: Joinable) -> bool:
        """Note the record's place; True for one that was forwarded again."""
        self.progress.next[topic] = record.offset + 1
        self.progress.newest_timestamp_ms = max(self.progress.newest_timestamp_ms, record.timestamp_ms)
        if record.trigger is None:
            return False
        if record.trigger <= self.progress.marks.get(topic, -1):
            self.progress.counts.forwarded_again += 1
            return True
        self.progress.marks[topic] = record.trigger
        return False

    def _notice(self, topic: str, model: str, moment: float) -> None:
        newest = self.progress.newest[topic]
        newest[model] = max(moment, newest.get(model, moment))

    def _entry(self, key: bytes) -> Entry | None:
        if key not in self._entries:
            found = self._store.get(key)
            self._entries[key] = None if found is None else _decode_entry(found)
        return self._entries[key]

    def _half(
        self, topic: str, awaited: str, event: JoinablePrediction | Label, record: Joinable, *, waits: bool = True
    ) -> Half:
        """This side, entered in the index of what waits. A straggler waits a full horizon from its arrival on."""
        base = max(event.time.timestamp(), self.progress.newest[awaited].get(event.model, float("-inf")))
        if waits:
            self.changes[_wait_key(topic, event.model, base, event.prediction_id)] = b""
        return Half(record.offset, record.value, base, record.timestamp_ms)

    # ------------------------------------------------------------ examples

    def _example(
        self, prediction: JoinablePrediction, label: Label, entry: Entry, *, completed_by: str, replaces: float | None
    ) -> Joined | None:
        if entry.prediction is None or entry.label is None or self._was_published(entry.prediction, entry.label):
            return None
        offsets = {PREDICTIONS: entry.prediction.offset, LABELS: entry.label.offset}
        example = Example(
            prediction_id=prediction.prediction_id,
            model=prediction.model,
            time=prediction.time,
            label_time=label.time,
            features=prediction.features,
            label=label.label,
            label_revision=entry.revision,
            replaces=replaces,
            served=prediction.served,
            shadows=prediction.shadows,
            entity=prediction.entity,
            trigger=TriggerOffset(completed_by, self._partition, offsets[completed_by]),
            derived_from=tuple(
                SourceRange(topic, self._partition, offset, offset) for topic, offset in sorted(offsets.items())
            ),
        )
        return Joined(prediction.model, prediction.prediction_id, entry.revision, encode(example))

    def _was_published(self, prediction: Half, label: Half) -> bool:
        return prediction.offset < self._known.get(PREDICTIONS, 0) and label.offset < self._known.get(LABELS, 0)

    # ------------------------------------------------------------ expiry

    def expire(self, model: str, horizon_seconds: float, keys: Keys) -> None:
        """Forget what has waited for too long. `keys` gives index keys in [first, last), in their order."""
        for topic, awaited in ((PREDICTIONS, LABELS), (LABELS, PREDICTIONS)):
            by_other = self.progress.newest[awaited].get(model, float("-inf")) - horizon_seconds
            by_own = self.progress.newest[topic].get(model, float("-inf")) - horizon_seconds
            if max(by_other, by_own) == float("-inf"):
                continue
            prefix = wait_prefix(topic, model)
            for index_key in keys(prefix, prefix + _sortable(max(by_other, by_own)), _EXPIRED_AT_ONCE):
                place, prediction_id = index_key[: len(prefix) + 8], index_key[len(prefix) + 8 :].decode()
                over = by_other > float("-inf") and place < prefix + _sortable(by_other)
                if not self._expire_one(topic, entry_key(model, prediction_id), horizon_seconds, over=over):
                    break
                self.changes[index_key] = None

    def _expire_one(self, topic: str, key: bytes, horizon_seconds: float, *, over: bool) -> bool:
        """Forget one entry; False when it may wait on. One that was joined is forgotten too, without being counted."""
        entry, counts = self._entry(key), self.progress.counts
        half = None if entry is None else (entry.prediction if topic == PREDICTIONS else entry.label)
        if entry is None or half is None:
            return True
        if not over and half.timestamp_ms + horizon_seconds * 1000 > self.progress.newest_timestamp_ms:
            return False
        if topic == PREDICTIONS and entry.label is None:
            counts.expired_predictions += 1
            counts.waiting_predictions -= 1
        elif topic == LABELS and entry.prediction is None:
            counts.expired_labels += 1
            counts.waiting_labels -= 1
        self._entries[key] = None
        return True
