"""Whether the champion fails, or is slow: an alarm on what serving measures of it.

Each measurement brings rows answered and failed, and call times. Two shares are watched while one version is champion:
failed rows against `monitors.serving.max_error_rate`, and calls longer than `max_p99_ms` against one in a hundred, which
is what "the 99th percentile is longer" says. Neither needs a label, so an alarm sounds seconds after a bad version begins
to answer. Having sounded, an alarm is quiet until the share has kept its limit over `RECOVERED` observations.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel

from tailrace_contracts.durations import longer_than
from tailrace_contracts.events import AlertKind, AlertRaised, ArmMeasured, ServingMeasured
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ServingMonitor
from tailrace_monitoring.domain.spans import Spans
from tailrace_statistics.excess import grown, sounds

FALSE_ALARMS = 1e-7
"""One in so many measurements; of one a second that is less than one in three months, with a share just at its limit."""

RECOVERED = 1_000
"""Observations over which a share has to keep its limit before its alarm may sound again."""

SLOW_SHARE = 0.01
"""Of the calls, so many may be longer than the 99th percentile is allowed to be."""


class Stretch(BaseModel):
    """One share of one champion: the evidence against its limit, and what that evidence is from."""

    evidence: list[float] = []
    bad: int = 0
    count: int = 0
    since: datetime | None = None
    spans: Spans = Spans()
    quiet: bool = False

    def fold(self, placed: tuple[Log, int, ServingMeasured], bad: int, count: int, limit: float) -> bool:
        """Take in a measurement. Whether the alarm sounds now."""
        if self.quiet:
            return self._recover(bad, count, limit)
        if not any(self.evidence):
            self.bad, self.count, self.since, self.spans = 0, 0, placed[2].since, Spans()
        self.evidence = grown(self.evidence, count - bad, bad, limit)
        self.bad, self.count = self.bad + bad, self.count + count
        self.spans.add(placed[0], placed[1])
        return sounds(self.evidence, FALSE_ALARMS)

    def _recover(self, bad: int, count: int, limit: float) -> bool:
        self.bad, self.count = self.bad + bad, self.count + count
        if self.count >= RECOVERED:
            self.quiet, self.evidence = self.bad > limit * self.count, []
            self.bad, self.count = 0, 0
        return False

    def silence(self) -> None:
        """It has been told."""
        self.quiet, self.bad, self.count, self.evidence = True, 0, 0, []


class Told(NamedTuple):
    """What an alarm found."""

    kind: AlertKind
    statistic: str
    limit: float
    message: str
    stretch: Stretch

    def alert(self, alert_id: str, model: str, version: int, now: datetime) -> AlertRaised:
        """As the topic says it."""
        stretch = self.stretch
        return AlertRaised(
            alert_id=alert_id,
            model=model,
            kind=self.kind,
            subject=f"version {version}",
            version=version,
            statistic=self.statistic,
            value=stretch.bad / max(1, stretch.count),
            threshold=self.limit,
            since=stretch.since or now,
            message=self.message,
            derived_from=stretch.spans.ranges(),
            time=now,
        )


class Answering(BaseModel):
    """How the champion answers, and which measurements have been taken in."""

    version: int | None = None
    errors: Stretch = Stretch()
    latency: Stretch = Stretch()
    through: dict[str, int] = {}

    def follow(self, champion: int | None) -> None:
        """Another champion is watched from nothing."""
        if champion != self.version:
            self.version, self.errors, self.latency = champion, Stretch(), Stretch()

    def is_new(self, measured: ServingMeasured) -> bool:
        """Whether a measurement was not taken in before: a process says them in order, some of them twice."""
        if measured.sequence <= self.through.get(measured.process, 0):
            return False
        self.through.pop(measured.process, None)
        self.through[measured.process] = measured.sequence
        for old in list(self.through)[:-REMEMBERED]:
            del self.through[old]
        return True

    def observe(self, placed: tuple[Log, int, ServingMeasured], monitor: ServingMonitor) -> Iterator[Told]:
        """Take a measurement in; what has to be told."""
        mine = [arm for arm in placed[2].arms if arm.arm == "champion" and arm.version == self.version]
        if mine and monitor.max_error_rate is not None:
            failed, answered = sum(arm.failed for arm in mine), sum(arm.answered for arm in mine)
            if self.errors.fold(placed, failed, failed + answered, monitor.max_error_rate):
                yield self._failing(monitor.max_error_rate)
                self.errors.silence()
        if mine and monitor.max_p99_ms is not None:
            slow, timed = _slow(mine, monitor.max_p99_ms)
            if self.latency.fold(placed, slow, timed, SLOW_SHARE):
                yield self._slow(monitor.max_p99_ms)
                self.latency.silence()

    def _failing(self, limit: float) -> Told:
        found = self.errors
        message = (
            f"version {self.version} failed on {found.bad:,} of {found.count:,} rows "
            f"since {found.since:%Y-%m-%d %H:%M:%S}; the spec allows {limit:.1%}"
        )
        return Told("errors", "share of failed rows", limit, message, found)

    def _slow(self, limit_ms: float) -> Told:
        found = self.latency
        message = (
            f"{found.bad:,} of {found.count:,} calls of version {self.version} took longer than {limit_ms:g} ms "
            f"since {found.since:%Y-%m-%d %H:%M:%S}; the spec allows one in a hundred"
        )
        return Told("latency", f"share of calls longer than {limit_ms:g} ms", SLOW_SHARE, message, found)


REMEMBERED = 200
"""Processes of serving of which the newest measurement is remembered."""


def _slow(arms: list[ArmMeasured], limit_ms: float) -> tuple[int, int]:
    slow = sum(longer_than(arm.durations, limit_ms) for arm in arms)
    return slow, sum(sum(arm.durations.values()) for arm in arms)
