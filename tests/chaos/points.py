"""The named points: for each role the moments at which a death, or a long sleep, could lose or double something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from tailrace_ingestion.settings import IngestionSettings
from tests.chaos.worker import Point

ROLES = ("validate", "aggregate", "join", "archive")
OUTPUT = {"validate": "predictions", "aggregate": "feature-statistics", "join": "labelled-examples"}

BEFORE_COMMIT, BEFORE_ACK = "after effect before commit", "after produce before ack"
IN_RECOVERY, IN_REBALANCE, ZOMBIE = "in recovery", "in rebalance", "zombie"


def points(settings: IngestionSettings, role: str) -> Mapping[str, Point]:
    """The role's points by name."""
    return dict(_points(settings, role))


def _points(settings: IngestionSettings, role: str) -> Iterator[tuple[str, Point]]:
    if role == "gateway":
        yield BEFORE_ACK, Point("ProduceRequest", settings.topic("prediction-events"), "after", 2)
        return
    group = f"{settings.topic_prefix}ingestion-{role}"
    yield BEFORE_COMMIT, Point("OffsetCommitRequest", group, "before", 2)
    yield IN_REBALANCE, Point("SyncGroupRequest", group, "before")
    yield IN_RECOVERY, _recovery(settings, role, group)
    if role in OUTPUT:
        topic = settings.topic(OUTPUT[role])
        yield BEFORE_ACK, Point("ProduceRequest", topic, "after", 3)
        yield ZOMBIE, _asleep("ProduceRequest", topic)
    else:
        yield ZOMBIE, _asleep("OffsetCommitRequest", group)
    if role == "validate":
        partials = settings.topic("window-partials")
        yield f"{BEFORE_ACK} of partials", Point("ProduceRequest", partials, "after", 2)
        yield f"{ZOMBIE} with partials", _asleep("ProduceRequest", partials)


def _recovery(settings: IngestionSettings, role: str, group: str) -> Point:
    """Validate reads its partials, aggregate its changelogs, the others the group's offsets."""
    if role == "validate":
        return Point("FetchRequest", settings.topic("window-partials"), "after")
    if role == "aggregate":
        return Point("FetchRequest", f"{group}-partials-changelog", "after")
    return Point("OffsetFetchRequest", group, "after")


def _asleep(request: Literal["ProduceRequest", "OffsetCommitRequest"], about: str) -> Point:
    """Asleep with a request in hand, which is written when the process wakes."""
    return Point(request, about, "before", 3, "stop")
