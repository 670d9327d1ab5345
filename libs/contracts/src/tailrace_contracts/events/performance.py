"""Performance: arms compared, and cohorts measured or estimated, over protected groups too."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import Arm, Identifier, WindowSpan
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import FairnessRate, GateMetric, Name


class Bounds(Value):
    """A confidence interval, both ends included. An `upper` of None: there is no upper bound."""

    lower: float
    upper: float | None


class GroupWorsened(Value):
    """One protected group under candidate and champion, on the same examples.

    `worsening` says by how much the group fares worse with the candidate; its interval holds at every moment, together
    with those of the other groups.
    """

    attribute: str
    group: str
    examples: int = Field(ge=0, description="that the metric is of: of a true positive rate the positive ones")
    champion: float
    candidate: float
    worsening: float
    interval: Bounds


class AnswersMeasured(Value):
    """How a version answered on trial: rows, those that it failed on, and the time that a call with one row took."""

    version: int = Field(ge=1)
    answered: int = Field(ge=0)
    failed: int = Field(ge=0)
    failed_interval: Bounds | None = Field(default=None, description="of the share of failed rows, Wilson's at 95 %")
    timed: int = Field(default=0, ge=0, description="calls that were timed")
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_interval: Bounds | None = Field(default=None, description="at 95 %, by the order of the times")


class InputMeasured(Value):
    """What came in during a trial: for each feature the shares of bad and of missing values, where there are any."""

    events: int = Field(ge=0)
    invalid_rates: dict[str, float] = Field(default={})
    missing_rates: dict[str, float] = Field(default={})
    windows: int = Field(ge=0)
    derived_from: LogRanges


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
    group_metric: GateMetric | None = Field(default=None, description="what `groups` are compared by")
    groups: tuple[GroupWorsened, ...] = Field(default=(), description="where the spec asks how groups fare")
    answers: tuple[AnswersMeasured, ...] = Field(default=(), description="of champion and candidate in this stage")
    answers_from: LogRanges = Field(default=LogRanges(), description="what `answers` were computed from")
    input: InputMeasured | None = None
    derived_from: LogRanges
    time: AwareDatetime


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
    cell: dict[str, str] = Field(default={})
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
