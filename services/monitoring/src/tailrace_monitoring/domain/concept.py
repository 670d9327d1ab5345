"""Concept drift: an alarm on the champion's stream of errors (0 right, 1 wrong; of a regression anything in between).

A detector says *that* the error rate has risen. It is of a library with native state that nobody can store as plain
data, so the alarm keeps the errors themselves, since its last reset, and a restart builds the detector again by
replaying them: the same bits in the same order give the same detector. To bound the replay, at `LONGEST` errors the
alarm forgets all but the newest `KEPT` and replays those on the spot: a process that lives on and one that restarts
do exactly the same, so both raise the same alerts. A rise that is found before there are enough errors to judge is
remembered, and judged when there are.

*Since when* is another question, which a detector's own window answers badly (ADWIN drops whole buckets). It is
answered by the most likely single change point of a Bernoulli sequence: the split that maximises the likelihood ratio
(Hinkley 1970, "Inference about the change-point from cumulative sum tests", for binary data). For errors in between it
is a quasi-likelihood: it places the change by the means alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

LONGEST = 8_000
"""Errors kept at most."""

KEPT = 4_000
"""Errors kept when that many have come together."""


class Detector(Protocol):
    """A change detector for errors between 0 and 1."""

    def update(self, error: float) -> bool:
        """Take one error in; True when the error rate has just been found to have risen."""
        ...


DetectorFactory = Callable[[], Detector]


BITS = frozenset({"ddm", "hddm", "hddm-a", "hddm-w"})
"""Detectors that take nothing but 0 and 1."""


class Scaled:
    """A detector of a regression's errors, on a scale on which what is made for error rates has something to see.

    The loss of a regression mostly lies close to 0, a part of the scale that the spec calls as bad as any. So an error e
    becomes e / (e + s), with s the median of the first `count` errors: a typical error is 1/2. Of a detector of bits it
    becomes 1 where it is larger than nine of ten of those were. Until there are so many nothing is found.
    """

    def __init__(self, detector: Detector, kind: str, count: int) -> None:
        self._detector = detector
        self._bits = kind in BITS
        self._count = count
        self._first: list[float] = []
        self._typical = self._large = 0.0

    def update(self, error: float) -> bool:
        """Take one error in; True when the errors have just been found to have risen."""
        if len(self._first) >= self._count:
            return self._detector.update(self._scaled(error))
        self._first.append(error)
        if len(self._first) < self._count:
            return False
        ordered = sorted(self._first)
        self._typical, self._large = ordered[len(ordered) // 2] or 1e-12, ordered[len(ordered) * 9 // 10]
        found = [self._detector.update(self._scaled(each)) for each in self._first]
        return any(found)

    def _scaled(self, error: float) -> float:
        return float(error > self._large) if self._bits else error / (error + self._typical)


@dataclass(frozen=True, slots=True)
class Alarm:
    """The error rate rose from `before` to `after` at example number `since`; found at example number `at`."""

    since: int
    at: int
    before: float
    after: float


def _log_likelihood(errors: float, count: int) -> float:
    """Of `errors` in `count` Bernoulli trials at the most likely rate."""
    if not 0 < errors < count:
        return 0.0
    rate = errors / count
    return errors * math.log(rate) + (count - errors) * math.log1p(-rate)


def change_point(errors: Sequence[float]) -> int:
    """The place in `errors` (1 to n-1) at which the error rate most likely rose; 0 where it nowhere rises."""
    running = list(accumulate(errors))
    total, count = running[-1], len(errors)
    best, place = 0.0, 0
    whole = _log_likelihood(total, count)
    for at in range(1, count):
        first = running[at - 1]
        if (total - first) * at <= first * (count - at):
            continue
        gain = _log_likelihood(first, at) + _log_likelihood(total - first, count - at) - whole
        if gain > best:
            best, place = gain, at
    return place


class ErrorAlarm:
    """Watches one champion. Example numbers are the model's own count of examples."""

    def __init__(self, make: DetectorFactory, min_examples: int) -> None:
        self._make = make
        self._min_examples = min_examples
        self._numbers: list[int] = []
        self._errors: list[float] = []
        self._detector = make()
        self._risen = False

    def replay(self, errors: Iterable[tuple[int, float]]) -> None:
        """Become what one gets by observing these (number, error) pairs, whatever alarms that raised at the time."""
        self._detector, self._risen = self._make(), False
        pairs = list(errors)
        self._numbers = [number for number, _ in pairs]
        self._errors = [error for _, error in pairs]
        for error in self._errors:
            self._risen |= self._detector.update(error)

    @property
    def start(self) -> int | None:
        """The number of the oldest error kept; None before the first. A replay starts from it."""
        return self._numbers[0] if self._numbers else None

    def observe(self, number: int, error: float) -> Alarm | None:
        """Take in the champion's error on one example. An alarm starts the watch anew."""
        self._numbers.append(number)
        self._errors.append(error)
        if len(self._errors) >= LONGEST:
            self.replay(zip(self._numbers[-KEPT:], self._errors[-KEPT:], strict=True))
            return None
        self._risen |= self._detector.update(error)
        if not self._risen or len(self._errors) < self._min_examples:
            return None
        place, self._risen = change_point(self._errors), False
        if not place:
            return None
        alarm = self._alarm(place, number)
        self.replay(())
        return alarm

    def _alarm(self, place: int, at: int) -> Alarm:
        before, after = self._errors[:place], self._errors[place:]
        return Alarm(
            since=self._numbers[place],
            at=at,
            before=sum(before) / len(before),
            after=sum(after) / len(after),
        )
