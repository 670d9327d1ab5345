"""The report of a demo: what was counted, what it adds up to, and whether the loop closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tailrace_cli.demo.story import Story
from tailrace_contracts.events import DeploymentChanged, GroupRates
from tailrace_contracts.ranges import LogRanges


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class EventCounts(_Part):
    """Prediction events. published = valid + dead_lettered."""

    published: int
    valid: int
    dead_lettered: int


class LabelCounts(_Part):
    """Label events. joined = labels of valid predictions."""

    published: int
    joined: int
    corrected: int = 0
    dead_lettered: int = 0


class VersionLine(_Part):
    """One version: who learned it, from what, and how it did on the played stream, in whichever arm."""

    version: int
    learner: str
    role: str
    revision: int
    accuracy: float | None
    answered: int
    trained_on: LogRanges
    examples: int


class AlertLine(_Part):
    """One alert."""

    kind: str
    subject: str
    since: datetime
    message: str
    led_to: str


class RetrainingLine(_Part):
    """One finished batch training after the first."""

    run_id: str
    reason: str
    trained_on: LogRanges


class ChampionLine(_Part):
    """One change of champion after the first, with its evidence."""

    from_version: int | None
    to_version: int | None
    reason: str
    evidence: tuple[str, ...]


class Accuracies(_Part):
    """Accuracy on the played stream: as served, as version 1 would have scored, as river alone would have."""

    served: float | None
    first_version: float | None = None
    river_alone: float | None = None


class GroupLine(_Part):
    """One protected group over the whole stream."""

    attribute: str
    group: str
    examples: int
    selection_rate: float | None
    true_positive_rate: float | None
    false_positive_rate: float | None
    accuracy: float | None


class Report(_Part):
    """What a demo did. `problems` is empty when the loop closed and every count adds up."""

    demo: str
    model: str
    seconds: float
    played_seconds: float
    events_per_second: float
    events: EventCounts
    labels: LabelCounts
    examples_learned: int
    out_of_limits: dict[str, int]
    versions: tuple[VersionLine, ...] = ()
    alerts: tuple[AlertLine, ...] = ()
    retrainings: tuple[RetrainingLine, ...] = ()
    promotions: tuple[ChampionLine, ...] = ()
    rollbacks: tuple[ChampionLine, ...] = ()
    accuracy: Accuracies
    served_by: dict[str, int] = {}
    windows: int = 0
    drift: dict[str, float] = Field(default={}, description="largest distance to the reference, by feature")
    cohorts: tuple[dict[str, Any], ...] = ()
    groups: tuple[GroupLine, ...] = ()
    problems: tuple[str, ...] = ()


def versions(story: Story) -> tuple[VersionLine, ...]:
    """A line for each version."""
    return tuple(
        VersionLine(
            version=number,
            learner=version.learner,
            role=version.stage,
            revision=version.revision,
            accuracy=story.scores[number].accuracy if number in story.scores else None,
            answered=story.scores[number].total if number in story.scores else 0,
            trained_on=version.lineage.trained_on,
            examples=version.lineage.examples,
        )
        for number, version in sorted(story.versions.items())
    )


def alerts(story: Story) -> tuple[AlertLine, ...]:
    """A line for each alert, in order."""
    return tuple(
        AlertLine(kind=each.kind, subject=each.subject, since=each.since, message=each.message, led_to=each.led_to)
        for each in story.alerts.values()
    )


def retrainings(story: Story) -> tuple[RetrainingLine, ...]:
    """A line for each finished batch training after the first."""
    return tuple(
        RetrainingLine(
            run_id=each.run_id,
            reason=story.requests[each.run_id].reason if each.run_id in story.requests else "",
            trained_on=_trained_on(story, each.run_id),
        )
        for each in story.retrainings
    )


def _trained_on(story: Story, run_id: str) -> LogRanges:
    return next((each.lineage.trained_on for each in story.versions.values() if each.run_id == run_id), LogRanges())


def champions(story: Story, changes: Sequence[DeploymentChanged]) -> tuple[ChampionLine, ...]:
    """A line for each of these changes of champion: the story's promotions, or its rollbacks."""
    before = {new.sequence: old.champion for old, new in zip(story.deployments, story.deployments[1:], strict=False)}
    return tuple(
        ChampionLine(
            from_version=before[each.sequence],
            to_version=each.champion,
            reason=each.reason,
            evidence=tuple(item.summary for item in each.evidence),
        )
        for each in changes
    )


def out_of_limits(story: Story) -> dict[str, int]:
    """Values outside their limits, by feature, as the windows counted them."""
    counts: dict[str, int] = {}
    for window in story.windows.values():
        for name, column in window.columns.items():
            beyond = column.out_of_limits if column.type == "numerical" else column.unseen
            if beyond:
                counts[name] = counts.get(name, 0) + beyond
    return counts


def pooled(rates: list[GroupRates]) -> tuple[GroupLine, ...]:
    """Groups over all cohorts: rates weighted by the cohorts' examples."""
    keys = sorted({(each.attribute, each.group) for each in rates})
    return tuple(
        _pool(attribute, group, [r for r in rates if (r.attribute, r.group) == (attribute, group)])
        for attribute, group in keys
    )


def _pool(attribute: str, group: str, rates: list[GroupRates]) -> GroupLine:
    def mean(name: str) -> float | None:
        weighted = [(getattr(each, name), each.examples) for each in rates if getattr(each, name) is not None]
        total = sum(weight for _, weight in weighted)
        return round(sum(value * weight for value, weight in weighted) / total, 4) if total else None

    return GroupLine(
        attribute=attribute,
        group=group,
        examples=sum(each.examples for each in rates),
        selection_rate=mean("selection_rate"),
        true_positive_rate=mean("true_positive_rate"),
        false_positive_rate=mean("false_positive_rate"),
        accuracy=mean("accuracy"),
    )


def count_problems(events: EventCounts, labels: LabelCounts, valid_labelled: int) -> list[str]:
    """What does not add up, one sentence each."""
    problems = []
    if events.published != events.valid + events.dead_lettered:
        problems.append(
            f"events do not add up: {events.published} published, {events.valid} valid, {events.dead_lettered} dead-lettered"
        )
    if labels.joined != valid_labelled:
        problems.append(
            f"labels do not add up: {valid_labelled} belong to valid predictions, {labels.joined} were joined"
        )
    return problems


def loop_problems(story: Story) -> list[str]:
    """Why the loop has not closed, one sentence each."""
    problems = []
    if not story.retrainings:
        problems.append("no batch retraining finished")
    if not any(each.evidence for each in story.promotions):
        problems.append("no candidate was promoted on evidence")
    return problems
