"""Predictions meet their labels: one partition's state, and what each record does to it.

A prediction and its label share a key, so they lie in partitions of the same number, and one store holds both. Whichever
comes second completes an example. Cases, each counted for its model:

- a prediction id that comes twice: the first stands, the second is a duplicate;
- a label before its prediction waits for it; a label that comes twice with one value is a duplicate;
- a label with another value corrects the earlier one: a new example that names what it replaces. Its revision counts
  the changes of the label, whether or not the prediction was there, so that it is the same in every life;
- a record that `validate` forwarded again after a crash (its trigger lies at or below the mark) is passed over;
- a prediction that has waited for the model's horizon expires, and is remembered by its id for a second horizon: a label
  that comes in that time is late, and refused;
- a label that has waited for a horizon without its prediction is refused: the prediction never came.

Waiting is measured in event time, by the topic that is waited for: a prediction expires when the newest *label* of its
model is a horizon younger (labels may be far behind predictions when history is played again). Where the other topic is
silent, a horizon of the own topic and of the broker's clock together ends the wait as well. The horizon is a lower bound:
a label that comes later, but before anybody looked, still joins.

Beside the single examples, each window's coverage is kept (coverage.py); join_state.py has the shape of it all. Everything that a
batch changes, its offsets included, is staged in one `Transaction` and written at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tailrace_ingestion.domain.coverage import Cohort, CohortKey, cohort_of, cohort_prefix, sortable, window_start
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.join_state import (
    EXPIRED,
    LABELS,
    PREDICTIONS,
    PROGRESS,
    Counts,
    Entry,
    Half,
    Keys,
    Reader,
    decode_entry,
    entry_key,
    pack,
    read_cohort,
    read_progress,
    wait_key,
    wait_prefix,
)
from tailrace_ingestion.domain.reasons import Reason
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

_EXPIRED_AT_ONCE = 10_000
_DEFAULT_WINDOW_SECONDS = DAY_SECONDS


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


class Refused(NamedTuple):
    """A label that no example can come of any more: its place in the log, its bytes, and why."""

    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    code: Reason
    reason: str
    model: str


Windows = Mapping[str, float]
"""How long each model's windows are, in seconds."""


class Transaction:
    """Changes of one batch on one partition, on top of the store; `changes` are to be written in one piece.

    `known` are offsets (next to read) below which the group had committed when the partition was assigned: an example
    of two records that both lie below was published in an earlier life, and is not published again.
    """

    def __init__(self, partition: int, store: Reader, known: Mapping[str, int], windows: Windows) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.cohorts: dict[CohortKey, Cohort] = {}
        self.progress = read_progress(store)
        self._began = dict(self.progress.next)
        self._partition = partition
        self._store = store
        self._known = known
        self._windows = windows
        self._entries: dict[bytes, Entry | None] = {}
        self._changed: set[bytes] = set()

    def commit(self) -> dict[bytes, bytes | None]:
        """All changes, with the progress."""
        for key in self._changed:
            entry = self._entries[key]
            self.changes[key] = None if entry is None else pack(entry)
        for cohort_key, cohort in self.cohorts.items():
            self.changes[cohort_key.encode()] = pack(cohort)
        self.changes[PROGRESS] = pack(self.progress)
        return self.changes

    def load(self, events: Iterable[JoinablePrediction | Label]) -> None:
        """Read what the store has of these events' ids, all at once."""
        wanted = {entry_key(event.model, event.prediction_id) for event in events}
        self._load([key for key in wanted if key not in self._entries])

    def _load(self, keys: list[bytes]) -> None:
        for key, found in zip(keys, self._store.get_many(keys), strict=True):
            self._entries[key] = None if found is None else decode_entry(found)

    # ------------------------------------------------------------ records

    def prediction(self, event: JoinablePrediction, record: Joinable) -> Joined | None:
        """Take a prediction in; the example, if its label was waiting."""
        counts = self.progress.of(event.model)
        if self._passes_over(PREDICTIONS, record, counts):
            return None
        asked = event.time.timestamp()
        self._notice(PREDICTIONS, event.model, asked)
        key = entry_key(event.model, event.prediction_id)
        entry = self._entry(key) or Entry()
        if entry.prediction is not None:
            counts.duplicate_predictions += 1
            return None
        entry.prediction = self._half(PREDICTIONS, LABELS, event, record)
        cohort_key, cohort = self._cohort(event.model, asked)
        entry.window = cohort_key.start
        cohort.predictions += 1
        self._put(key, entry)
        if entry.label is None:
            counts.waiting_predictions += 1
            return None
        counts.waiting_labels -= 1
        counts.joined += 1
        self.changes[wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
        label = decode_label(entry.label.value)
        cohort.joined(label.time.timestamp() - asked, entry.revision)
        cohort.first[LABELS] = min(cohort.first[LABELS], entry.label.offset)
        return self._example(event, label, entry, completed_by=PREDICTIONS, replaces=None)

    def label(self, event: Label, record: Joinable) -> Joined | Refused | None:
        """Take a label in; the example that it completes or corrects, or why it cannot any more."""
        counts = self.progress.of(event.model)
        if self._passes_over(LABELS, record, counts):
            return None
        self._notice(LABELS, event.model, event.time.timestamp())
        key = entry_key(event.model, event.prediction_id)
        entry = self._entry(key) or Entry()
        earlier = entry.said if entry.label is None else decode_label(entry.label.value).label
        if earlier is not None and earlier == event.label:
            counts.duplicate_labels += 1
            return None
        if entry.over:
            return self._late(event, entry, record, counts)
        if entry.prediction is None:
            self._wait(key, entry, event, record)
            return None
        prediction = decode_joinable(entry.prediction.value)
        self._answer(key, entry, prediction, event, record)
        if earlier is not None:
            entry.revision += 1
        return self._example(prediction, event, entry, completed_by=LABELS, replaces=earlier)

    def _answer(self, key: bytes, entry: Entry, prediction: JoinablePrediction, event: Label, record: Joinable) -> None:
        """A label whose prediction is there: its first, or a correction."""
        counts, cohort = self.progress.of(event.model), self._counted(event.model, entry)
        if entry.label is None:
            counts.joined += 1
            counts.waiting_predictions -= 1
            cohort.joined((event.time - prediction.time).total_seconds(), 0)
        else:
            counts.corrections += 1
            cohort.corrections += 1
        entry.label = self._half(LABELS, PREDICTIONS, event, record, waits=False)
        self._put(key, entry)

    def _late(self, event: Label, entry: Entry, record: Joinable, counts: Counts) -> Refused | None:
        counts.late_labels += 1
        self._counted(event.model, entry).late_labels += 1
        if record.offset < self._known.get(LABELS, 0):
            return None
        reason = (
            f"the label of prediction {event.prediction_id} of model {event.model} came after the horizon of its "
            "prediction, which is gone; raise label.horizon_days in the spec if labels take longer"
        )
        half = Half(record.offset, record.value, 0.0, record.timestamp_ms)
        return _refused(event, half, Reason.LABEL_TOO_LATE, reason)

    def _wait(self, key: bytes, entry: Entry, event: Label, record: Joinable) -> None:
        """Keep a label until its prediction comes; a newer value takes the place of one that waits."""
        counts = self.progress.of(event.model)
        if entry.label is None:
            counts.waiting_labels += 1
            counts.label_first += 1
        else:
            counts.corrections += 1
            entry.revision += 1
            self.changes[wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
        entry.label = self._half(LABELS, PREDICTIONS, event, record)
        self._put(key, entry)

    def _passes_over(self, topic: str, record: Joinable, counts: Counts) -> bool:
        """Note the record's place; True for one that was forwarded again."""
        self._began.setdefault(topic, record.offset)
        self.progress.next[topic] = record.offset + 1
        self.progress.newest_timestamp_ms = max(self.progress.newest_timestamp_ms, record.timestamp_ms)
        if record.trigger is None:
            return False
        if record.trigger <= self.progress.marks.get(topic, -1):
            counts.forwarded_again += 1
            return True
        self.progress.marks[topic] = record.trigger
        return False

    def _notice(self, topic: str, model: str, moment: float) -> None:
        newest = self.progress.newest[topic]
        newest[model] = max(moment, newest.get(model, moment))

    def _entry(self, key: bytes) -> Entry | None:
        if key not in self._entries:
            self._load([key])
        return self._entries[key]

    def _put(self, key: bytes, entry: Entry | None) -> None:
        self._entries[key] = entry
        self._changed.add(key)

    def _half(
        self, topic: str, awaited: str, event: JoinablePrediction | Label, record: Joinable, *, waits: bool = True
    ) -> Half:
        """This side, entered in the index of what waits. A straggler waits a full horizon from its arrival on."""
        base = max(event.time.timestamp(), self.progress.newest[awaited].get(event.model, float("-inf")))
        if waits:
            self.changes[wait_key(topic, event.model, base, event.prediction_id)] = b""
        return Half(record.offset, record.value, base, record.timestamp_ms)

    # ------------------------------------------------------------ cohorts

    def _cohort(self, model: str, moment: float) -> tuple[CohortKey, Cohort]:
        """The cohort of a moment, to be changed."""
        width = self._windows.get(model, _DEFAULT_WINDOW_SECONDS)
        key = CohortKey(model, window_start(moment, width))
        return key, self._opened(key, key.start + width)

    def _counted(self, model: str, entry: Entry) -> Cohort:
        """The cohort in which an entry's prediction was counted, whatever the spec says of windows now."""
        key = CohortKey(model, entry.window)
        return self._opened(key, key.start + self._windows.get(model, _DEFAULT_WINDOW_SECONDS))

    def _opened(self, key: CohortKey, end: float) -> Cohort:
        cohort = self.cohorts.get(key) or read_cohort(self._store, key)
        if cohort is None:
            cohort = Cohort(end, {topic: self._began.get(topic, 0) for topic in (PREDICTIONS, LABELS)})
        self.cohorts[key] = cohort
        return cohort

    # ------------------------------------------------------------ examples

    def _example(
        self,
        prediction: JoinablePrediction,
        label: Label,
        entry: Entry,
        *,
        completed_by: str,
        replaces: float | None,
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

    def expire(self, model: str, horizon_seconds: float, keys: Keys) -> list[Refused]:
        """Let go of what has waited for too long; the labels among it. `keys` gives index keys in [first, last)."""
        refused: list[Refused] = []
        for kind, awaited in ((PREDICTIONS, LABELS), (LABELS, PREDICTIONS), (EXPIRED, LABELS)):
            own = PREDICTIONS if kind == EXPIRED else kind
            by_other = self.progress.newest[awaited].get(model, float("-inf")) - horizon_seconds
            by_own = self.progress.newest[own].get(model, float("-inf")) - horizon_seconds
            if max(by_other, by_own) == float("-inf"):
                continue
            prefix = wait_prefix(kind, model)
            found = keys(prefix, prefix + sortable(max(by_other, by_own)), _EXPIRED_AT_ONCE)
            names = {each: each[len(prefix) + 8 :].decode() for each in found}
            self._load([key for name in names.values() if (key := entry_key(model, name)) not in self._entries])
            for index_key, name in names.items():
                over = by_other > float("-inf") and index_key[: len(prefix) + 8] < prefix + sortable(by_other)
                waiting = self._half_of(kind, entry_key(model, name))
                if waiting is not None and not over and not self._waited(waiting, horizon_seconds):
                    break
                self.changes[index_key] = None
                if waiting is not None:
                    refused.extend(self._let_go(kind, model, name, horizon_seconds))
        return refused

    def _half_of(self, kind: str, key: bytes) -> Half | None:
        """What still waits under an index key; nothing if the index is older than the entry."""
        entry = self._entry(key)
        if entry is None or entry.over != (kind == EXPIRED):
            return None
        return entry.label if kind == LABELS else entry.prediction

    def _waited(self, half: Half, horizon_seconds: float) -> bool:
        """Whether a horizon of the broker's clock has passed, too."""
        return half.timestamp_ms + horizon_seconds * 1000 <= self.progress.newest_timestamp_ms

    def _let_go(self, kind: str, model: str, name: str, horizon_seconds: float) -> Iterable[Refused]:
        """One entry's horizon is over. One that was joined is let go, too, without being counted."""
        key, counts = entry_key(model, name), self.progress.of(model)
        entry = self._entry(key) or Entry()
        if kind == PREDICTIONS and entry.label is None:
            counts.expired_predictions += 1
            counts.waiting_predictions -= 1
            self._counted(model, entry).expired += 1
        if kind == PREDICTIONS and entry.prediction is not None:
            self._remember(key, entry, entry.prediction, horizon_seconds)
        elif kind == EXPIRED:
            self._put(key, None)
        elif entry.prediction is None and entry.label is not None:
            counts.unmatched_labels += 1
            counts.waiting_labels -= 1
            self._put(key, None)
            yield self._unmatched(entry.label, horizon_seconds)

    def _remember(self, key: bytes, entry: Entry, prediction: Half, horizon_seconds: float) -> None:
        """Of a prediction that is over, its place and what its label said, for a second horizon."""
        _, model, name = key.decode().split("|", 2)
        base = prediction.base + horizon_seconds
        place = Half(prediction.offset, b"", base, prediction.timestamp_ms + int(horizon_seconds * 1000))
        said = None if entry.label is None else decode_label(entry.label.value).label
        self._put(key, Entry(place, None, entry.revision, entry.window, over=True, said=said))
        self.changes[wait_key(EXPIRED, model, base, name)] = b""

    def _unmatched(self, half: Half, horizon_seconds: float) -> Refused:
        label = decode_label(half.value)
        _, cohort = self._cohort(label.model, label.time.timestamp())
        cohort.unmatched_labels += 1
        cohort.first[LABELS] = min(cohort.first[LABELS], half.offset)
        reason = (
            f"no prediction {label.prediction_id} of model {label.model} came within {horizon_seconds / DAY_SECONDS:g} "
            "days of its label; publish it, then replay this label"
        )
        return _refused(label, half, Reason.PREDICTION_NEVER_CAME, reason)

    def forget_cohorts(self, model: str, older_than: float, keys: Keys) -> list[CohortKey]:
        """Drop cohorts that began so long ago that nobody asks any more; gives their keys."""
        prefix = cohort_prefix(model)
        found = keys(prefix, prefix + sortable(older_than), _EXPIRED_AT_ONCE)
        self.changes.update(dict.fromkeys(found))
        return [cohort_of(key) for key in found]


def _refused(event: Label, half: Half, code: Reason, reason: str) -> Refused:
    key = event.prediction_id.encode()
    return Refused(half.offset, half.timestamp_ms, key, half.value, code, reason, event.model)
