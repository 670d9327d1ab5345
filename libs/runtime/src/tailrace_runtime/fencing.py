"""Noticing a second process under the same static member id.

Kafka gives a static id to whoever joined last and takes it from the one before, without a word to either. Two living
processes under one id therefore take each other's place in turn, every few seconds. A role whose member id changes
more than six times within a minute stops instead, and says what to do. A process that is alone can lose its place too,
when the machine is so busy that its heartbeats are late; but it does not miss a session of ten seconds seven times in
a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tailrace_runtime.errors import InstanceFenced

_TIMES = 6
_WITHIN_SECONDS = 60.0


class Fencing:
    """Watches the member ids that the broker gives to one role of this process."""

    def __init__(self, role: str, instance: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._sentence = (
            f"another process runs {role} as instance {instance!r}:"
            " give every process of a role its own TAILRACE_INSTANCE"
        )
        self._monotonic = monotonic
        self._given: list[tuple[float, str]] = []

    def joined(self, member_id: str) -> None:
        """We are a member under this id now.

        Raises:
            InstanceFenced: it has changed too often.
        """
        now = self._monotonic()
        self._given = [given for given in self._given if given[0] > now - _WITHIN_SECONDS]
        if not self._given or self._given[-1][1] != member_id:
            self._given.append((now, member_id))
        if len(self._given) > _TIMES:
            raise InstanceFenced(self._sentence)

    def check(self, error: Exception) -> None:
        """Raise InstanceFenced when that is what this error of the client means."""
        if "FencedInstanceId" in repr(error):
            raise InstanceFenced(self._sentence) from error
