"""Changes of one batch on one partition of the join, its offsets included: staged here, written to the store at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tailrace_ingestion.domain.coverage import Cohort, CohortKey, window_start
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.join_records import Joinable
from tailrace_ingestion.domain.join_state import (
    LABELS,
    PREDICTIONS,
    PROGRESS,
    Counts,
    Entry,
    Half,
    Reader,
    decode_entry,
    entry_key,
    pack,
    read_cohort,
    read_progress,
    wait_key,
)
from tailrace_ingestion.domain.wire import JoinablePrediction, Label

_DEFAULT_WINDOW_SECONDS = DAY_SECONDS

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
        self.partition = partition
        self._store = store
        self.known = known
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
        self.load_keys(wanted)

    def load_keys(self, keys: Iterable[bytes]) -> None:
        """Read what the store has under these keys, as far as they have not been read."""
        unread = [key for key in keys if key not in self._entries]
        for key, found in zip(unread, self._store.get_many(unread), strict=True):
            self._entries[key] = None if found is None else decode_entry(found)

    def entry(self, key: bytes) -> Entry | None:
        """What is known of a prediction id, to be changed and put back."""
        if key not in self._entries:
            self.load_keys([key])
        return self._entries[key]

    def put(self, key: bytes, entry: Entry | None) -> None:
        """Stage an entry; None takes it out of the store."""
        self._entries[key] = entry
        self._changed.add(key)

    # ------------------------------------------------------------ progress

    def passes_over(self, topic: str, record: Joinable, counts: Counts) -> bool:
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

    def notice(self, topic: str, model: str, moment: float) -> None:
        """Move the newest event time of a model on."""
        newest = self.progress.newest[topic]
        newest[model] = max(moment, newest.get(model, moment))

    def half(
        self, topic: str, awaited: str, event: JoinablePrediction | Label, record: Joinable, *, waits: bool = True
    ) -> Half:
        """This side, entered in the index of what waits. A straggler waits a full horizon from its arrival on."""
        base = max(event.time.timestamp(), self.progress.newest[awaited].get(event.model, float("-inf")))
        if waits:
            self.changes[wait_key(topic, event.model, base, event.prediction_id)] = b""
        return Half(record.offset, record.value, base, record.timestamp_ms)

    # ------------------------------------------------------------ cohorts

    def cohort(self, model: str, moment: float) -> tuple[CohortKey, Cohort]:
        """The cohort of a moment, to be changed."""
        width = self._windows.get(model, _DEFAULT_WINDOW_SECONDS)
        key = CohortKey(model, window_start(moment, width))
        return key, self._opened(key, key.start + width)

    def counted(self, model: str, entry: Entry) -> Cohort:
        """The cohort in which an entry's prediction was counted, whatever the spec says of windows now."""
        key = CohortKey(model, entry.window)
        return self._opened(key, key.start + self._windows.get(model, _DEFAULT_WINDOW_SECONDS))

    def _opened(self, key: CohortKey, end: float) -> Cohort:
        cohort = self.cohorts.get(key) or read_cohort(self._store, key)
        if cohort is None:
            cohort = Cohort(end, {topic: self._began.get(topic, 0) for topic in (PREDICTIONS, LABELS)})
        self.cohorts[key] = cohort
        return cohort
