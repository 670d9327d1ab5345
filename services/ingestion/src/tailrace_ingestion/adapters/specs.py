"""The specs, followed on `model-specs` and compiled as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tailrace_contracts.events import Event, SpecApplied
from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion.domain.checks import CompiledSpec
from tailrace_ingestion.domain.event_time import TimeRule
from tailrace_ingestion.domain.model import Model, Shape
from tailrace_runtime.follower import Follower
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings


class FollowedSpecs:
    """Every process reads all specs; a resource of the service."""

    def __init__(
        self, settings: KafkaSettings, refresh_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._models: dict[str, Model] = {}
        self._refresh_seconds = refresh_seconds
        self._monotonic = monotonic
        self._refreshed = -refresh_seconds
        self._follower = Follower(settings, "model-specs", self._apply)

    def models(self) -> Mapping[str, Model]:
        """Every model by name."""
        return self._models

    async def refresh(self) -> None:
        """Read to the topic's present end, at most once in `refresh_seconds`."""
        if self._monotonic() - self._refreshed < self._refresh_seconds:
            return
        await self._follower.refresh()
        self._refreshed = self._monotonic()

    async def start(self) -> None:
        """Read all specs."""
        await self._follower.start()

    async def stop(self) -> None:
        """Follow no longer."""
        await self._follower.stop()

    async def wait(self) -> None:
        """Raise what made the following fail."""
        await self._follower.wait()

    def bind(self, metrics: Metrics) -> None:
        """Report to these metrics."""
        self._follower.bind(metrics)

    def _apply(self, event: Event | None, record: Record) -> None:
        if isinstance(event, SpecApplied):
            self._models[event.model] = compiled(event.spec, event.spec_revision)
        elif event is None and record.key is not None:
            self._models.pop(record.key.decode(), None)


def compiled(spec: ModelSpec, revision: int) -> Model:
    """A revision of a spec, ready for the checks."""
    return Model(CompiledSpec(spec, revision), TimeRule(spec.time), Shape(spec, revision))
