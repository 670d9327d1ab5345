"""The events: everything that services say to each other, one class for each fact.

Every class is frozen, named in the past tense, and carries its own `type`, so that a value can be read without its
headers. Unknown fields are ignored and new fields have defaults: a reader of yesterday reads the events of tomorrow,
and the other way round. Times are RFC 3339 with an offset. Derived events name what they were derived from: `trigger`
(the record that caused them) and `derived_from` (all log ranges that they were computed from).

Each module of this package has the events of one theme; their names are all here too.
"""

from tailrace_contracts.events.alerts import AlertRaised, Mute, MutesChanged
from tailrace_contracts.events.artefacts import ClaimCheck, Lineage
from tailrace_contracts.events.audit import AuditRecorded
from tailrace_contracts.events.commands import (
    ApplySpec,
    Command,
    CommandIssued,
    MuteAlerts,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    SetAlias,
    TrainModel,
    UnmuteAlerts,
    UnsetAlias,
)
from tailrace_contracts.events.dead_letters import EventParked, EventReplayed
from tailrace_contracts.events.decoding import EVENTS, AnyEvent, decode
from tailrace_contracts.events.event import Event, Value, utc
from tailrace_contracts.events.inference import AnsweredRow, InferenceAnswered, InferenceRequested
from tailrace_contracts.events.journal import AppliedLog, BooksWritten, Kept, ModelRow
from tailrace_contracts.events.labels import CoverageMeasured, ExampleLabelled, LabelGiven
from tailrace_contracts.events.performance import (
    AnswersMeasured,
    ArmsCompared,
    Bounds,
    Estimate,
    GroupRates,
    GroupsCompared,
    GroupWorsened,
    InputMeasured,
    PerformanceEstimated,
    PerformanceMeasured,
)
from tailrace_contracts.events.predictions import ArmOutput, Explanation, PredictionMade
from tailrace_contracts.events.serving import ArmMeasured, ServingMeasured
from tailrace_contracts.events.specs import SpecApplied, SpecTookEffect
from tailrace_contracts.events.statistics import (
    CategoricalSummary,
    ColumnSummary,
    FrequentValue,
    NumericalSummary,
    PartialSummarised,
    SampledRow,
    Slice,
    WindowSummarised,
)
from tailrace_contracts.events.training import CandidateTrained, RevisionTrained, TrainingProgressed, TrainingRequested
from tailrace_contracts.events.versions import CanaryArm, DeploymentChanged, Evidence, GateJudged, VersionChanged
from tailrace_contracts.events.vocabulary import (
    AlertKind,
    Arm,
    FeatureValue,
    Identifier,
    Line,
    Outcome,
    Stage,
    WindowSpan,
)

__all__ = [
    "EVENTS",
    "AlertKind",
    "AlertRaised",
    "AnsweredRow",
    "AnswersMeasured",
    "AnyEvent",
    "AppliedLog",
    "ApplySpec",
    "Arm",
    "ArmMeasured",
    "ArmOutput",
    "ArmsCompared",
    "AuditRecorded",
    "BooksWritten",
    "Bounds",
    "CanaryArm",
    "CandidateTrained",
    "CategoricalSummary",
    "ClaimCheck",
    "ColumnSummary",
    "Command",
    "CommandIssued",
    "CoverageMeasured",
    "DeploymentChanged",
    "Estimate",
    "Event",
    "EventParked",
    "EventReplayed",
    "Evidence",
    "ExampleLabelled",
    "Explanation",
    "FeatureValue",
    "FrequentValue",
    "GateJudged",
    "GroupRates",
    "GroupWorsened",
    "GroupsCompared",
    "Identifier",
    "InferenceAnswered",
    "InferenceRequested",
    "InputMeasured",
    "Kept",
    "LabelGiven",
    "Line",
    "Lineage",
    "ModelRow",
    "Mute",
    "MuteAlerts",
    "MutesChanged",
    "NumericalSummary",
    "Outcome",
    "PartialSummarised",
    "PauseRollout",
    "PerformanceEstimated",
    "PerformanceMeasured",
    "PredictionMade",
    "PromoteVersion",
    "RejectVersion",
    "ResumeRollout",
    "RevisionTrained",
    "RollbackModel",
    "SampledRow",
    "ServingMeasured",
    "SetAlias",
    "Slice",
    "SpecApplied",
    "SpecTookEffect",
    "Stage",
    "TrainModel",
    "TrainingProgressed",
    "TrainingRequested",
    "UnmuteAlerts",
    "UnsetAlias",
    "Value",
    "VersionChanged",
    "WindowSpan",
    "WindowSummarised",
    "decode",
    "utc",
]
