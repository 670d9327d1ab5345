"""Artefacts as events speak of them: where the bytes lie, and what they were made from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tailrace_contracts.events.event import Value
from tailrace_contracts.ranges import LogRanges


class ClaimCheck(Value):
    """The pointer that stands for an artefact on a topic. The bytes are in the object store under their sha256."""

    key: str = Field(description="place in the object store, `sha256/<digest>`; never a client's path or URI")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    media_type: str


class Lineage(Value):
    """What a version was made from: enough to make it again."""

    trained_on: LogRanges
    examples: int = Field(ge=0)
    spec_revision: int = Field(ge=1)
    code_version: str
    parameters: dict[str, Any] = Field(default={})
    seed: int = 0
    parent_version: int | None = None
