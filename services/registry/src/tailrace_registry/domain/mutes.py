"""Which alerts of a model are muted: monitoring obeys, the registry remembers who asked for it and until when.

A mute has an owner, a reason and an end, and ends by itself: whoever reads the list compares the time. What has ended
leaves the list with the next change; the audit chain keeps all of it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from tailrace_contracts.events import CommandIssued, Mute, MuteAlerts, UnmuteAlerts
from tailrace_registry.domain.model import Decision, Model, refuse

LONGEST = timedelta(days=366)
"""A silence that nobody renews within a year is a forgotten one."""

MOST = 100
"""Mutes of one model at a time."""


def mute_of(command_id: str) -> str:
    """The mute that a command makes: the same command, read twice, makes the same one."""
    return f"mute-{hashlib.sha256(command_id.encode()).hexdigest()[:12]}"


def in_force(model: Model, now: datetime) -> tuple[Mute, ...]:
    """The mutes that have not ended."""
    return tuple(mute for mute in model.mutes if mute.until > now)


def words_of(mute: Mute) -> str:
    """What a mute covers, for a person."""
    kinds = f"{' and '.join(mute.kinds)} alerts" if mute.kinds else "all alerts"
    return f"{kinds} about {', '.join(mute.subjects)}" if mute.subjects else kinds


def quieten(model: Model, command: MuteAlerts | UnmuteAlerts, issued: CommandIssued, now: datetime) -> Decision:
    """A person mutes alerts, or ends a mute."""
    return mute(model, command, issued, now) if isinstance(command, MuteAlerts) else unmute(model, command, now)


def mute(model: Model, command: MuteAlerts, issued: CommandIssued, now: datetime) -> Decision:
    """A person wants not to be told."""
    if not issued.reason.strip():
        return refuse(model, "a mute needs a reason: whoever meets the silence will want to know why")
    if command.until <= now:
        return refuse(
            model, f"the mute would have ended already, at {_minute(command.until)}; name an end in the future"
        )
    if command.until > now + LONGEST:
        return refuse(
            model,
            f"the mute would last until {_minute(command.until)}; name an end within a year, and renew it then if need be",
        )
    standing = in_force(model, now)
    if len(standing) >= MOST:
        return refuse(model, f"{model.name} has {MOST} mutes already; end one with unmute, or name more in one mute")
    made = Mute(
        mute_id=mute_of(issued.command_id),
        kinds=command.kinds,
        subjects=command.subjects,
        owner=command.owner,
        reason=issued.reason,
        muted_by=issued.issued_by,
        since=now,
        until=command.until,
    )
    reason = (
        f"{made.mute_id}: {words_of(made)} of {model.name} are muted until {_minute(made.until)}, owned by {made.owner}"
    )
    return Decision(model, new_mutes=(*standing, made)).because(reason)


def unmute(model: Model, command: UnmuteAlerts, now: datetime) -> Decision:
    """A person wants to be told again."""
    standing = in_force(model, now)
    ended = next((each for each in standing if each.mute_id == command.mute_id), None)
    if ended is None:
        there = ", ".join(each.mute_id for each in standing) or "none"
        return refuse(model, f"{model.name} has no mute {command.mute_id} in force; there is {there}")
    left = tuple(each for each in standing if each is not ended)
    return Decision(model, new_mutes=left).because(f"{words_of(ended)} of {model.name} are heard again")


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"
