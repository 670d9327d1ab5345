"""What happens to a batch in each role: records and ports in, an outcome out."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.validation import (
    Batch,
    check_labels,
    check_predictions,
    parse_labels,
    parse_predictions,
    refuse_unknown,
)
from tailrace_ingestion.domain.wire import Label, Prediction
from tailrace_ingestion.ports import ModelsAt
from tailrace_runtime.consumer import Outcome, Parked
from tailrace_runtime.records import Outgoing, Record

TRIGGER_OFFSET = "trigger-offset"
"""The header of a forwarded record that names its offset on the public topic, in ASCII digits."""


async def validate_predictions(
    records: Sequence[Record], specs: ModelsAt, book: SourceBook, forward_to: str
) -> tuple[Outcome, int]:
    """Check a batch of prediction events, fold it, forward what is valid. Also gives the number of late events."""
    batch = parse_predictions(records)
    models = await specs.of(batch.by_model().keys(), records[0].offset)
    for name, positions in batch.by_model().items():
        if name in models:
            check_predictions(batch, positions, models[name], book)
        else:
            refuse_unknown(batch, positions, name)
    book.read_through = records[-1].offset
    return _outcome(records, batch, forward_to), batch.late


async def validate_labels(
    records: Sequence[Record], specs: ModelsAt, newest: dict[str, float], forward_to: str
) -> Outcome:
    """Check a batch of label events, forward what is valid. `newest` are the labels' watermarks."""
    batch = parse_labels(records)
    models = await specs.of(batch.by_model().keys(), records[0].offset)
    for name, positions in batch.by_model().items():
        if name in models:
            check_labels(batch, positions, models[name], newest)
        else:
            refuse_unknown(batch, positions, name)
    return _outcome(records, batch, forward_to)


def _outcome(records: Sequence[Record], batch: Batch[Prediction] | Batch[Label], forward_to: str) -> Outcome:
    outcome = Outcome()
    for position, record in enumerate(records):
        refused = batch.refused.get(position)
        if refused is not None:
            outcome.parked.append(Parked(record, refused.code, refused.sentence, refused.model))
        else:
            headers = ((TRIGGER_OFFSET, b"%d" % record.offset), *record.headers)
            outcome.emit.append(Outgoing(forward_to, batch.value(position), record.key, record.partition, headers))
    return outcome
