"""The model spec: the one YAML file that describes a model to Tailrace.

It says what the model is asked (features, their types and limits), what the truth looks like (the label), who learns
it (a batch learner, an online learner, or nobody: producers may bring their own predictions), what is watched, when
to retrain, and what a candidate has to show before it serves. Unknown fields are refused: a typing error in a YAML
file must not become a default.
"""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A model's name: lower case letters, digits, `_` and `-`, at most 63 characters."""

FeatureName = Annotated[str, Field(min_length=1, max_length=128)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _null_word(value: object) -> object:
    return "null" if value is None else value


OnBadValue = Annotated[Literal["reject", "clip", "null", "flag"], BeforeValidator(_null_word)]
"""reject: the event goes to dead-letters. clip: to the nearest limit. null: the value becomes missing.
flag: it passes as it is. In all cases it is counted."""

OnMissing = Annotated[Literal["reject", "null", "flag"], BeforeValidator(_null_word)]
"""reject: the event goes to dead-letters. null, or flag: it passes, and the value stays missing. It is counted in all cases."""

OnUnseen = Annotated[Literal["reject", "null", "flag"], BeforeValidator(_null_word)]


def _unlimited(limit: float) -> BeforeValidator:
    return BeforeValidator(lambda value: limit if value is None else value)


_OPEN = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}], "default": None})
Lowest = Annotated[float, _unlimited(float("-inf")), _OPEN]
Highest = Annotated[float, _unlimited(float("inf")), _OPEN]
"""A limit that may be left open: JSON has no infinity, so an open limit is written as null."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """What a numerical feature can be, both ends included, in the feature's own unit."""

    min: Lowest = Field(default_factory=lambda: float("-inf"))
    max: Highest = Field(default_factory=lambda: float("inf"))

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min < self.max:
            msg = f"limits: min {self.min} must lie below max {self.max}"
            raise ValueError(msg)
        return self

    def clip(self, value: float) -> float:
        """The value, or the limit that it is beyond."""
        return min(max(value, self.min), self.max)


class NumericalFeature(_Part):
    """A number. NaN and infinities are never valid in an event; a missing value is null."""

    type: Literal["numerical"] = "numerical"
    name: FeatureName
    limits: Limits = Field(default_factory=Limits)
    on_out_of_limits: OnBadValue = "reject"
    on_missing: OnMissing = "reject"


class CategoricalFeature(_Part):
    """A word out of a known list. Producers send strings."""

    type: Literal["categorical"] = "categorical"
    name: FeatureName
    categories: tuple[str, ...] = Field(min_length=1)
    on_unseen: OnUnseen = "flag"
    on_missing: OnMissing = "reject"

    @field_validator("categories")
    @classmethod
    def _distinct(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({each for each in categories if categories.count(each) > 1})
        if twice:
            msg = f"category named twice: {', '.join(twice)}"
            raise ValueError(msg)
        return categories


Feature = Annotated[NumericalFeature | CategoricalFeature, Field(discriminator="type")]


HorizonDays = Annotated[float, Field(gt=0, description="how long, in event time, a prediction waits for a label")]


class ClassLabel(_Part):
    """The truth: `name` is the question's answer in the producers' words, `positive` the class that is predicted."""

    name: FeatureName
    classes: tuple[int, int] = (0, 1)
    positive: int = 1
    horizon_days: HorizonDays = 90

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> Self:
        if self.positive not in self.classes or self.classes[0] == self.classes[1]:
            msg = f"label: positive {self.positive} must be one of two different classes, found {self.classes}"
            raise ValueError(msg)
        return self


class NumericalLabel(_Part):
    """The truth of a regression: a number. Labels beyond the limits are refused, answers are moved to the limit.

    Two models are compared by an error between 0 and 1: the absolute error over `loss_scale`, cut at 1. So an error of
    `loss_scale` and one of ten times that count the same.
    """

    name: FeatureName
    limits: Limits = Field(default_factory=Limits)
    loss_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="the error that is as bad as any; default: max less min"
    )
    horizon_days: HorizonDays = 90

    @model_validator(mode="after")
    def _has_a_scale(self) -> Self:
        if self.loss_scale is None and not isfinite(self.limits.max - self.limits.min):
            msg = "a number needs limits with min and max, or a loss_scale: the error that is as bad as any"
            raise ValueError(msg)
        return self

    @property
    def scale(self) -> float:
        """The error that counts as 1, in the label's unit."""
        return self.loss_scale or self.limits.max - self.limits.min

    def loss(self, prediction: float, label: float) -> float:
        """The absolute error over the scale, cut at 1: what comparisons and detectors, which need a bound, are given."""
        return min(abs(prediction - label) / self.scale, 1.0)


Label = ClassLabel | NumericalLabel
"""The truth that a task asks for: a class (`binary`) or a number (`regression`)."""


class EventTime(_Part):
    """Which event times are believed.

    `clock: wall` compares with the time at which the broker received the event (live producers); `clock: stream` with the
    newest event time of the same partition (history played again, or a simulated clock).
    """

    clock: Literal["wall", "stream"] = "wall"
    max_ahead_days: float = Field(default=1, gt=0)
    max_behind_days: float = Field(default=365, gt=0)


class BatchLearner(_Part):
    """A torch network, trained anew on a slice of the log. Numbers are scaled, categories one-hot encoded."""

    kind: Literal["torch"] = "torch"
    hidden: tuple[Annotated[int, Field(gt=0, le=4096)], ...] = (128,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    epochs: int = Field(default=40, gt=0, le=10_000)
    batch_size: int = Field(default=128, gt=0)
    learning_rate: float = Field(default=0.02, gt=0, description="the highest of its one cycle")
    weight_decay: float = Field(default=0.1, ge=0)
    seed: int = 7
    evaluation_share: Share = Field(default=0.1, description="the newest share of the examples, kept for evaluation")
    min_examples: int = Field(default=500, gt=1)
    max_examples: int = Field(default=2_000, gt=1, description="the newest examples that a training reads")


class OnlineLearner(_Part):
    """A river pipeline that learns every labelled example in order and publishes revisions."""

    kind: Literal["river"] = "river"
    algorithm: Literal[
        "logistic-regression", "linear-regression", "hoeffding-adaptive-tree", "adaptive-random-forest"
    ] = Field(default="logistic-regression", description="default of a regression: linear-regression")
    seed: int = 7
    min_examples: int = Field(default=200, gt=0, description="before the first revision is offered as a candidate")
    revision_seconds: float = Field(default=0.5, gt=0, description="at least this long between two revisions")
    checkpoint_examples: int = Field(
        default=5_000, gt=0, description="at most this many examples between two checkpoints"
    )


class Learners(_Part):
    """Who learns this model: any, or nobody."""

    batch: BatchLearner | None = None
    online: OnlineLearner | None = None


class ReferencePeriod(_Part):
    """Event times that a stream is compared with, where there is no training set of ours: [start, end)."""

    start: datetime
    end: datetime


DistanceKind = Literal["psi", "kolmogorov-smirnov", "wasserstein", "jensen-shannon", "hellinger", "chi-squared"]


class DriftMonitor(_Part):
    """Distance of each closed window to the reference; a column whose distance passes its threshold has drifted."""

    distance: Literal["auto"] | DistanceKind = Field(
        default="auto", description="auto: by column type and size of the reference, as Evidently documents its default"
    )
    by_column: dict[FeatureName, DistanceKind] = Field(
        default={}, description="another distance for some columns, the label among them"
    )
    threshold: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of every distance; none: calibrated so that the model keeps expected_false_alarms"
    )
    min_examples: int = Field(default=200, gt=0, description="windows and groups with fewer events are not judged")
    consecutive_windows: int = Field(default=1, gt=0, le=5, description="in a row over the threshold before an alert")
    reference: ReferencePeriod | None = Field(default=None, description="default: the champion's training set")


class MultivariateMonitor(_Part):
    """A classifier on the row samples of window and reference, for drift that no single feature shows."""

    share: Share = Field(default=0.1, description="of the model's expected false alarms; the rest is the single tests'")
    min_rows: int = Field(default=200, gt=20, description="smaller samples, of either side, are not judged")


class ConceptDriftMonitor(_Part):
    """A detector on the champion's stream of errors (0 right, 1 wrong). `hddm` is another name of `hddm-a`."""

    detector: Literal["adwin", "ddm", "hddm-a", "hddm-w", "page-hinkley", "hddm"] = "adwin"
    delta: float = Field(default=0.0005, gt=0, lt=1, description="the detector's own significance level")
    min_examples: int = Field(default=200, gt=0)


class PerformanceMonitor(_Part):
    """Performance by prediction-time cohort, on labels as they come."""

    min_accuracy: Probability | None = Field(default=None, description="a cohort below it raises an alert")
    max_mae: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="regression: a cohort with a higher mean absolute error raises an alert"
    )
    max_rmse: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="regression: a cohort with a higher root mean squared error raises an alert"
    )


FairnessRate = Literal["selection_rate", "true_positive_rate", "false_positive_rate"]


class EstimationMonitor(_Part):
    """Performance estimated before labels come, learned on the newest labelled cohorts of the same version."""

    min_examples: int = Field(default=500, gt=0, description="labelled examples before a version is estimated")
    max_examples: int = Field(
        default=20_000, gt=0, description="the newest cohorts with about so many are learned from"
    )
    min_events: int = Field(default=100, gt=0, description="smaller windows are not estimated")
    confidence: Share = Field(
        default=0.95,
        description="with which an interval holds the realised figure, while equal inputs stay equally hard",
    )
    realised_at: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="labelled share of a cohort from which on its performance counts as realised"
    )
    alert: bool = Field(default=True, description="when the lower end lies below what `performance` asks for")


class FairnessMonitor(_Part):
    """Rates by protected group, on labelled examples of one cohort.

    A limit is broken where a confidence interval excludes it; the intervals of all comparisons of a cohort hold together.
    """

    rates: tuple[FairnessRate, ...] = Field(default=("selection_rate",), description="the rates that are judged")
    max_difference: Probability | None = Field(default=0.2, description="largest allowed gap between two groups")
    min_ratio: Share | None = Field(
        default=None, description="smallest allowed ratio of two groups, the lower over the higher; 0.8: four-fifths"
    )
    max_mae_difference: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="regression: largest allowed gap of mean absolute errors, in the label's unit"
    )
    max_bias_difference: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="regression: largest allowed gap of biases (mean of prediction less label)"
    )
    min_group_examples: int = Field(default=200, gt=0, description="smaller groups are shown and not judged")
    intersections: bool = Field(default=True, description="also judge the groups that two or more attributes make")
    error_rate: Share = Field(
        default=0.05, description="chance that a closed cohort alerts although no limit is truly broken"
    )
    alert: bool = True


class ServingMonitor(_Part):
    """How versions answer, as serving measures it: calls that fail, and how long calls take."""

    max_error_rate: Share | None = Field(
        default=0.01, description="a version that fails on a larger share of rows raises an alert; null: none does"
    )
    max_p99_ms: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="a version whose 99th percentile of call times is longer raises an alert"
    )


_PER_DAYS = r"^(\d+(?:\.\d+)?) per (\d+(?:\.\d+)?) days?$"


class Monitors(_Part):
    """What is watched. Windows are tumbling spans of event time."""

    window_days: float = Field(default=1, gt=0)
    allowed_lateness_days: float = Field(default=1, ge=0)
    expected_false_alarms: Annotated[str, Field(pattern=_PER_DAYS)] = Field(
        default="1 per 30 days",
        description=(
            "drift alerts while nothing moves, on features, predictions, labels and groups together: `1 per 30 days`; "
            "concept drift, performance and fairness have error rates of their own"
        ),
    )
    sample_rows: int = Field(default=200, ge=0, le=2_000, description="rows of a window that are kept as a sample")
    drift: DriftMonitor | None = DriftMonitor()
    multivariate: MultivariateMonitor | None = MultivariateMonitor()
    concept_drift: ConceptDriftMonitor | None = ConceptDriftMonitor()
    performance: PerformanceMonitor = PerformanceMonitor()
    estimation: EstimationMonitor | None = EstimationMonitor()
    fairness: FairnessMonitor = FairnessMonitor()
    serving: ServingMonitor = ServingMonitor()

    @field_validator("expected_false_alarms")
    @classmethod
    def _some(cls, words: str) -> str:
        if not all(float(number) > 0 for number in words.split()[:3:2]):
            msg = f"both numbers of {words!r} must be above 0"
            raise ValueError(msg)
        return words

    @property
    def false_alarms(self) -> tuple[float, float]:
        """How many false alarms are expected, in how many days."""
        count, _, days, _ = self.expected_false_alarms.split()
        return float(count), float(days)


class Retraining(_Part):
    """When monitoring asks for a batch training by itself."""

    after: tuple[Literal["concept-drift", "feature-drift", "performance"], ...] = ("concept-drift", "performance")
    cooldown_examples: int = Field(default=500, ge=0, description="labelled examples between two requests")
    settle_examples: int = Field(
        default=0,
        ge=0,
        description="labelled examples to gather after an alert before training, so that it sees the new regime",
    )


GateMetric = Literal["true_positive_rate", "false_positive_rate", "selection_rate", "accuracy", "mae"]


class FairnessGate(_Part):
    """No protected group may fare worse with the candidate than with the champion, on the same examples."""

    metric: GateMetric | None = Field(
        default=None,
        description="what must not get worse in any group; default: true_positive_rate, of a regression mae",
    )
    margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="how much worse a group may fare; of mae, a share of the label's scale"
    )
    min_group_examples: int = Field(
        default=200, gt=0, description="examples that a group's metric is of, before the group is judged"
    )


class DataQualityGate(_Part):
    """What came in during the trial was fit to judge by, of every feature."""

    max_invalid_rate: Probability = Field(
        default=0.05, description="largest share of values beyond the limits or outside the categories"
    )
    max_missing_rate: Probability | None = Field(default=None, description="largest share of missing values")
    min_events: int = Field(default=200, gt=0, description="events before it is judged")


class LatencyGate(_Part):
    """The candidate answers one row fast enough: in milliseconds, beside the champion, or both."""

    max_p99_ms: Annotated[float, Field(gt=0)] | None = None
    max_ratio: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="largest allowed ratio of its 99th percentile to the champion's"
    )
    min_calls: int = Field(default=500, gt=0, description="timed calls of each before it is judged")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.max_p99_ms is None and self.max_ratio is None:
            msg = "the latency gate needs max_p99_ms, max_ratio, or both"
            raise ValueError(msg)
        return self


class ErrorsGate(_Part):
    """The candidate fails on few rows."""

    max_error_rate: Share = 0.01
    min_rows: int = Field(default=500, gt=0, description="rows it was asked before it is judged")


class Gates(_Part):
    """What a candidate has to pass beside the comparison, in every stage. A gate that is not named is not there."""

    fairness: FairnessGate | None = None
    data_quality: DataQualityGate | None = None
    latency: LatencyGate | None = None
    errors: ErrorsGate | None = None


RollbackKind = Literal["performance", "errors", "latency", "fairness"]
ROLLBACK_KINDS: tuple[RollbackKind, ...] = ("performance", "errors", "latency", "fairness")


class Rollout(_Part):
    """What a candidate has to show. Counts are labelled examples on which candidate and champion both answered."""

    automatic: bool = Field(default=True, description="false: a person promotes")
    approval: bool = Field(
        default=False,
        description="true: only the last step, to champion, waits for a person; all before goes by itself",
    )
    shadow_min_examples: int = Field(default=100, gt=0)
    canary_percent: int = Field(default=20, gt=0, le=100)
    canary_min_examples: int = Field(default=100, gt=0)
    max_examples: int = Field(default=10_000, gt=0, description="a batch candidate undecided by then is rejected")
    error_rate: Share = Field(
        default=0.05,
        description="of each comparison, the chance that it ever calls an equal candidate better, however often one looks",
    )
    standby_examples: int = Field(
        default=1_000,
        ge=0,
        description="so long the champion before stands by, unseen, to return when it is better; 0: it does not",
    )
    gates: Gates = Gates()
    rollback_on: tuple[RollbackKind, ...] | None = Field(
        default=None,
        description="alerts on a new champion that return the last good version; null: all of them; []: none",
    )

    def returns_on(self, kind: str) -> bool:
        """Whether an alert of this kind on the champion may return the version before."""
        return kind in (ROLLBACK_KINDS if self.rollback_on is None else self.rollback_on)


class Explanations(_Part):
    """Which live predictions are explained off the response path. Asked for, any prediction is."""

    sample: Probability = Field(
        default=0, description="share of the live predictions; a hash of the prediction id draws"
    )
    permutations: int = Field(
        default=200, ge=2, le=2_000, description="orders walked for one answer of a model that does not add"
    )


class Serving(_Part):
    """How the model is served."""

    explanations: Explanations = Explanations()


class ModelSpec(_Part):
    """One model, whole. See `docs/reference/model-spec.md` for an annotated example."""

    model: Name
    owner: str = Field(min_length=1)
    description: str = ""
    task: Literal["binary", "regression"] = "binary"
    features: tuple[Feature, ...] = Field(min_length=1)
    label: Label
    protected: tuple[FeatureName, ...] = ()
    time: EventTime = EventTime()
    learners: Learners = Learners()
    monitors: Monitors = Monitors()
    retraining: Retraining = Retraining()
    rollout: Rollout = Rollout()
    capture: Literal["buffered", "acknowledged"] = "buffered"
    serving: Serving = Serving()

    @field_validator("label", mode="before")
    @classmethod
    def _label_of_the_task(cls, label: object, info: ValidationInfo) -> object:
        return (NumericalLabel if info.data.get("task") == "regression" else ClassLabel).model_validate(label)

    @field_validator("learners", mode="before")
    @classmethod
    def _learner_of_the_task(cls, learners: object, info: ValidationInfo) -> object:
        if info.data.get("task") == "regression" and isinstance(learners, dict):
            online = learners.get("online")
            if isinstance(online, dict):
                return {**learners, "online": {"algorithm": "linear-regression", **online}}
        return learners

    @model_validator(mode="after")
    def _parts_fit_the_task(self) -> Self:
        regression, online, performance = self.task == "regression", self.learners.online, self.monitors.performance
        wrong = "logistic-regression" if regression else "linear-regression"
        if online is not None and online.algorithm == wrong:
            fitting = "linear-regression" if regression else "logistic-regression"
            msg = f"learners.online: {wrong} does not learn the task {self.task}; name {fitting}, or a tree or forest"
            raise ValueError(msg)
        if regression and performance.min_accuracy is not None:
            msg = "monitors.performance: a regression has no accuracy; name max_mae or max_rmse"
            raise ValueError(msg)
        if not regression and (performance.max_mae, performance.max_rmse) != (None, None):
            msg = "monitors.performance: max_mae and max_rmse are a regression's; name min_accuracy"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _rollout_fits(self) -> Self:
        rollout, serving = self.rollout, self.monitors.serving
        asked = rollout.rollback_on or ()
        fairness = rollout.gates.fairness
        if (fairness is not None or "fairness" in asked) and not self.protected:
            msg = "rollout asks for fairness, and nothing is protected; name the features whose groups count there"
            raise ValueError(msg)
        if "latency" in asked and serving.max_p99_ms is None:
            msg = "rollout.rollback_on names latency, and monitors.serving.max_p99_ms does not say what is too slow"
            raise ValueError(msg)
        if "errors" in asked and serving.max_error_rate is None:
            msg = "rollout.rollback_on names errors, and monitors.serving.max_error_rate does not say how many are too many"
            raise ValueError(msg)
        if fairness is not None and fairness.metric is not None:
            regression = self.task == "regression"
            if regression != (fairness.metric == "mae"):
                fitting = "mae" if regression else "true_positive_rate, false_positive_rate, selection_rate or accuracy"
                msg = f"rollout.gates.fairness: a {self.task} model has no {fairness.metric}; name {fitting}"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"feature named twice: {', '.join(twice)}; every feature needs a name of its own"
            raise ValueError(msg)
        if self.label.name in names:
            msg = f"the label {self.label.name!r} is among the features; a model must not be told the answer"
            raise ValueError(msg)
        unknown = sorted(set(self.protected) - set(names))
        if unknown:
            msg = f"protected attribute {', '.join(unknown)} is not a feature; name one of the features"
            raise ValueError(msg)
        self._distances_fit()
        return self

    def _distances_fit(self) -> None:
        kinds = self.monitors.drift.by_column if self.monitors.drift else {}
        unknown = sorted(kinds.keys() - {*self.feature_names, self.label.name, "prediction", "probability"})
        if unknown:
            msg = f"drift.by_column names {', '.join(unknown)}; name features, the label, prediction or probability"
            raise ValueError(msg)
        unordered = {each.name for each in self.features if isinstance(each, CategoricalFeature)}
        unordered |= {self.label.name} if isinstance(self.label, ClassLabel) else set()
        for name in sorted(unordered):
            if kinds.get(name) == "wasserstein":
                msg = f"drift.by_column: {name} is categorical and has no order, as wasserstein needs"
                raise ValueError(msg)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features' names, in the order of the spec: the column order of every matrix made from it."""
        return tuple(feature.name for feature in self.features)

    @property
    def fairness_gate(self) -> tuple[FairnessGate, GateMetric]:
        """The gate on groups, or what it would be, and the metric that it is about."""
        gate = self.rollout.gates.fairness or FairnessGate()
        return gate, gate.metric or ("mae" if self.task == "regression" else "true_positive_rate")

    @property
    def class_label(self) -> ClassLabel:
        """The label of a binary model, for code that is reached by no other. Raises TypeError for another task."""
        if not isinstance(self.label, ClassLabel):
            msg = f"model {self.model} is a {self.task}, expected a binary one"
            raise TypeError(msg)
        return self.label


class SpecError(ValueError):
    """A spec that cannot be used; its text is one sentence for the person who wrote it."""


def _sentence(source: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in {"numerical", "categorical"}) or "the spec"
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        what = "unknown field; remove it or correct its name"
    elif first["type"] == "missing":
        what = "this field is required"
    elif not isinstance(first["input"], dict | list):
        what = f"{what}, found {first['input']!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{source}: {where}: {what}{more}"


def parse_spec(document: Any, source: str = "spec") -> ModelSpec:
    """A spec from a parsed YAML or JSON document.

    Raises SpecError with one sentence that names `source`, the field, what was found and what was expected.
    """
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        msg = f"{source}: expected a mapping with at least model, owner, features and label, found {found}"
        raise SpecError(msg)
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(_sentence(source, error)) from None


def load_spec(path: Path) -> ModelSpec:
    """A spec from a YAML file. Raises SpecError (unreadable file, not YAML, or not a spec)."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); name an existing YAML file"
        raise SpecError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        msg = f"{path}: not valid YAML{place}; correct the file and apply it again"
        raise SpecError(msg) from None
    return parse_spec(document, str(path))
