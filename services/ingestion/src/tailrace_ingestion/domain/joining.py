"""Predictions meet their labels: what each record does to one partition's state.

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

Beside the single examples, each window's coverage is kept (coverage.py); join_state.py has the shape of it all, and
expiring.py what happens when a horizon has passed. Everything that a batch changes is staged in one `Transaction`.
"""

from __future__ import annotations

from tailrace_ingestion.domain.join_records import Joinable, Joined, Refused, refused
from tailrace_ingestion.domain.join_state import LABELS, PREDICTIONS, Counts, Entry, Half, entry_key, wait_key
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.domain.transaction import Transaction
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


def take_prediction(transaction: Transaction, event: JoinablePrediction, record: Joinable) -> Joined | None:
    """Take a prediction in; the example, if its label was waiting."""
    counts = transaction.progress.of(event.model)
    if transaction.passes_over(PREDICTIONS, record, counts):
        return None
    asked = event.time.timestamp()
    transaction.notice(PREDICTIONS, event.model, asked)
    key = entry_key(event.model, event.prediction_id)
    entry = transaction.entry(key) or Entry()
    if entry.prediction is not None:
        counts.duplicate_predictions += 1
        return None
    entry.prediction = transaction.half(PREDICTIONS, LABELS, event, record)
    cohort_key, cohort = transaction.cohort(event.model, asked)
    entry.window = cohort_key.start
    cohort.predictions += 1
    transaction.put(key, entry)
    if entry.label is None:
        counts.waiting_predictions += 1
        return None
    counts.waiting_labels -= 1
    counts.joined += 1
    transaction.changes[wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
    label = decode_label(entry.label.value)
    cohort.joined(label.time.timestamp() - asked, entry.revision)
    cohort.first[LABELS] = min(cohort.first[LABELS], entry.label.offset)
    return _example(transaction, event, label, entry, completed_by=PREDICTIONS, replaces=None)


def take_label(transaction: Transaction, event: Label, record: Joinable) -> Joined | Refused | None:
    """Take a label in; the example that it completes or corrects, or why it cannot any more."""
    counts = transaction.progress.of(event.model)
    if transaction.passes_over(LABELS, record, counts):
        return None
    transaction.notice(LABELS, event.model, event.time.timestamp())
    key = entry_key(event.model, event.prediction_id)
    entry = transaction.entry(key) or Entry()
    earlier = entry.said if entry.label is None else decode_label(entry.label.value).label
    if earlier is not None and earlier == event.label:
        counts.duplicate_labels += 1
        return None
    if entry.over:
        return _late(transaction, event, entry, record, counts)
    if entry.prediction is None:
        _wait(transaction, key, entry, event, record)
        return None
    prediction = decode_joinable(entry.prediction.value)
    _answer(transaction, entry, prediction, event, record)
    transaction.put(key, entry)
    if earlier is not None:
        entry.revision += 1
    return _example(transaction, prediction, event, entry, completed_by=LABELS, replaces=earlier)


def _answer(
    transaction: Transaction, entry: Entry, prediction: JoinablePrediction, event: Label, record: Joinable
) -> None:
    """A label whose prediction is there: its first, or a correction."""
    counts, cohort = transaction.progress.of(event.model), transaction.counted(event.model, entry)
    if entry.label is None:
        counts.joined += 1
        counts.waiting_predictions -= 1
        cohort.joined((event.time - prediction.time).total_seconds(), 0)
    else:
        counts.corrections += 1
        cohort.corrections += 1
    entry.label = transaction.half(LABELS, PREDICTIONS, event, record, waits=False)


def _late(transaction: Transaction, event: Label, entry: Entry, record: Joinable, counts: Counts) -> Refused | None:
    counts.late_labels += 1
    transaction.counted(event.model, entry).late_labels += 1
    if record.offset < transaction.known.get(LABELS, 0):
        return None
    reason = (
        f"the label of prediction {event.prediction_id} of model {event.model} came after the horizon of its "
        "prediction, which is gone; raise label.horizon_days in the spec if labels take longer"
    )
    half = Half(record.offset, record.value, 0.0, record.timestamp_ms)
    return refused(event, half, Reason.LABEL_TOO_LATE, reason)


def _wait(transaction: Transaction, key: bytes, entry: Entry, event: Label, record: Joinable) -> None:
    """Keep a label until its prediction comes; a newer value takes the place of one that waits."""
    counts = transaction.progress.of(event.model)
    if entry.label is None:
        counts.waiting_labels += 1
        counts.label_first += 1
    else:
        counts.corrections += 1
        entry.revision += 1
        transaction.changes[wait_key(LABELS, event.model, entry.label.base, event.prediction_id)] = None
    entry.label = transaction.half(LABELS, PREDICTIONS, event, record)
    transaction.put(key, entry)


def _example(
    transaction: Transaction,
    prediction: JoinablePrediction,
    label: Label,
    entry: Entry,
    *,
    completed_by: str,
    replaces: float | None,
) -> Joined | None:
    if entry.prediction is None or entry.label is None or _was_published(transaction, entry.prediction, entry.label):
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
        trigger=TriggerOffset(completed_by, transaction.partition, offsets[completed_by]),
        derived_from=tuple(
            SourceRange(topic, transaction.partition, offset, offset) for topic, offset in sorted(offsets.items())
        ),
    )
    return Joined(prediction.model, prediction.prediction_id, entry.revision, encode(example))


def _was_published(transaction: Transaction, prediction: Half, label: Half) -> bool:
    return prediction.offset < transaction.known.get(PREDICTIONS, 0) and label.offset < transaction.known.get(LABELS, 0)
