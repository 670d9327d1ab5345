"""What happens to one model while a demo plays, as told by the topics.

`Story` is plain state with one verb, `tell`: every event of the model, in the order of its log. Events are counted by
identity, so a record that a service forwards twice after a crash counts once, as it does in the loop itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tailrace_contracts.events import (
    AlertRaised,
    ArmOutput,
    ArmsCompared,
    AuditRecorded,
    DeploymentChanged,
    Event,
    EventParked,
    ExampleLabelled,
    PerformanceEstimated,
    PerformanceMeasured,
    RevisionTrained,
    TrainingProgressed,
    TrainingRequested,
    VersionChanged,
    WindowSummarised,
)

TOPICS = (
    "predictions",
    "labels",
    "labelled-examples",
    "feature-statistics",
    "training-requested",
    "training-progressed",
    "revision-trained",
    "model-versions",
    "deployments",
    "evaluations",
    "alerts",
    "audit-entries",
    "dead-letters",
)
"""Topics that a demo listens to. The first two are only counted, by key."""


@dataclass
class Score:
    """Right answers out of all."""

    right: int = 0
    total: int = 0

    def add(self, *, right: bool) -> None:
        """Count one answer."""
        self.right += right
        self.total += 1

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None before the first."""
        return self.right / self.total if self.total else None


@dataclass
class Story:
    """One model's facts, newest first where only the newest counts.

    `is_live` tells by prediction id whether an example belongs to the played stream (history does not score).
    """

    model: str
    is_live: Callable[[str], bool]
    valid: set[bytes] = field(default_factory=set)
    labels_valid: set[bytes] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    corrections: int = 0
    served: Score = field(default_factory=Score)
    recent: Score = field(default_factory=Score)
    scores: dict[int, Score] = field(default_factory=dict)
    served_by: Counter[str] = field(default_factory=Counter)
    versions: dict[int, VersionChanged] = field(default_factory=dict)
    deployment: DeploymentChanged | None = None
    deployments: list[DeploymentChanged] = field(default_factory=list)
    learned: int = 0
    revision: int = 0
    alerts: dict[str, AlertRaised] = field(default_factory=dict)
    requests: dict[str, TrainingRequested] = field(default_factory=dict)
    trainings: dict[str, TrainingProgressed] = field(default_factory=dict)
    comparisons: dict[int, ArmsCompared] = field(default_factory=dict)
    cohorts: dict[tuple[str, str, int | None], PerformanceMeasured] = field(default_factory=dict)
    estimates: dict[tuple[str, str, int | None], PerformanceEstimated] = field(default_factory=dict)
    windows: dict[str, WindowSummarised] = field(default_factory=dict)
    audit: list[AuditRecorded] = field(default_factory=list)
    parked: dict[tuple[str, int, int], EventParked] = field(default_factory=dict)

    def tell(self, event: Event) -> None:  # noqa: C901, PLR0912 - one short branch for each kind of event
        """Take in one event of this model; events of other models are passed over."""
        if getattr(event, "model", None) != self.model:
            return
        match event:
            case ExampleLabelled():
                self._example(event)
            case DeploymentChanged():
                self.deployment = event
                self.deployments.append(event)
            case VersionChanged():
                self.versions[event.version] = event
            case RevisionTrained():
                self.learned, self.revision = event.examples, event.revision
            case AlertRaised():
                self.alerts[event.alert_id] = event
            case TrainingRequested():
                self.requests[event.run_id] = event
            case TrainingProgressed():
                self.trainings[event.run_id] = event
            case ArmsCompared():
                self.comparisons[event.candidate] = event
            case PerformanceMeasured():
                self.cohorts[event.cohort.start.isoformat(), event.arm, event.version] = event
            case PerformanceEstimated():
                self.estimates.setdefault((event.cohort.start.isoformat(), event.arm, event.version), event)
            case WindowSummarised():
                self.windows[event.window.start.isoformat()] = event
            case AuditRecorded():
                self.audit.append(event)
            case EventParked():
                self.parked[event.topic, event.partition, event.offset] = event
            case _:
                pass

    def _example(self, example: ExampleLabelled) -> None:
        if example.label_revision:
            self.corrections += 1
            return
        if example.prediction_id in self.joined:
            return
        self.joined.add(example.prediction_id)
        if not self.is_live(example.prediction_id):
            return
        for output in (example.served, *example.shadows):
            if output is not None and output.version is not None:
                self._score(output.version, output, example.label)
        if example.served is not None:
            self._served(example.served, example.label)

    def _score(self, version: int, output: ArmOutput, label: float) -> None:
        self.scores.setdefault(version, Score()).add(right=output.prediction == label)

    def _served(self, output: ArmOutput, label: float) -> None:
        right = output.prediction == label
        self.served.add(right=right)
        self.served_by[output.arm if output.version is None else f"version {output.version}"] += 1
        if self.recent.total >= 1_000:
            self.recent = Score()
        self.recent.add(right=right)

    def parked_from(self, topic: str) -> list[EventParked]:
        """What of a topic was parked."""
        return [each for each in self.parked.values() if each.topic == topic]

    @property
    def training(self) -> bool:
        """Whether a batch training is under way: asked for, and neither failed nor in a deployment."""
        failed = {each.run_id for each in self.trainings.values() if each.stage == "failed"}
        tried = {each.run_id for each in self.versions.values() if each.stage != "registered"}
        return bool(set(self.requests) - failed - tried)

    @property
    def promotions(self) -> list[DeploymentChanged]:
        """Deployments in which another version became champion, on evidence, after the first."""
        return [new for new in self._changes() if not new.returned]

    @property
    def rollbacks(self) -> list[DeploymentChanged]:
        """Deployments in which an earlier champion returned."""
        return [new for new in self._changes() if new.returned]

    def _changes(self) -> list[DeploymentChanged]:
        pairs = zip(self.deployments, self.deployments[1:], strict=False)
        return [new for old, new in pairs if old.champion is not None and new.champion != old.champion]

    @property
    def retrainings(self) -> list[TrainingProgressed]:
        """Finished batch trainings after the first."""
        finished = [each for each in self.trainings.values() if each.stage == "finished"]
        return finished[1:]
