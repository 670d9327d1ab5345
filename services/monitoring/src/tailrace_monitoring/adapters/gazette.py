"""What the other services announce, from followers of their topics: in memory, whole, and in every process."""

from __future__ import annotations

from collections import defaultdict

from tailrace_contracts.events import (
    DeploymentChanged,
    Event,
    MutesChanged,
    SpecApplied,
    TrainingProgressed,
    VersionChanged,
)
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings

TOPICS = ("model-specs", "model-versions", "deployments", "training-progressed", "alert-mutes")


class Announced:
    """What has been said about all models. Feed it the followers' events."""

    def __init__(self) -> None:
        self._specs: dict[str, SpecApplied] = {}
        self._versions: defaultdict[str, dict[int, VersionChanged]] = defaultdict(dict)
        self._deployments: dict[str, DeploymentChanged] = {}
        self._mutes: dict[str, MutesChanged] = {}
        self._finished: defaultdict[str, set[str]] = defaultdict(set)
        self._failed: defaultdict[str, set[str]] = defaultdict(set)

    def hear(self, event: Event | None, record: Record) -> None:
        """One announcement; a later one about the same thing replaces it."""
        del record
        match event:
            case SpecApplied():
                self._specs[event.model] = event
            case VersionChanged():
                self._versions[event.model][event.version] = event
            case DeploymentChanged():
                self._deployments[event.model] = event
            case MutesChanged():
                self._mutes[event.model] = event
            case TrainingProgressed(stage="finished"):
                self._finished[event.model].add(event.run_id)
            case TrainingProgressed(stage="failed"):
                self._failed[event.model].add(event.run_id)
            case _:
                return

    def knows(self, name: str) -> bool:
        """Whether there is a spec of this model."""
        return name in self._specs

    def names(self) -> list[str]:
        """The models of which there is a spec."""
        return list(self._specs)

    def knowledge(self, name: str) -> Knowledge:
        """The model as it stands. Raises KeyError where there is no spec of it."""
        applied, versions = self._specs[name], self._versions[name]
        finished = frozenset(self._finished[name])
        registered = frozenset(version.run_id for version in versions.values())
        return Knowledge(
            spec=applied.spec,
            spec_revision=applied.spec_revision,
            deployment=self._deployments.get(name),
            versions=dict(versions),
            runs_over=finished | registered | frozenset(self._failed[name]),
            runs_finished=finished,
            mutes=self._mutes[name].mutes if name in self._mutes else (),
        )


class FollowedGazette:
    """A gazette on the real topics: started and stopped with the service, and supervised by it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._announced = Announced()
        self.followers = tuple(Follower(settings, topic, self._announced.hear) for topic in TOPICS)

    async def model(self, name: str) -> Knowledge | None:
        """The model as it stands; an unknown one is looked for once more at the end of `model-specs`."""
        if not self._announced.knows(name):
            await self.followers[0].refresh()
        return self._announced.knowledge(name) if self._announced.knows(name) else None

    def names(self) -> list[str]:
        """The models of which there is a spec."""
        return self._announced.names()
