"""Which events are counted in which window, and which event times are believed.

The order of events matters here: under `clock: stream` each valid event moves the watermark that the next one is
compared with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tailrace_ingestion.domain.checks import Checked, Floats, Mask
from tailrace_ingestion.domain.event_time import TimeRule
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.domain.reasons import Reason

VALUE_REASONS = frozenset({Reason.OUT_OF_LIMITS, Reason.UNSEEN_CATEGORY, Reason.MISSING_VALUE})
"""Refusals that are counted in their window: data quality is about these."""


class Judged(NamedTuple):
    """Which events are counted in which window, and which are valid; which valid ones are late, and for what watermark."""

    counted: Mask
    windows: Floats
    valid: Mask
    late: Mask
    watermarks: Floats


def judge(moments: Floats, arrived: Floats, checked: Checked, model: Model, book: SourceBook) -> Judged:
    """Believe each event's time or refuse it; count it in its window unless that is closed. Moves the watermark on."""
    rule, shape, name = model.rule, model.shape, model.shape.spec.model
    judged, valid = np.ones(len(moments), np.bool_), np.ones(len(moments), np.bool_)
    for at, refused in checked.rejected.items():
        valid[at] = False
        judged[at] = refused.code in VALUE_REASONS
    newest = book.newest.get(name, -np.inf)
    if rule.follows_stream:
        believed = _believed_in_order(moments, newest, judged, valid, rule)
        reference = _watermarks(newest, moments, valid & believed)[:-1]
    else:
        believed, reference = np.asarray(rule.believes(moments, arrived), np.bool_), arrived
    for at in np.flatnonzero(judged & ~believed).tolist():
        checked.rejected.setdefault(at, rule.refusal(float(moments[at]), float(reference[at]), name))
    valid &= believed
    after = _watermarks(newest, moments, valid)[1:]
    if after[-1] > -np.inf:
        book.newest[name] = float(after[-1])
    windows = shape.window_of(moments)
    late = judged & believed & (windows + shape.width + shape.lateness <= after)
    return Judged(judged & believed & ~late, windows, valid, late & valid, after)


def _watermarks(newest: float, moments: Floats, moving: Mask) -> Floats:
    """The newest event time before the first event and after each; only those that are `moving` it count."""
    marks: Floats = np.maximum.accumulate(np.concatenate(([newest], np.where(moving, moments, -np.inf))))
    return marks


def _believed_in_order(moments: Floats, newest: float, judged: Mask, valid: Mask, rule: TimeRule) -> Mask:
    """What the stream's own clock believes: each valid event moves the watermark that the next is compared with.

    When all are believed, one pass over the running maximum says so. Otherwise what is refused changes what the others
    are compared with, and they are taken one by one.
    """
    before = _watermarks(newest, moments, valid)[:-1]
    believed: Mask = rule.believes(moments, before) | np.isneginf(before)
    if (believed | ~judged).all():
        return believed
    for at in np.flatnonzero(judged).tolist():
        believed[at] = newest == -np.inf or bool(rule.believes(moments[at], newest))
        if believed[at] and valid[at]:
            newest = max(newest, float(moments[at]))
    return believed
