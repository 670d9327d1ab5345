"""Training: what is asked for, how far it is, and what it gives."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.artefacts import ClaimCheck, Lineage
from tailrace_contracts.events.event import Event
from tailrace_contracts.events.vocabulary import Identifier
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import Name


class TrainingRequested(Event):
    """Please train in batch, on exactly these ranges of `labelled-examples` (empty: the newest `max_examples`)."""

    type: Literal["training-requested"] = "training-requested"
    run_id: Identifier
    model: Name
    spec_revision: int = Field(ge=1)
    ranges: LogRanges = LogRanges()
    reason: str
    requested_by: str
    time: AwareDatetime


class TrainingProgressed(Event):
    """How far a training run is. `failed` and `finished` are final."""

    type: Literal["training-progressed"] = "training-progressed"
    run_id: Identifier
    model: Name
    stage: Literal["started", "training", "evaluating", "exporting", "finished", "failed"]
    epoch: int = Field(default=0, ge=0)
    epochs: int = Field(default=0, ge=0)
    loss: float | None = None
    message: str = ""
    ranges: LogRanges = LogRanges()
    time: AwareDatetime


class CandidateTrained(Event):
    """A learner offers an artefact as a version. `continual` versions go on learning and publish revisions."""

    type: Literal["candidate-trained"] = "candidate-trained"
    run_id: Identifier
    model: Name
    learner: Literal["torch", "river", "imported"]
    continual: bool
    artefact: ClaimCheck
    resume_artefact: ClaimCheck | None = None
    reference: ClaimCheck | None = None
    lineage: Lineage
    metrics: dict[str, float] = Field(default={})
    revision: int = Field(default=0, ge=0)
    time: AwareDatetime


class RevisionTrained(Event):
    """A continual version learned on: its newest artefact, which is also the checkpoint that the learner resumes from."""

    type: Literal["revision-trained"] = "revision-trained"
    run_id: Identifier
    model: Name
    revision: int = Field(ge=0)
    artefact: ClaimCheck
    trained_on: LogRanges
    examples: int = Field(ge=0)
    time: AwareDatetime
