"""Alerts and mutes as the topics tell them: what moved, what it led to, and what nobody wants to hear of for a while."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from tailrace_cli.connection import CommandError, Connection
from tailrace_contracts.events import (
    AlertKind,
    AlertRaised,
    Event,
    Mute,
    MutesChanged,
    TrainingProgressed,
    TrainingRequested,
    VersionChanged,
)
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Record

KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
TOPICS = ("alerts", "alert-mutes", "training-requested", "training-progressed", "model-versions")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass
class Told:
    """What the topics have told."""

    alerts: list[AlertRaised] = field(default_factory=list)
    muting: dict[str, MutesChanged] = field(default_factory=dict)
    trainings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, VersionChanged] = field(default_factory=dict)

    def hear(self, event: Event | None, record: Record) -> None:
        """Take in one event."""
        del record
        match event:
            case AlertRaised():
                self.alerts.append(event)
            case MutesChanged():
                self.muting[event.model] = event
            case TrainingRequested():
                self.trainings.setdefault(event.run_id, "requested")
            case TrainingProgressed():
                self.trainings[event.run_id] = event.stage
            case VersionChanged():
                self.versions[event.run_id] = event
            case _:
                pass

    def led_to(self, alert: AlertRaised) -> str:
        """What became of an alert by now, in a few words."""
        if alert.muted_by:
            return f"muted by {alert.muted_by}"
        version = self.versions.get(alert.led_to)
        if version is not None:
            return f"version {version.version} ({version.stage})"
        return f"training {self.trainings.get(alert.led_to, 'awaited')}" if alert.led_to else ""

    def mutes(self, model: str | None, now: datetime) -> Iterator[tuple[str, Mute]]:
        """The mutes in force, by model."""
        for name, changed in sorted(self.muting.items()):
            yield from ((name, mute) for mute in changed.mutes if mute.until > now and model in {None, name})


async def read(connection: Connection) -> Told:
    """Everything that the topics say now, read to their ends."""
    told = Told()
    followers = [Follower(connection.kafka, topic, told.hear) for topic in TOPICS]
    try:
        await asyncio.gather(*(follower.start() for follower in followers))
    finally:
        await asyncio.gather(*(follower.stop() for follower in followers))
    return told


def alert_row(alert: AlertRaised, told: Told) -> dict[str, Any]:
    """An alert in a table."""
    return {
        "time": f"{alert.time:%Y-%m-%d %H:%M:%S}",
        "model": alert.model,
        "kind": alert.kind,
        "subject": alert.subject,
        "since": f"{alert.since:%Y-%m-%d}",
        "led_to": told.led_to(alert),
        "message": alert.message,
    }


def alert_document(alert: AlertRaised, told: Told) -> dict[str, Any]:
    """An alert whole, with what became of it."""
    version = told.versions.get(alert.led_to)
    return alert.model_dump(mode="json") | {
        "outcome": told.led_to(alert),
        "version": version.version if version else None,
        "version_stage": version.stage if version else None,
    }


def mute_row(model: str, mute: Mute) -> dict[str, Any]:
    """A mute in a table."""
    return {
        "model": model,
        "mute": mute.mute_id,
        "kinds": ", ".join(mute.kinds) or "every kind",
        "subjects": ", ".join(mute.subjects) or "everything",
        "until": f"{mute.until:%Y-%m-%d %H:%M}",
        "owner": mute.owner,
        "reason": mute.reason,
    }


def kinds_of(words: list[str]) -> tuple[AlertKind, ...]:
    """The kinds that were named. Raises CommandError for one that there is not."""
    wrong = [word for word in words if word not in KINDS]
    if wrong:
        msg = f"--kind: there are no {wrong[0]} alerts; the kinds are {', '.join(KINDS)}"
        raise CommandError(msg)
    return tuple(kind for kind in KINDS if kind in words)


def until_of(text: str, now: datetime) -> datetime:
    """When a mute ends: a day, a time with or without its offset (UTC), or how long from now: 12h, 7d, 2w."""
    if found := re.fullmatch(r"(\d{1,4})([hdw])", text):
        return now + int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = (
            f"--until: expected a day (2026-12-01), a time (2026-12-01T08:00Z) or a span (12h, 7d, 2w), found {text!r}"
        )
        raise CommandError(msg) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
