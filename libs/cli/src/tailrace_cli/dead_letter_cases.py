"""Dead letters as cases: one for each record that could not be handled, with what became of its replays.

A record that was published again and failed again comes back as a new dead letter, which names the first one in its
headers: both are one case, named `<topic>/<partition>/<offset>` after the first. So a case tells whether its replays
helped, and a second replay leaves alone what the first has done.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from tailrace_contracts.events import Event, EventParked, EventReplayed
from tailrace_runtime.deadletters import origin

State = Literal["parked", "replayed", "failed-again", "unknown"]


@dataclass(slots=True)
class Case:
    """One record that could not be handled: its newest dead letter, how often it came back, and its replays."""

    name: str
    letter: EventParked
    returned: int = 0
    replays: int = 0
    replayed_at: datetime | None = None
    started_at: datetime | None = None

    @property
    def state(self) -> State:
        """`unknown`: a replay was begun and not finished, so that nobody knows whether the record is on its topic."""
        if self.started_at is not None:
            return "unknown"
        if self.replays == 0:
            return "parked"
        return "failed-again" if self.returned >= self.replays else "replayed"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which cases are meant; an empty field means any."""

    topic: str = ""
    code: str = ""
    model: str = ""
    by: str = ""
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    states: frozenset[State] = frozenset()
    name: str = ""

    def admits(self, case: Case) -> bool:
        """Whether this one is meant. All but the name and the state go by the newest dead letter."""
        letter = case.letter
        return (
            (not self.topic or letter.topic == self.topic)
            and (not self.code or letter.code == self.code)
            and (not self.model or letter.model == self.model)
            and (not self.by or self.by in {letter.service, letter.role, f"{letter.service}/{letter.role}"})
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time < self.until)
            and (not self.states or case.state in self.states)
            and (not self.name or self.name in {case.name, place(letter)})
            and (not self.text or _mentions(letter, self.text))
        )


@dataclass
class Cases:
    """All cases, from the events of the topic `dead-letters` in the order of each partition."""

    _letters: dict[str, EventParked] = field(default_factory=dict)
    _returned: dict[str, set[str]] = field(default_factory=dict)
    _replays: dict[str, list[EventReplayed]] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take in one event. A record that was parked twice at one place, after a crash, counts once."""
        if isinstance(event, EventReplayed):
            self._replays.setdefault(f"{event.topic}/{event.partition}/{event.offset}", []).append(event)
        elif isinstance(event, EventParked):
            first, here = origin(event), place(event)
            known = self._letters.get(first)
            if known is None or event.time >= known.time:
                self._letters[first] = event
            if here != first:
                self._returned.setdefault(first, set()).add(here)

    def chosen(self, wanted: Filter) -> list[Case]:
        """The cases that are meant, oldest first."""
        cases = (self._case(name, letter) for name, letter in self._letters.items())
        return sorted((case for case in cases if wanted.admits(case)), key=lambda case: (case.letter.time, case.name))

    def _case(self, name: str, letter: EventParked) -> Case:
        case = Case(name, letter, returned=len(self._returned.get(name, ())))
        for each in sorted(self._replays.get(name, []), key=lambda each: each.time):
            if each.stage == "started":
                case.started_at = each.time
            else:
                case.started_at, case.replayed_at, case.replays = None, each.time, case.replays + 1
        return case


def place(letter: EventParked) -> str:
    """Where the record of this letter stood."""
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


def moment(text: str, now: datetime) -> datetime:
    """A point in time as people write it: `2h`, `30m`, `7d` ago, or a date or time (UTC unless it says another).

    Raises:
        ValueError: it is neither.
    """
    units = {"m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] in units and text[:-1].isdigit():
        return now - timedelta(**{units[text[-1]]: int(text[:-1])})
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def _mentions(letter: EventParked, text: str) -> bool:
    if text in letter.reason:
        return True
    return any(text.encode() in b64decode(part) for part in (letter.key, letter.value) if part is not None)
