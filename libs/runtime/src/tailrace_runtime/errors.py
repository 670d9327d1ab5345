# ruff: noqa: N818  # each is named for what it tells the loop to do
"""The exceptions of the runtime, each with what it means for the record in hand.

Two of them carry policy. A handler raises `RetryLater` when the world is not ready (the batch stays, and is tried again
with a bounded back-off) and `PoisonEvent` when the record is not (it goes to `dead-letters`, whole). Any other
exception stops the partition, loudly. `loop.py` is the one place that turns them into action.
"""

from __future__ import annotations

from tailrace_runtime.outcome import Outcome


class TailraceError(Exception):
    """Anything that the runtime itself raises. The message is one sentence for a person."""


class RetryLater(TailraceError):
    """The batch cannot be handled now: try it again after `after_seconds`, with growing pauses, up to a bound.

    `done` is what was finished before the trouble (its `commit_through` says how far): the loop publishes and commits
    it, and calls the handler again with the rest only.
    """

    def __init__(self, reason: str, after_seconds: float = 0.2, *, done: Outcome | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_seconds = after_seconds
        self.done = done


class PoisonEvent(TailraceError):
    """This record can never be handled: park it in `dead-letters` under `code`, with `reason` for a person."""

    def __init__(self, code: str, reason: str, *, model: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.model = model


class DeliveryFailed(TailraceError):
    """The broker did not acknowledge within the delivery deadline. The records may or may not be on their topics."""


class DeliveryRefused(TailraceError):
    """The broker will never take this record (too large, no rights): trying again cannot help."""


class PartitionStopped(TailraceError):
    """A partition met an error that is neither `RetryLater` nor `PoisonEvent`, or retried past the bound."""


class DeadLetterLimitExceeded(PartitionStopped):
    """So many records are poison that the deployment must be wrong, not the records."""


class InstanceFenced(TailraceError):
    """Another process joined the consumer group under this one's static id."""


class ArtefactCorrupt(TailraceError):
    """The bytes in the object store are not the bytes that the claim check names."""


class ObjectMissing(TailraceError):
    """The object store has nothing under this key."""


class RangeUnavailable(TailraceError):
    """Neither Kafka nor the archive has all records of a log range."""


class MigrationChanged(TailraceError):
    """A migration that has already run now has another text."""


class ConfigurationFault(TailraceError):
    """A setting or the machine does not allow the service to start: one sentence, exit code 2."""
