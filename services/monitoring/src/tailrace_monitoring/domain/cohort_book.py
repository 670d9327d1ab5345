"""The cohorts of one model that are in memory: the open ones, and those closed ones that were needed lately."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tailrace_contracts.events import Arm, WindowSpan
from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.arms import answers
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey, window_of
from tailrace_monitoring.domain.state import Placed

CLOSED_KEPT = 200
"""Closed cohorts beyond that many are let go of; a late label loads its cohort again."""


class CohortBook:
    """Counts answers in their cohorts. `unmeasured` are those that changed since they were last published."""

    def __init__(self, cohorts: Iterable[Cohort]) -> None:
        self._cohorts = {cohort.key: cohort for cohort in cohorts}
        self.unmeasured: set[CohortKey] = set()

    def __getitem__(self, key: CohortKey) -> Cohort:
        """The cohort, which has to be in memory."""
        return self._cohorts[key]

    def find(self, key: CohortKey) -> Cohort | None:
        """The cohort, where it is in memory."""
        return self._cohorts.get(key)

    def missing(self, batch: Iterable[Placed], spec: ModelSpec) -> set[CohortKey]:
        """The cohorts that these examples count in and that are not in memory; first, old ones make room."""
        closed = [key for key, cohort in self._cohorts.items() if cohort.closed and key not in self.unmeasured]
        for key in closed[:-CLOSED_KEPT]:
            del self._cohorts[key]
        days = spec.monitors.window_days
        wanted = {
            CohortKey(window_of(each.example.time, days).start, output.arm, output.version or 0)
            for each in batch
            for output in answers(each.example).values()
        }
        return wanted - self._cohorts.keys()

    def unknown(self, keys: Iterable[CohortKey]) -> set[CohortKey]:
        """Those of the keys that are not in memory."""
        return set(keys) - self._cohorts.keys()

    def at(self, key: CohortKey, span: WindowSpan, arm: Arm, version: int | None) -> Cohort:
        """The cohort, without answers where nothing was counted yet."""
        return self._cohorts.setdefault(key, Cohort(span=span, arm=arm, version=version))

    def take(self, cohorts: Iterable[Cohort]) -> None:
        """Hold these too."""
        self._cohorts.update((cohort.key, cohort) for cohort in cohorts)

    def count(self, placed: Placed, spec: ModelSpec) -> set[CohortKey]:
        """Count every answer of an example. Gives back the cohorts that changed."""
        span = window_of(placed.example.time, spec.monitors.window_days)
        changed = set()
        for output in answers(placed.example).values():
            key = CohortKey(span.start, output.arm, output.version or 0)
            cohort = self._cohorts.get(key)
            if cohort is None:
                cohort = self._cohorts[key] = Cohort(span=span, arm=output.arm, version=output.version)
            cohort.fold(placed.example, output, spec)
            cohort.spans.add(placed.log, placed.offset)
            changed.add(key)
        self.unmeasured |= changed
        return changed

    def close(self, watermark: datetime, lateness_days: float) -> list[Cohort]:
        """Close the cohorts whose end and lateness the watermark has passed; those, in order of time."""
        passed = watermark - timedelta(days=lateness_days)
        closing = [each for each in self._cohorts.values() if not each.closed and each.span.end <= passed]
        for cohort in closing:
            cohort.closed = True
        return sorted(closing, key=lambda each: each.key)

    def news(self) -> list[Cohort]:
        """The cohorts that are to be published, in order."""
        return [self._cohorts[key] for key in sorted(self.unmeasured)]
