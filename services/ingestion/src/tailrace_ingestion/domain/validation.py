"""Decoded events of one model through its checks: spec, classes, event time. Pure: what is unknown is handed in.

What is wrong is refused with a reason; the rows of predictions that count go to the log's book. The order of events
matters to the event time alone (judging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from tailrace_ingestion.domain import wire
from tailrace_ingestion.domain.answers import served_columns, shadow_rows
from tailrace_ingestion.domain.batch import Batch
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.judging import judge
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.domain.rows import Rows

_SHADOWS = attrgetter("shadows")


def check_predictions(batch: Batch[wire.Prediction], positions: Sequence[int], model: Model, book: SourceBook) -> None:
    """Check the events of one model; what is to be counted goes to the book."""
    events = [event for at in positions if (event := batch.events[at]) is not None]
    checked = model.compiled.check(events)
    for at, change in checked.changed.items():
        if at not in checked.rejected:
            batch.changed.setdefault(positions[at], {}).update(change)
    moments = np.array([event.time.timestamp() for event in events])
    arrived = np.array([batch.arrivals.timestamps_ms[at] for at in positions]) / 1000
    judged = judge(moments, arrived, checked, model, book)
    batch.refused.update({positions[at]: why for at, why in checked.rejected.items()})
    offsets = np.array([batch.arrivals.offsets[at] for at in positions], dtype=np.int64)
    if judged.late.any():
        book.count_late(model.shape, offsets[judged.late], judged.watermarks[judged.late])
    if judged.counted.any():
        rows = np.flatnonzero(judged.counted)
        counted = events if len(rows) == len(events) else [events[at] for at in rows.tolist()]
        places = offsets[rows], judged.windows[rows], judged.valid[rows]
        book.add(Rows(model.shape, *places, *served_columns(counted, checked.columns, rows, model.compiled.spec.label)))
        if any(map(_SHADOWS, counted)):
            book.add(shadow_rows(model.shape, counted, *places))


def check_labels(
    batch: Batch[wire.Label],
    positions: Sequence[int],
    model: Model,
    newest: dict[str, float],
) -> None:
    """Check the labels of one model. `newest` are the log's watermarks: labels may be far behind their predictions."""
    name, rule = model.shape.spec.model, model.rule
    reference = newest.get(name)
    for at in positions:
        label = batch.events[at]
        if label is None:
            continue
        moment, arrived = label.time.timestamp(), batch.arrivals.timestamps_ms[at] / 1000
        against = reference if rule.follows_stream else arrived
        refused = model.compiled.check_label(label.label)
        if refused is None and against is not None and not rule.believes(moment, against):
            refused = rule.refusal(moment, against, name)
        if refused is not None:
            batch.refused[at] = refused
        else:
            reference = moment if reference is None else max(reference, moment)
    if reference is not None:
        newest[name] = reference
