"""What happens to a batch in each role: records and ports in, an outcome out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tailrace_ingestion.domain.batch import Batch
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.parsing import models_in, parse_labels, parse_predictions, parse_unknown, refuse_unknown
from tailrace_ingestion.domain.validation import check_labels, check_predictions
from tailrace_ingestion.domain.wire import Label, Prediction
from tailrace_ingestion.ports import ModelsAt
from tailrace_runtime.consumer import Outcome, Parked
from tailrace_runtime.records import Record, Records, Run

T = TypeVar("T")
TRIGGER_OFFSET = "trigger-offset"
"""The header of a forwarded record that names its offset on the public topic, in ASCII digits."""


async def validate_predictions(
    records: Sequence[Record], specs: ModelsAt, book: SourceBook, forward_to: str
) -> Outcome:
    """Check a batch of prediction events, fold it, forward what is valid."""
    arrivals = Records.of(records)
    models = dict(await specs.of(models_in(arrivals), arrivals.offsets[0]))
    batch = parse_predictions(arrivals, models)
    if batch.unknown:
        models |= await specs.of(set(batch.unknown.values()), arrivals.offsets[0])
        parse_unknown(batch, models)
    for name, positions in batch.by_model().items():
        check_predictions(batch, positions, models[name], book)
    book.read_through = arrivals.offsets[-1]
    return _outcome(arrivals, batch, forward_to)


async def validate_labels(
    records: Sequence[Record], specs: ModelsAt, newest: dict[str, float], forward_to: str
) -> Outcome:
    """Check a batch of label events, forward what is valid. `newest` are the labels' watermarks."""
    arrivals = Records.of(records)
    batch = parse_labels(arrivals)
    models = await specs.of(batch.by_model().keys(), arrivals.offsets[0])
    for name, positions in batch.by_model().items():
        if name in models:
            check_labels(batch, positions, models[name], newest)
        else:
            refuse_unknown(batch, positions, name)
    return _outcome(arrivals, batch, forward_to)


def _outcome(records: Records, batch: Batch[Prediction] | Batch[Label], forward_to: str) -> Outcome:
    """What is refused is parked. The rest goes on as it came, to the same partition, each with its offset."""
    keys, values = records.keys, [value or b"" for value in records.values]
    headers = [
        [(TRIGGER_OFFSET, b"%d" % offset), *given] if given else [(TRIGGER_OFFSET, b"%d" % offset)]
        for offset, given in zip(records.offsets, records.headers, strict=True)
    ]
    for position in batch.replaced.keys() | batch.changed.keys():
        values[position] = batch.value(position)
    outcome = Outcome()
    if batch.refused:
        for position, refused in sorted(batch.refused.items()):
            outcome.parked.append(Parked(records[position], refused.code, refused.sentence, refused.model))
        kept = [position for position in range(len(records)) if position not in batch.refused]
        keys, values, headers = _picked(keys, kept), _picked(values, kept), _picked(headers, kept)
    if values:
        outcome.runs.append(Run(forward_to, records.partition, keys, values, headers))
    return outcome


def _picked(column: list[T], positions: Sequence[int]) -> list[T]:
    return [column[at] for at in positions]
