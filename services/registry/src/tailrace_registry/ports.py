"""What the registry needs from the world, by role.

`Books` is where decisions are kept; one `Entry` is one transaction in them: everything written through it, the events to
be published included, takes effect together or not at all. `Shelf` is the same knowledge for people who only read.
Whoever implements them raises RetryLater while the storage is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from tailrace_contracts.audit import Link, Verification
from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    AuditRecorded,
    CommandIssued,
    DeploymentChanged,
    Event,
    RevisionTrained,
    SpecApplied,
    VersionChanged,
)
from tailrace_contracts.ranges import Trigger
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.model import Model
from tailrace_runtime.records import Record


class Entry(Protocol):
    """One transaction in the books."""

    async def model(self, name: str, named: Sequence[int] = ()) -> Model | None:
        """The model, locked for others until the end; None where no spec was ever applied.

        Of its versions those that act, those that a rollback could return to, and those that are `named`.
        """
        ...

    async def found(self, name: str) -> None:
        """Make room for a new model, and lock it, so that two first specs come one after the other."""
        ...

    async def spec(self, model: str, revision: int) -> ModelSpec | None:
        """A revision of the model's spec."""
        ...

    async def newest_revision(self, model: str, run_id: str) -> RevisionTrained | None:
        """The newest revision heard of a continual run, its version registered or not."""
        ...

    async def answered(self, command_id: str) -> bool:
        """Whether a command has its audit entry."""
        ...

    async def has_evidence(self, model: str, kind: str, event_id: str) -> bool:
        """Whether an event was acted on, or noted, before."""
        ...

    async def alerts(self, model: str, versions: Sequence[int]) -> list[AlertRaised]:
        """The noted alerts about the answers of one of these versions, oldest first."""
        ...

    async def head(self) -> Link:
        """The end of the audit chain, locked for others until the end of the transaction. Lock a model first."""
        ...

    async def save(self, model: Model, events: Sequence[Event]) -> None:
        """Store the model with the events of a decision, and publish them once the transaction is through."""
        ...

    async def publish(self, events: Sequence[Event]) -> None:
        """Store and publish events that leave a model's own row as it is: answers, and versions that learned on."""
        ...

    async def note(self, model: str, kind: str, event_id: str, event: Event) -> None:
        """Keep an event that decisions rest on."""
        ...

    async def newer(self, revision: RevisionTrained) -> bool:
        """Keep a revision as the newest of its run, and lock its model; False where one as new is kept already."""
        ...

    async def version_of_run(self, model: str, run_id: str) -> VersionChanged | None:
        """The version that a run made, without the rest of its model."""
        ...


class Books(Protocol):
    """Where decisions are kept."""

    def entry(self, record: Record) -> AbstractAsyncContextManager[Entry | None]:
        """A transaction for one record, None where that record has been applied before."""
        ...


class CommandLog(Protocol):
    """Where commands go that come over HTTP: the way that all others take."""

    async def issue(self, issued: CommandIssued) -> None:
        """Return once it cannot be lost any more. Raises RetryLater."""
        ...


class Keyring(Protocol):
    """Who may give commands over HTTP."""

    def name_of(self, token: str) -> str | None:
        """Whose token it is; None where it is nobody's."""
        ...


class Evidenced(NamedTuple):
    """An event that decisions rest on."""

    kind: str
    event_id: str
    said_at: datetime
    event: Event


class Which(NamedTuple):
    """Which versions of a model: numbered below `before`, that learned from the record `saw`, registered `as_of` a moment."""

    before: int | None = None
    limit: int = 1000
    saw: Trigger | None = None
    as_of: datetime | None = None


class Shelf(Protocol):
    """The books, for readers."""

    async def models(self) -> list[Model]:
        """Every model that has a spec, by name, with the versions that act."""
        ...

    async def model(self, name: str) -> Model | None:
        """One model with the versions that act."""
        ...

    async def knows(self, name: str) -> bool:
        """Whether there is such a model."""
        ...

    async def versions(self, model: str, which: Which) -> list[VersionChanged]:
        """Versions, newest first. As of a moment: those registered by then, with the stage and the time of their last move."""
        ...

    async def compared(self, model: str, a: int, b: int) -> list[ArmsCompared]:
        """The comparisons of two versions that moved one of them, oldest first."""
        ...

    async def specs(self, model: str) -> list[SpecApplied]:
        """Every revision of the model's spec, oldest first."""
        ...

    async def deployments(self, model: str, as_of: datetime | None, limit: int) -> list[DeploymentChanged]:
        """The newest deployments first; with `as_of`, those announced until then."""
        ...

    async def evidence(self, model: str, limit: int) -> list[Evidenced]:
        """What decisions rested on, newest first."""
        ...

    async def audit(self, model: str, subject: str | None, after: int, limit: int) -> list[AuditRecorded]:
        """Audit entries of a model behind a sequence, oldest first; of one subject (`version 3`), if it is named."""
        ...

    async def answer(self, command_id: str) -> AuditRecorded | None:
        """The audit entry that answers a command; None before there is one."""
        ...

    async def verify(self) -> Verification:
        """Check the whole audit chain to the end that the books say it has, and the evidence by the digests in it."""
        ...
