"""Why an event is refused: a closed list of codes, and the sentence that goes with each case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The codes under which `validate` parks records; the last two are the join's."""

    BROKEN_JSON = "broken-json"
    NOT_AN_EVENT = "not-an-event"
    WRONG_KEY = "wrong-key"
    UNKNOWN_MODEL = "unknown-model"
    MISSING_FEATURE = "missing-feature"
    EXTRA_FEATURE = "extra-feature"
    WRONG_TYPE = "wrong-type"
    NOT_FINITE = "not-finite"
    OUT_OF_LIMITS = "out-of-limits"
    UNSEEN_CATEGORY = "unseen-category"
    MISSING_VALUE = "missing-value"
    TIME_OUT_OF_RANGE = "time-out-of-range"
    UNKNOWN_CLASS = "unknown-class"
    LABEL_OUT_OF_LIMITS = "label-out-of-limits"
    WRONG_PREDICTION = "wrong-prediction"
    LABEL_TOO_LATE = "label-too-late"
    PREDICTION_NEVER_CAME = "prediction-never-came"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refusal: the code, and one sentence that says what, where and what was expected."""

    code: Reason
    sentence: str
    model: str | None = None
