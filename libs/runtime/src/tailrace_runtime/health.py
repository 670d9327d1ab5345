"""Whether a service is alive, and whether it is ready: what `/livez` and `/readyz` answer from.

Alive means that every batch in hand makes progress: one in hand for longer than `stall_seconds` without a call of
`progress()` makes the service not alive, by name. Ready means that no part has a reason to wait: parts write their
reason down while they have one (`waiting`) and take it back (`ready`).

The service host puts its `Health` where everything that it starts can find it (`here`); code outside a service gets
one that nobody reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_HEALTH: ContextVar[Health | None] = ContextVar("tailrace_health", default=None)
_HAND: ContextVar[tuple[Health, str] | None] = ContextVar("tailrace_hand", default=None)


class Health:
    """What each part of a service says about itself."""

    def __init__(self, stall_seconds: float = 60, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stall_seconds = stall_seconds
        self._monotonic = monotonic
        self._waiting: dict[str, str] = {}
        self._stopped: dict[str, str] = {}
        self._in_hand: dict[str, float] = {}

    def waiting(self, part: str, reason: str) -> None:
        """This part is not ready, for a reason in one sentence."""
        self._waiting[part] = reason

    def ready(self, part: str) -> None:
        """This part is ready."""
        self._waiting.pop(part, None)

    def stopped(self, part: str, reason: str) -> None:
        """This part has stopped for good: the service is neither alive nor ready any more."""
        self._stopped[part] = reason

    @contextmanager
    def in_hand(self, work: str) -> Iterator[None]:
        """Something is being worked on while the block runs; `progress()` inside it says that it goes on."""
        self._in_hand[work] = self._monotonic()
        token = _HAND.set((self, work))
        try:
            yield
        finally:
            _HAND.reset(token)
            self._in_hand.pop(work, None)

    def touch(self, work: str) -> None:
        """The work in hand goes on."""
        if work in self._in_hand:
            self._in_hand[work] = self._monotonic()

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service is alive, and why not."""
        now = self._monotonic()
        stalled = {
            work: f"no progress for {now - since:.0f} s (limit {self._stall_seconds:g} s)"
            for work, since in self._in_hand.items()
            if now - since > self._stall_seconds
        }
        problems = {**stalled, **self._stopped}
        return not problems, {"live": not problems, "problems": problems}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service is ready, and what it waits for."""
        reasons = {**self._waiting, **self._stopped}
        return not reasons, {"ready": not reasons, "waiting": reasons}


@contextmanager
def installed(health: Health) -> Iterator[Health]:
    """Make this the `Health` of everything started inside the block."""
    token = _HEALTH.set(health)
    try:
        yield health
    finally:
        _HEALTH.reset(token)


def here() -> Health:
    """The `Health` of the service that this code runs in."""
    return _HEALTH.get() or Health()


def progress() -> None:
    """Say from inside a long handler that it goes on, so that `/livez` does not take it for stuck."""
    hand = _HAND.get()
    if hand is not None:
        hand[0].touch(hand[1])
