"""Which event times are believed, by the model's `time` setting. All moments are seconds since 1970, UTC.

`clock: wall` compares with the moment at which the broker received the record. `clock: stream` compares with the
newest event time of the same log and model; the first event sets it, and only valid events move it on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tailrace_contracts.events import utc
from tailrace_contracts.spec import EventTime
from tailrace_ingestion.domain.reasons import Reason, Rejection

DAY_SECONDS = 86_400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeRule:
    """A model's `time` setting, ready for comparison."""

    __slots__ = ("_ahead", "_behind", "_setting", "follows_stream")

    def __init__(self, setting: EventTime) -> None:
        self._setting = setting
        self._ahead = setting.max_ahead_days * DAY_SECONDS
        self._behind = setting.max_behind_days * DAY_SECONDS
        self.follows_stream = setting.clock == "stream"

    def believes(self, moment: Any, reference: Any) -> Any:
        """Whether an event time lies near enough to the reference; for numbers, or for arrays of them."""
        return (reference - self._behind <= moment) & (moment <= reference + self._ahead)

    def refusal(self, moment: float, reference: float, model: str) -> Rejection:
        """The sentence for an event time that is not believed."""
        against = "the newest event of its partition" if self.follows_stream else "its arrival"
        direction, limit = (
            ("ahead of", self._setting.max_ahead_days)
            if moment > reference
            else ("behind", self._setting.max_behind_days)
        )
        sentence = (
            f"time {_text(moment)} of an event of model {model} lies {abs(moment - reference) / DAY_SECONDS:.1f} days "
            f"{direction} {against} ({_text(reference)}), expected at most {limit:g} days"
        )
        return Rejection(Reason.TIME_OUT_OF_RANGE, sentence, model)


def moment_of(seconds: float) -> datetime:
    """Seconds since 1970 as a moment, counted in whole microseconds, so that there and back is the same moment."""
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))


def _text(seconds: float) -> str:
    return utc(moment_of(seconds).replace(microsecond=0))
