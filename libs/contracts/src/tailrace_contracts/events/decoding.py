"""All events in one list, and how a value on a topic becomes one of them."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field, TypeAdapter

from tailrace_contracts.events.alerts import AlertRaised, MutesChanged
from tailrace_contracts.events.audit import AuditRecorded
from tailrace_contracts.events.commands import CommandIssued
from tailrace_contracts.events.dead_letters import EventParked, EventReplayed
from tailrace_contracts.events.event import Event
from tailrace_contracts.events.inference import InferenceAnswered, InferenceRequested
from tailrace_contracts.events.journal import BooksWritten
from tailrace_contracts.events.labels import CoverageMeasured, ExampleLabelled, LabelGiven
from tailrace_contracts.events.performance import ArmsCompared, PerformanceEstimated, PerformanceMeasured
from tailrace_contracts.events.predictions import PredictionMade
from tailrace_contracts.events.serving import ServingMeasured
from tailrace_contracts.events.specs import SpecApplied, SpecTookEffect
from tailrace_contracts.events.statistics import PartialSummarised, WindowSummarised
from tailrace_contracts.events.training import CandidateTrained, RevisionTrained, TrainingProgressed, TrainingRequested
from tailrace_contracts.events.versions import DeploymentChanged, VersionChanged

AnyEvent = Annotated[
    PredictionMade
    | LabelGiven
    | ExampleLabelled
    | CoverageMeasured
    | InferenceRequested
    | InferenceAnswered
    | PartialSummarised
    | WindowSummarised
    | ServingMeasured
    | SpecApplied
    | SpecTookEffect
    | TrainingRequested
    | TrainingProgressed
    | CandidateTrained
    | RevisionTrained
    | VersionChanged
    | DeploymentChanged
    | ArmsCompared
    | PerformanceMeasured
    | PerformanceEstimated
    | AlertRaised
    | MutesChanged
    | CommandIssued
    | AuditRecorded
    | BooksWritten
    | EventParked
    | EventReplayed,
    Field(discriminator="type"),
]

EVENTS: tuple[type[Event], ...] = get_args(get_args(AnyEvent)[0])
"""Every event, in the order of the story."""

_ANY: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def decode(value: bytes) -> Event:
    """The event in a topic's value. Raises pydantic.ValidationError when it is none of ours."""
    return _ANY.validate_json(value)
