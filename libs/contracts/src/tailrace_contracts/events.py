"""The events: everything that services say to each other, one class for each fact.

Every class is frozen, named in the past tense, and carries its own `type`, so that a value can be read without its
headers. Unknown fields are ignored and new fields have defaults: a reader of yesterday reads the events of tomorrow,
and the other way round. Times are RFC 3339 with an offset. Derived events name what they were derived from: `trigger`
(the record that caused them) and `derived_from` (all log ranges that they were computed from).
"""

from __future__ import annotations

import math
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from tailrace_contracts.ranges import LogRange, LogRanges, Offset, Trigger
from tailrace_contracts.spec import FairnessRate, ModelSpec, Name

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
FeatureValue = float | str | bool | None


_EXACT = 2**53


def _number(value: Any) -> int | float:
    """A finite number, and a whole one as an integer: a class out of a column of floats is a class."""
    value = value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value  # numpy's scalars
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise PydanticCustomError("number", "Input should be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "Input should be a number")
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        raise PydanticCustomError("number", "Input should be a finite number")
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


Outcome = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A prediction or a label: one of the two integers of a binary model's classes, or the finite number of a regression."""

Arm = Literal["champion", "canary", "shadow", "external"]
Line = Literal["batch", "continual"]
"""Where a version comes from: trainings in batch, or a learner that goes on."""

AlertKind = Literal["feature-drift", "concept-drift", "performance", "fairness", "data-quality"]
Stage = Literal["registered", "shadow", "canary", "champion", "rejected", "rolled-back", "retired"]


class Value(BaseModel):
    """A part of an event: frozen, readable by older and newer code."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Value):
    """A fact on a topic. `type` tells which one; `ce_type` is the same with the project's prefix."""

    type: str
    content_type: ClassVar[str] = "application/json"

    @classmethod
    def type_name(cls) -> str:
        """The value of `type`, such as `prediction-made`."""
        return str(cls.model_fields["type"].default)

    def encode(self) -> bytes:
        """The JSON value that goes on the topic."""
        return self.model_dump_json().encode()


# ---------------------------------------------------------------- artefacts and evidence


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
    parameters: dict[str, Any] = {}
    seed: int = 0
    parent_version: int | None = None


class Evidence(Value):
    """Why a decision was taken: the event that said so, in one line for people."""

    kind: Literal["comparison", "alert", "training", "command", "first-version", "spec"]
    event_id: str
    summary: str
    derived_from: LogRanges = LogRanges()


# ---------------------------------------------------------------- predictions and labels


class ArmOutput(Value):
    """What one arm answered. `probability` is that of the positive class; a regression has none."""

    arm: Arm
    prediction: Outcome
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    version: int | None = Field(default=None, ge=1)
    revision: int | None = Field(default=None, ge=0)


class PredictionMade(Event):
    """One inference: the question, and what each arm answered. On `prediction-events` and, valid, on `predictions`.

    `served` is None for an observation without a prediction: history that is only to be learned from.
    """

    type: Literal["prediction-made"] = "prediction-made"
    prediction_id: Identifier
    model: Name
    time: AwareDatetime
    features: dict[str, FeatureValue]
    served: ArmOutput | None = None
    shadows: tuple[ArmOutput, ...] = ()
    entity: str | None = Field(default=None, max_length=128)
    latency_ms: float | None = Field(default=None, ge=0)


class LabelGiven(Event):
    """The truth for one prediction id. A second one with another value corrects the first."""

    type: Literal["label-given"] = "label-given"
    prediction_id: Identifier
    model: Name
    time: AwareDatetime
    label: Outcome


class ExampleLabelled(Event):
    """A prediction and its label, joined. `label_revision` counts corrections; a correction names the label it replaces."""

    type: Literal["example-labelled"] = "example-labelled"
    prediction_id: Identifier
    model: Name
    time: AwareDatetime = Field(description="the prediction's event time")
    label_time: AwareDatetime
    features: dict[str, FeatureValue]
    label: Outcome
    label_revision: int = Field(default=0, ge=0)
    replaces: Outcome | None = None
    served: ArmOutput | None = None
    shadows: tuple[ArmOutput, ...] = ()
    entity: str | None = None
    trigger: Trigger
    derived_from: LogRanges


class WindowSpan(Value):
    """A tumbling window of event time: [start, end)."""

    start: AwareDatetime
    end: AwareDatetime


class CoverageMeasured(Event):
    """Of the predictions of one window, as one partition of the join has seen it: how many have a label so far.

    Cumulative: of two about the same model, window and partition the one with the greater `through` counts more and replaces
    the other; over partitions the counts add up. What waits is `predictions` less `labelled` less `expired`.
    """

    type: Literal["coverage-measured"] = "coverage-measured"
    model: Name
    window: WindowSpan = Field(description="of prediction time; that of label time for `unmatched_labels`")
    partition: Offset
    predictions: int = Field(ge=0, description="different prediction ids")
    labelled: int = Field(ge=0, description="predictions that have a label")
    corrections: int = Field(default=0, ge=0, description="labels that changed the label of one of these predictions")
    expired: int = Field(default=0, ge=0, description="predictions without a label after the model's horizon")
    late_labels: int = Field(default=0, ge=0, description="labels that came after the horizon of their prediction")
    unmatched_labels: int = Field(
        default=0, ge=0, description="labels whose prediction did not come within the horizon"
    )
    label_delays: dict[str, int] = Field(
        default={}, description="labelled predictions by the power of two in seconds that their delay does not exceed"
    )
    through: int = Field(ge=0, description="records of both logs of the partition that are counted")
    derived_from: LogRanges


# ---------------------------------------------------------------- inference over Kafka


class InferenceRequested(Event):
    """Please answer these rows: what a caller puts on `inference-requests`.

    `request_id` names the question: asked again under the same id, it has the same prediction ids and counts once.
    The record's headers may carry `reply-topic` and `correlation-id`.
    """

    type: Literal["inference-requested"] = "inference-requested"
    request_id: str = Field(min_length=1, max_length=120)
    model: Name
    version: str | None = Field(default=None, description="such as `7` or `7.12`; none: the arm that it falls to")
    rows: tuple[dict[str, FeatureValue], ...] = Field(min_length=1, description="features by name, one for each row")
    prediction_ids: tuple[Identifier, ...] | None = Field(
        default=None, description="one for each row; none: the request id, with `/0`, `/1` and so on for several rows"
    )
    entity: Identifier | None = None
    time: AwareDatetime | None = Field(default=None, description="none: the record's time")


class AnsweredRow(Value):
    """The answer to one row, and the prediction id that its label will come under."""

    prediction_id: Identifier
    prediction: Outcome
    probability: Annotated[float, Field(ge=0, le=1)] | None = None


class InferenceAnswered(Event):
    """What became of an inference request: answers for all rows, or an error in one sentence with its kind in `code`."""

    type: Literal["inference-answered"] = "inference-answered"
    request_id: str = Field(default="", description="empty where the request could not be read so far")
    model: str = ""
    arm: Arm | None = None
    version: int | None = Field(default=None, ge=1)
    revision: int | None = Field(default=None, ge=0)
    answers: tuple[AnsweredRow, ...] = ()
    code: str | None = None
    error: str | None = None
    trigger: Trigger
    request_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the request's value")
    time: AwareDatetime


# ---------------------------------------------------------------- statistics


class FrequentValue(Value):
    """A value that came often: at least `count` times, and at most `frequent_error` times more."""

    value: float | str
    count: int = Field(ge=1)


class NumericalSummary(Value):
    """Mergeable statistics of a numerical column. `m2` is the sum of squared deviations from the mean (Welford)."""

    type: Literal["numerical"] = "numerical"
    count: int = Field(default=0, ge=0, description="values present")
    missing: int = Field(default=0, ge=0)
    out_of_limits: int = Field(default=0, ge=0)
    mean: float = 0.0
    m2: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    quantiles: str = Field(default="", description="a KLL sketch of the values, base64; empty when count is 0")
    distinct: str = Field(default="", description="a distinct-count sketch of the values, base64; empty for none")
    frequent: tuple[FrequentValue, ...] = Field(default=(), description="the most frequent values, most frequent first")
    frequent_error: int = Field(default=0, ge=0, description="by how much a count in `frequent` may be too low")


class CategoricalSummary(Value):
    """Mergeable statistics of a categorical column."""

    type: Literal["categorical"] = "categorical"
    count: int = Field(default=0, ge=0, description="values present")
    missing: int = Field(default=0, ge=0)
    unseen: int = Field(default=0, ge=0, description="values outside the spec's categories")
    counts: dict[str, int] = Field(default={}, description="values by category")
    unseen_counts: dict[str, int] = Field(default={}, description="the first unseen values in the order of text")
    distinct: str = Field(
        default="", description="a distinct-count sketch of the unseen values, base64; empty for none"
    )


ColumnSummary = Annotated[NumericalSummary | CategoricalSummary, Field(discriminator="type")]


class Slice(Value):
    """A part of a window's events: those that one version served on one arm, or those of one protected group.

    Exactly one of the two pairs is given: `arm` (with `version`, where the arm has one), or `attribute` and `group`.
    A shadow's slice has the outputs of the shadow, and no features of its own: they are those of the whole window.
    """

    arm: Arm | None = None
    version: int | None = Field(default=None, ge=1)
    attribute: str | None = None
    group: str | None = None
    events: int = Field(ge=0)
    columns: dict[str, ColumnSummary]


class SampledRow(Value):
    """One event of a window's row sample: its place in the log, the pseudo-random rank that chose it, its values."""

    rank: float = Field(ge=0, le=1, description="uniform; the sample holds the rows of the lowest ranks")
    partition: Offset
    offset: Offset
    values: dict[str, FeatureValue]


class PartialSummarised(Event):
    """Cumulative statistics of a part of one window as one source partition has seen it, through `through_offset`.

    A part is what one version served (in `slices`), what nobody served (in `columns`), a shadow, a protected group, a
    chunk of features that are not sliced, or the row sample; without a name (written by older versions) it is the whole.
    The columns are the features and, where present, `prediction`, `probability`, `probability_if_positive`,
    `probability_if_negative` and `latency_ms`. A later partial of the same source, window and part replaces this one:
    applying it is a maximum over `through_offset`.
    """

    type: Literal["partial-summarised"] = "partial-summarised"
    model: Name
    spec_revision: int = Field(ge=1)
    window: WindowSpan
    part: str = Field(
        default="", description="which part of the window; together with the source and the window, its key"
    )
    source: LogRange = Field(description="the source log, from the part's first event through the last offset read")
    events: int = Field(ge=0, description="what this part adds to the window's events")
    columns: dict[str, ColumnSummary]
    slices: tuple[Slice, ...] = ()
    sample: tuple[SampledRow, ...] = Field(default=(), description="a uniform sample of the rows, lowest rank first")
    watermark: AwareDatetime = Field(description="an event time that the source partition has passed, for this model")


class WindowSummarised(Event):
    """Statistics of one window over all partitions. `closed` once the watermark has passed its end and the lateness."""

    type: Literal["window-summarised"] = "window-summarised"
    model: Name
    spec_revision: int = Field(ge=1)
    window: WindowSpan
    events: int = Field(ge=0)
    columns: dict[str, ColumnSummary]
    slices: tuple[Slice, ...] = ()
    sample: tuple[SampledRow, ...] = Field(default=(), description="a uniform sample of the rows, lowest rank first")
    closed: bool
    derived_from: LogRanges


# ---------------------------------------------------------------- specs, training, versions


class SpecApplied(Event):
    """A model spec took effect; `spec_revision` counts the model's specs from 1."""

    type: Literal["spec-applied"] = "spec-applied"
    model: Name
    spec_revision: int = Field(ge=1)
    spec: ModelSpec
    applied_by: str
    time: AwareDatetime


class SpecTookEffect(Event):
    """From `from_offset` of this log on, a model's events are checked by this revision of its spec.

    It carries the spec, so that the log can be read again as it was read then: `model-specs` keeps the newest only.
    """

    type: Literal["spec-took-effect"] = "spec-took-effect"
    model: Name
    spec_revision: int = Field(ge=1)
    topic: str
    partition: Offset
    from_offset: Offset
    spec: ModelSpec
    time: AwareDatetime


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
    metrics: dict[str, float] = {}
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
    metrics: dict[str, float] = {}
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
    paused: dict[Line, str] = Field(default={}, description="lines whose automatic promotions are paused, and why")
    reason: str
    evidence: tuple[Evidence, ...] = ()
    time: AwareDatetime


# ---------------------------------------------------------------- monitoring


class ArmsCompared(Event):
    """Candidate against champion on the same labelled examples, by an anytime-valid sequential test.

    `mean_difference` is champion's loss less candidate's (positive: the candidate is better), with its confidence
    sequence at the rollout's error rate. `verdict` may be acted on whenever it is given.
    """

    type: Literal["arms-compared"] = "arms-compared"
    evaluation_id: Identifier
    model: Name
    champion: int
    candidate: int
    stage: Literal["shadow", "canary"]
    examples: int = Field(ge=0)
    stage_examples: int = Field(ge=0, description="examples since the candidate entered this stage")
    champion_accuracy: float | None = Field(default=None, description="of a binary model")
    candidate_accuracy: float | None = Field(default=None, description="of a binary model")
    champion_metrics: dict[str, float] = Field(default={}, description="of a regression: mae, rmse, bias")
    candidate_metrics: dict[str, float] = Field(default={}, description="of a regression: mae, rmse, bias")
    mean_difference: float
    lower: float
    upper: float
    verdict: Literal["better", "worse", "undecided"]
    derived_from: LogRanges
    time: AwareDatetime


class Bounds(Value):
    """A confidence interval, both ends included. An `upper` of None: there is no upper bound."""

    lower: float
    upper: float | None


class GroupRates(Value):
    """One protected group in a cohort. Rates are None where their denominator is 0; intervals hold at 95 % each.

    An intersection of attributes has both names in `attribute` (`SEX x RAC1P`) and each one's value in `cell`.
    """

    attribute: str
    group: str
    examples: int
    selection_rate: float | None = None
    true_positive_rate: float | None = None
    false_positive_rate: float | None = None
    accuracy: float | None = None
    cell: dict[str, str] = {}
    judged: bool = Field(default=False, description="whether there are enough examples to compare it with others")
    selection_interval: Bounds | None = None
    true_positive_interval: Bounds | None = None
    false_positive_interval: Bounds | None = None
    accuracy_interval: Bounds | None = None
    mae_interval: Bounds | None = None
    bias_interval: Bounds | None = None
    metrics: dict[str, float] = Field(default={}, description="of a regression: mae, rmse, bias")


class GroupsCompared(Value):
    """A rate, or an error, of one protected group against that of another one of the same attribute.

    `difference` is the group's rate less the reference's, `ratio` the group's over the reference's. The intervals hold
    together: with `confidence` all that were looked at, over all attributes, cover the truth at once.
    """

    attribute: str
    rate: FairnessRate | Literal["mae", "bias"]
    group: str
    reference: str
    difference: float
    difference_interval: Bounds
    ratio: float | None = Field(description="None where the reference's rate is 0")
    ratio_interval: Bounds
    confidence: float
    over: tuple[Literal["difference", "ratio"], ...] = Field(
        default=(), description="the limits of the spec that the interval says are broken"
    )


class PerformanceMeasured(Event):
    """How the served predictions of one prediction-time cohort did, on the labels known so far."""

    type: Literal["performance-measured"] = "performance-measured"
    evaluation_id: Identifier
    model: Name
    cohort: WindowSpan
    arm: Arm
    version: int | None = None
    examples: int
    accuracy: float | None = Field(default=None, description="of a binary model")
    metrics: dict[str, float] = Field(
        default={}, description="of a regression: mae, rmse, and bias (mean of prediction less label)"
    )
    groups: tuple[GroupRates, ...] = ()
    comparisons: tuple[GroupsCompared, ...] = Field(
        default=(), description="each judged group against the largest, and pairs that break a limit of the spec"
    )
    derived_from: LogRanges
    time: AwareDatetime


class Estimate(Value):
    """One figure of a cohort before all of its labels have come, and between what it lies."""

    value: float
    lower: float
    upper: float
    realised: float | None = Field(default=None, description="the same figure on the labels so far; None without any")


class PerformanceEstimated(Event):
    """How the served predictions of one cohort did, as far as one can tell before all of their labels have come.

    What is labelled counts as it is, and only the rest is estimated: with the last label the estimate is the realised
    performance. `doubts` say why the estimate may be wrong; it rests on labelled cohorts of the same version.
    """

    type: Literal["performance-estimated"] = "performance-estimated"
    evaluation_id: Identifier
    model: Name
    cohort: WindowSpan
    arm: Arm
    version: int | None = None
    method: Literal["confidence-based", "direct-loss"]
    events: int = Field(ge=0, description="served predictions of the cohort that can be estimated")
    labelled: int = Field(ge=0, description="those of them that are labelled")
    estimates: dict[str, Estimate]
    confidence: float = Field(description="with which each interval holds the realised figure")
    learned_on: int = Field(ge=0, description="labelled examples that the estimate was learned on")
    realised_coverage: float | None = Field(
        default=None, description="share of past cohorts whose realised performance lay in their first interval"
    )
    realised_cohorts: int = Field(default=0, ge=0, description="past cohorts that the share is of")
    doubts: tuple[str, ...] = Field(
        default=(), description="one sentence each; none: the assumption has not been seen to break"
    )
    derived_from: LogRanges
    time: AwareDatetime


class AlertRaised(Event):
    """Something moved: what, by how much, since when, from which log ranges, and what it led to."""

    type: Literal["alert-raised"] = "alert-raised"
    alert_id: Identifier
    model: Name
    kind: AlertKind
    subject: str = Field(description="the feature, version or group that moved")
    statistic: str
    value: float
    threshold: float
    since: AwareDatetime
    message: str
    led_to: str = Field(default="", description="the run of the training that it asks for")
    muted_by: str = Field(default="", description="who muted it; a muted alert asks for nothing and calls nobody")
    muted_until: AwareDatetime | None = None
    mute_id: str = ""
    derived_from: LogRanges
    time: AwareDatetime


class Mute(Value):
    """Alerts of a model that nobody wants to hear of for a while: who answers for that, why, and until when."""

    mute_id: Identifier
    kinds: tuple[AlertKind, ...] = Field(default=(), description="of these kinds; none: of every kind")
    subjects: tuple[str, ...] = Field(
        default=(), description="about these subjects, as shell patterns (`RAC1P*`); none: about every subject"
    )
    owner: str
    reason: str
    muted_by: str
    since: AwareDatetime
    until: AwareDatetime

    def covers(self, kind: str, subject: str, moment: datetime) -> bool:
        """Whether an alert at this moment is muted."""
        return (
            self.since <= moment < self.until
            and (not self.kinds or kind in self.kinds)
            and (not self.subjects or any(fnmatchcase(subject, pattern) for pattern in self.subjects))
        )


class MutesChanged(Event):
    """All mutes of a model as they now stand (compacted by model); those that have ended go with the next change."""

    type: Literal["mutes-changed"] = "mutes-changed"
    model: Name
    sequence: int = Field(ge=1)
    mutes: tuple[Mute, ...] = ()
    time: AwareDatetime


# ---------------------------------------------------------------- commands and audit


class ApplySpec(Value):
    """Make this the model's spec."""

    command: Literal["apply-spec"] = "apply-spec"
    spec: ModelSpec


class PromoteVersion(Value):
    """Make this version the champion."""

    command: Literal["promote"] = "promote"
    version: int = Field(ge=1)


class RejectVersion(Value):
    """Take this candidate out of shadow or canary for good."""

    command: Literal["reject"] = "reject"
    version: int = Field(ge=1)


class RollbackModel(Value):
    """Return to the champion before this one."""

    command: Literal["rollback"] = "rollback"


class PauseRollout(Value):
    """Promote nothing automatically until the rollout is resumed."""

    command: Literal["pause"] = "pause"


class ResumeRollout(Value):
    """Promote automatically again, after a pause by a person or by a rollback."""

    command: Literal["resume"] = "resume"


class TrainModel(Value):
    """Train the model in batch on its newest examples."""

    command: Literal["train"] = "train"


class MuteAlerts(Value):
    """Stay quiet about these alerts until then. They are still found, recorded and shown, as muted."""

    command: Literal["mute-alerts"] = "mute-alerts"
    kinds: tuple[AlertKind, ...] = ()
    subjects: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=50)
    owner: str = Field(min_length=1, max_length=200, description="who answers for the silence")
    until: AwareDatetime


class UnmuteAlerts(Value):
    """End a mute before its time."""

    command: Literal["unmute-alerts"] = "unmute-alerts"
    mute_id: Identifier


Command = Annotated[
    ApplySpec
    | PromoteVersion
    | RejectVersion
    | RollbackModel
    | PauseRollout
    | ResumeRollout
    | TrainModel
    | MuteAlerts
    | UnmuteAlerts,
    Field(discriminator="command"),
]


class CommandIssued(Event):
    """A person or a tool asks the registry for something; the answer is the audit entry with the same command_id."""

    type: Literal["command-issued"] = "command-issued"
    command_id: Identifier
    model: Name
    command: Command
    issued_by: str
    reason: str = ""
    time: AwareDatetime


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


class EventParked(Event):
    """A record that could not be handled, whole, so that it can be replayed. Bytes are base64."""

    type: Literal["event-parked"] = "event-parked"
    topic: str
    partition: Offset
    offset: Offset
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...] = ()
    timestamp_ms: int
    code: str = Field(description="one of a closed list, such as `unknown-model`")
    reason: str = Field(description="one sentence for a person")
    attempts: int = Field(ge=1)
    service: str
    role: str
    model: str | None = None
    time: AwareDatetime


class EventReplayed(Event):
    """A parked record is published again: `started` is said before, `done` once the broker has acknowledged it."""

    type: Literal["event-replayed"] = "event-replayed"
    topic: str = Field(description="with partition and offset: the record that was parked first")
    partition: Offset
    offset: Offset
    stage: Literal["started", "done"]
    replayed_by: str
    time: AwareDatetime


EVENTS: tuple[type[Event], ...] = (
    PredictionMade,
    LabelGiven,
    ExampleLabelled,
    CoverageMeasured,
    InferenceRequested,
    InferenceAnswered,
    PartialSummarised,
    WindowSummarised,
    SpecApplied,
    SpecTookEffect,
    TrainingRequested,
    TrainingProgressed,
    CandidateTrained,
    RevisionTrained,
    VersionChanged,
    DeploymentChanged,
    ArmsCompared,
    PerformanceMeasured,
    PerformanceEstimated,
    AlertRaised,
    MutesChanged,
    CommandIssued,
    AuditRecorded,
    EventParked,
    EventReplayed,
)
"""Every event, in the order of the story."""

AnyEvent = Annotated[
    PredictionMade
    | LabelGiven
    | ExampleLabelled
    | CoverageMeasured
    | InferenceRequested
    | InferenceAnswered
    | PartialSummarised
    | WindowSummarised
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
    | EventParked
    | EventReplayed,
    Field(discriminator="type"),
]

_ANY: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def decode(value: bytes) -> Event:
    """The event in a topic's value. Raises pydantic.ValidationError when it is none of ours."""
    return _ANY.validate_json(value)


def utc(moment: datetime) -> str:
    """RFC 3339 in UTC with a `Z`, as the events are written."""
    return moment.isoformat().replace("+00:00", "Z")
