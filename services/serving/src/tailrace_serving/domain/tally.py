"""What became of a model's calls, counted until it is told.

Every version that answers is counted in its arm: rows answered, rows that it failed on, and how long calls took. Only
calls with one row alone are timed, so that arms can be held against each other: a served version is asked row by row or
together with other requests' rows, and the others in batches. No arm is timed more often than every `TIMED_EVERY_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace_contracts.durations import bucket_of
from tailrace_contracts.events import Arm

TIMED_EVERY_SECONDS = 0.02
"""Of an arm a row is asked alone, to be timed, at most this often."""


@dataclass(slots=True)
class Counts:
    """One version in one arm."""

    answered: int = 0
    failed: int = 0
    durations: dict[int, int] = field(default_factory=dict)


class Tally:
    """One model's calls since they were told last. It outlives the arms that it counts."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Arm, int], Counts] = {}
        self._timed_at: dict[tuple[Arm, int], float] = {}

    def answered(self, arm: Arm, version: int, rows: int) -> None:
        """Rows were answered."""
        self._of(arm, version).answered += rows

    def timed(self, arm: Arm, version: int, seconds: float) -> None:
        """A call with one row took so long."""
        durations, bucket = self._of(arm, version).durations, bucket_of(seconds)
        durations[bucket] = durations.get(bucket, 0) + 1

    def failed(self, arm: Arm, version: int, rows: int) -> None:
        """The version failed on these rows."""
        self._of(arm, version).failed += rows

    def is_due(self, arm: Arm, version: int, now: float) -> bool:
        """Whether a row should be asked alone, to be timed; if so, the next one should not for a while."""
        key = (arm, version)
        if now - self._timed_at.get(key, -math.inf) < TIMED_EVERY_SECONDS:
            return False
        self._timed_at[key] = now
        return True

    def take(self) -> Mapping[tuple[Arm, int], Counts]:
        """What was counted; it is counted from nothing again. Arms that were not asked are forgotten."""
        taken, self._counts = self._counts, {}
        self._timed_at = {key: at for key, at in self._timed_at.items() if key in taken}
        return taken

    def _of(self, arm: Arm, version: int) -> Counts:
        key = (arm, version)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts()
        return counts
