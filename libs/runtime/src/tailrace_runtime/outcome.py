"""What comes of a batch: what is emitted, what is parked, and how far the log may be committed."""

from __future__ import annotations

from dataclasses import dataclass, field

from tailrace_runtime.records import Outgoing, Record, Run


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that goes to `dead-letters`, and why."""

    record: Record
    code: str
    reason: str
    model: str | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a batch.

    `runs` are emitted too, where there are too many for an object each; no emitted record may be for the topic partition
    of a run. `commit_through` None means all of it. A handler that keeps records in hand (a buffer, a running job) names the
    last offset that may be committed, or -1 for nothing yet, and lets `RoleState.tick` commit the rest later.
    """

    emit: list[Outgoing] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    commit_through: int | None = None

    @property
    def emitted(self) -> list[Outgoing]:
        """All that is emitted, one by one."""
        return [*self.emit, *(record for run in self.runs for record in run)]
