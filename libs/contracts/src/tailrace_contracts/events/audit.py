"""The audit chain: what was asked or decided, by whom, why, and whether it was done."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event
from tailrace_contracts.events.versions import Evidence
from tailrace_contracts.spec import Name


class AuditRecorded(Event):
    """One link of the registry's audit chain: what was asked or decided, by whom, why, and whether it was done.

    `sha256` is the digest of the entry's canonical JSON (keys sorted, no spaces) without `sha256` itself and with
    `previous_sha256` in it.
    """

    type: Literal["audit-recorded"] = "audit-recorded"
    sequence: int = Field(ge=1)
    model: Name
    actor: str
    action: str
    subject: str
    outcome: Literal["done", "refused"]
    reason: str
    command_id: str | None = None
    evidence: tuple[Evidence, ...] = ()
    time: AwareDatetime
    previous_sha256: str
    sha256: str
