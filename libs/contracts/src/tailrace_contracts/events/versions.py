"""Versions and deployments as they now stand, and the evidence for what was decided about them."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.artefacts import ClaimCheck, Lineage
from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import Identifier, Line, Stage
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import Name


class Evidence(Value):
    """Why a decision was taken: the event that said so, in one line for people."""

    kind: Literal["comparison", "alert", "training", "command", "first-version", "spec"]
    event_id: str
    summary: str
    derived_from: LogRanges = LogRanges()
    sha256: str = Field(
        default="",
        description="digest of the event's canonical JSON, as that of an audit entry; empty: not recorded then",
    )


class GateJudged(Value):
    """How a version on trial stands at one gate of the spec: in a sentence with the numbers, and from which records."""

    gate: Literal["fairness", "data-quality", "latency", "errors"]
    state: Literal["passed", "failed", "waiting"]
    reason: str
    derived_from: LogRanges = LogRanges()


class VersionChanged(Event):
    """The whole of one version as it now stands (compacted by model and version)."""

    type: Literal["version-changed"] = "version-changed"
    model: Name
    version: int = Field(ge=1)
    stage: Stage
    run_id: Identifier
    learner: Literal["torch", "river", "imported"]
    continual: bool
    revision: int = Field(default=0, ge=0)
    artefact: ClaimCheck
    reference: ClaimCheck | None = None
    lineage: Lineage
    metrics: dict[str, float] = Field(default={})
    gates: tuple[GateJudged, ...] = Field(
        default=(), description="the gates of its trial, as they were judged when one of them last changed"
    )
    time: AwareDatetime


class CanaryArm(Value):
    """The version that answers `percent` of the traffic."""

    version: int = Field(ge=1)
    percent: int = Field(gt=0, le=100)


class DeploymentChanged(Event):
    """Who answers now: the whole deployment of a model (compacted by model). `sequence` grows by one each time."""

    type: Literal["deployment-changed"] = "deployment-changed"
    model: Name
    sequence: int = Field(ge=1)
    spec_revision: int = Field(ge=1)
    champion: int | None = None
    canary: CanaryArm | None = None
    shadows: tuple[int, ...] = ()
    standby: int | None = Field(default=None, description="the champion before this one, while it can return at once")
    reign: int = Field(
        default=0, ge=0, description="sequence of the deployment with which the champion began to answer; 0: not known"
    )
    returned: bool = Field(default=False, description="the champion answers again, because another was rolled back")
    paused: dict[Line, str] = Field(default={}, description="lines whose automatic promotions are paused, and why")
    aliases: dict[str, int] = Field(default={}, description="names that people gave to versions")
    reason: str
    evidence: tuple[Evidence, ...] = ()
    time: AwareDatetime
