"""The role `validate`: public events in, valid ones out, statistics on the way.

A batch is checked and forwarded at once. Its rows wait in the book of its log until the next tick, about a second
later; then the changed windows are published as partials, and only after that the offsets are committed. Labels have no
partials; they are committed batch by batch.

After a crash the role reads its partials back, reads the log again from the committed offset, forwards what it may have
forwarded before (the join drops it by its trigger), and folds only what no partial covers. A log that is read again is
checked by the specs that were in force when it was read first (`specs_in_force.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import PartialSummarised
from tailrace_contracts.ranges import Log
from tailrace_ingestion.consumers.specs_in_force import SpecEffects, SpecsInForce
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.partials import record_key
from tailrace_ingestion.domain.wire import encode_summary
from tailrace_ingestion.handlers import validate_labels, validate_predictions
from tailrace_ingestion.ports import PublishedPartials
from tailrace_runtime.consumer import Outcome, Stateless
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Outgoing, Record, event_headers

PARTIALS = "window-partials"
PREDICTION_EVENTS, LABEL_EVENTS = "prediction-events", "label-events"


class Validating(Stateless):
    """State: for each log in hand the specs in force, and its book of statistics or the watermarks of its labels."""

    def __init__(
        self, effects: SpecEffects, partials: PublishedPartials, metrics: Metrics, max_waiting_rows: int
    ) -> None:
        self._effects = effects
        self._partials = partials
        self._metrics = metrics
        self._max_waiting_rows = max_waiting_rows
        self._in_force: dict[Log, SpecsInForce] = {}
        self._books: dict[int, SourceBook] = {}
        self._label_times: dict[int, dict[str, float]] = {}

    async def predictions(self, records: Sequence[Record]) -> Outcome:
        """A batch of `prediction-events`; committed by a later tick."""
        book, specs = self._books[records[0].partition], self._in_force[records[0].log]
        shapes = {name: model.shape for name, model in self._effects.specs.models().items()}
        book.begin(records[0].offset, shapes)
        whole = Outcome(commit_through=-1)
        for part in specs.parts(records):
            outcome = await validate_predictions(part, specs, book, "predictions")
            whole.runs += outcome.runs
            whole.parked += outcome.parked
        if book.waiting >= self._max_waiting_rows:
            book.fold()
        return whole

    async def labels(self, records: Sequence[Record]) -> Outcome:
        """A batch of `label-events`."""
        newest, specs = self._label_times.setdefault(records[0].partition, {}), self._in_force[records[0].log]
        whole = Outcome()
        for part in specs.parts(records):
            outcome = await validate_labels(part, specs, newest, "labels")
            whole.runs += outcome.runs
            whole.parked += outcome.parked
        return whole

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Read back what was published for these logs. Places stay as committed."""
        self._books, self._label_times = {}, {}
        self._in_force = await self._effects.of_logs(logs)
        partitions = {log.partition for log in logs if log.topic == PREDICTION_EVENTS}
        published = await self._partials.of_sources(partitions) if partitions else {}
        for partition in partitions:
            book = self._books[partition] = SourceBook(Log(PREDICTION_EVENTS, partition))
            book.recover(published.get(partition, []))
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Forget: the next owner recovers from the topics."""
        for log in logs:
            self._in_force.pop(log, None)
            (self._books if log.topic == PREDICTION_EVENTS else self._label_times).pop(log.partition, None)

    async def tick(self) -> Mapping[Log, Outcome]:
        """Publish the windows that changed; their offsets may then be committed."""
        outcomes = {book.log: self._published(book) for book in self._books.values() if book.unpublished}
        self._metrics.gauge("tailrace_open_windows", sum(len(book.windows) for book in self._books.values()))
        return outcomes

    def _published(self, book: SourceBook) -> Outcome:
        return Outcome(emit=[published(partial) for partial in book.publish()], commit_through=book.committable)


def published(partial: PartialSummarised) -> Outgoing:
    """A partial on its topic."""
    key, partition = record_key(partial).encode(), partition_of_model(partial.model)
    return Outgoing(PARTIALS, encode_summary(partial), key, partition, event_headers(partial))


def partition_of_model(model: str) -> int:
    """The partition of `window-partials` on which all source partitions of a model meet."""
    return zlib.crc32(model.encode()) % topics()[PARTIALS].partitions
