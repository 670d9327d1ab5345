"""Labels: the truth for a prediction, the example that the two make, and how many predictions have one."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event
from tailrace_contracts.events.predictions import ArmOutput
from tailrace_contracts.events.vocabulary import FeatureValue, Identifier, Outcome, WindowSpan
from tailrace_contracts.ranges import LogRanges, Offset, Trigger
from tailrace_contracts.spec import Name


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
