"""What stops training, each in one sentence for a person."""

from __future__ import annotations

from tailrace_runtime.errors import TailraceError


class CheckpointUnusable(TailraceError):  # noqa: N818  # named for what is true
    """The artefact that an online run would resume from cannot be used. The service stops: nobody else can mend it."""


class TrainerDied(TailraceError):  # noqa: N818  # named for what happened
    """The trainer process ended in the middle of a job."""


class TrainingStuck(TailraceError):  # noqa: N818  # named for what is true
    """What a training needs has been away for too long. The service stops; its request stays, and comes again."""
