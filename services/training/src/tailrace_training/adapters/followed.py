"""What training follows on compacted topics: specs, its own checkpoints, and the versions made of its runs.

Each holds a `follower`, which the service starts, watches and stops as one of its resources.
"""

from __future__ import annotations

from tailrace_contracts.events import Event, RevisionTrained, SpecApplied, VersionChanged
from tailrace_contracts.ranges import Log
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings


class FollowedSpecs:
    """The newest spec of each model."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._specs: dict[str, SpecApplied] = {}
        self.follower = Follower(settings, "model-specs", self._apply)

    def of(self, model: str) -> SpecApplied | None:
        """The newest spec, or None where there is none yet."""
        return self._specs.get(model)

    async def refresh(self) -> None:
        """Read what was written until now."""
        await self.follower.refresh()

    def _apply(self, event: Event | None, _record: Record) -> None:
        if isinstance(event, SpecApplied):
            self._specs[event.model] = event


class FollowedCheckpoints:
    """The newest checkpoint of each model.

    Of one run, the one that learned most counts, in whatever order they came: a process that was thought dead may
    speak once more.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._newest: dict[str, RevisionTrained] = {}
        self.follower = Follower(settings, "revision-trained", self._apply)

    async def in_log(self, log: Log) -> list[RevisionTrained]:
        """The newest checkpoint of each model that was trained on this log, as of now."""
        await self.follower.refresh()
        return [each for each in self._newest.values() if any(part.log == log for part in each.trained_on)]

    def _apply(self, event: Event | None, _record: Record) -> None:
        if not isinstance(event, RevisionTrained):
            return
        known = self._newest.get(event.model)
        if known is None or known.run_id != event.run_id or known.examples <= event.examples:
            self._newest[event.model] = event


class FollowedVersions:
    """Which revision of each continual run the registry has passed on."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._revisions: dict[str, int] = {}
        self.follower = Follower(settings, "model-versions", self._apply)

    def revision_of(self, run_id: str) -> int | None:
        """The revision passed on, or None where the registry knows no version of this run."""
        return self._revisions.get(run_id)

    def _apply(self, event: Event | None, _record: Record) -> None:
        if isinstance(event, VersionChanged) and event.continual:
            self._revisions[event.run_id] = event.revision
