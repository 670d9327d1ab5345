"""Alerts, and the mutes that keep them quiet."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import AlertKind, Identifier
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import Name


class AlertRaised(Event):
    """Something moved: what, by how much, since when, from which log ranges, and what it led to."""

    type: Literal["alert-raised"] = "alert-raised"
    alert_id: Identifier
    model: Name
    kind: AlertKind
    subject: str = Field(description="the feature, version or group that moved")
    version: int | None = Field(
        default=None, description="the version whose answers it is about, where it is about one"
    )
    statistic: str
    value: float
    threshold: float
    since: AwareDatetime
    message: str
    led_to: str = Field(default="", description="the run of the training that it asks for")
    muted_by: str = Field(default="", description="who muted it; a muted alert asks for nothing and calls nobody")
    muted_until: AwareDatetime | None = None
    mute_id: str = ""
    deployment: int | None = Field(
        default=None, ge=1, description="sequence of the newest deployment that was known when it was raised"
    )
    kept_by: tuple[int, ...] = Field(
        default=(),
        description="versions that keep the limit on the same examples, where it is about a champion's limit",
    )
    estimated: bool = Field(default=False, description="it was foretold, before labels came")
    derived_from: LogRanges
    time: AwareDatetime


class Mute(Value):
    """Alerts of a model that nobody wants to hear of for a while: who answers for that, why, and until when."""

    mute_id: Identifier
    kinds: tuple[AlertKind, ...] = Field(default=(), description="of these kinds; none: of every kind")
    subjects: tuple[str, ...] = Field(
        default=(), description="about these subjects, as shell patterns (`RAC1P*`); none: about every subject"
    )
    owner: str
    reason: str
    muted_by: str
    since: AwareDatetime
    until: AwareDatetime

    def covers(self, kind: str, subject: str, moment: datetime) -> bool:
        """Whether an alert at this moment is muted."""
        return (
            self.since <= moment < self.until
            and (not self.kinds or kind in self.kinds)
            and (not self.subjects or any(fnmatchcase(subject, pattern) for pattern in self.subjects))
        )


class MutesChanged(Event):
    """All mutes of a model as they now stand (compacted by model); those that have ended go with the next change."""

    type: Literal["mutes-changed"] = "mutes-changed"
    model: Name
    sequence: int = Field(ge=1)
    mutes: tuple[Mute, ...] = ()
    time: AwareDatetime
