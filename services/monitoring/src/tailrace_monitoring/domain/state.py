"""What a watch on one model consists of: the state that is stored, what comes in, and what one call changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import Event, ExampleLabelled, WindowSummarised
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import ConceptDriftMonitor
from tailrace_monitoring.domain.answering import Answering
from tailrace_monitoring.domain.cohorts import CohortKey
from tailrace_monitoring.domain.comparison import Comparison
from tailrace_monitoring.domain.concept import Detector
from tailrace_monitoring.domain.estimation import Trust
from tailrace_monitoring.domain.label_drift import LabelDrift
from tailrace_monitoring.domain.lessons import Lesson
from tailrace_monitoring.domain.multivariate import RowDrift
from tailrace_monitoring.domain.retraining import RetrainingState
from tailrace_monitoring.domain.scores import Score
from tailrace_monitoring.domain.trail import Step
from tailrace_monitoring.domain.windows import DriftState, Measured, Merge

DetectorMaker = Callable[[ConceptDriftMonitor], Detector]


class ModelState(BaseModel):
    """What has to outlive a process, small enough to be written with every batch."""

    through: dict[str, int] = {}
    extents: dict[str, int] = {}
    marks: dict[str, list[Any]] = {}
    examples: int = 0
    watermark: datetime | None = None
    regime: datetime | None = None
    champion: int | None = None
    sequence: int = 0
    alarm_from: int = 1
    comparisons: dict[int, Comparison] = {}
    scores: dict[str, Score] = {}
    breached: dict[str, datetime] = {}
    hushed: list[str] = []
    window_ranges: dict[datetime, LogRanges] = {}
    drift: DriftState = DriftState()
    rows: RowDrift = RowDrift()
    labels: LabelDrift = LabelDrift()
    trust: Trust = Trust()
    retraining: RetrainingState = RetrainingState()
    answering: Answering = Answering()


class Placed(NamedTuple):
    """A labelled example and where it stands."""

    log: Log
    offset: int
    example: ExampleLabelled


class Distances(NamedTuple):
    """What one closed window measured."""

    window: WindowSummarised
    measured: Sequence[Measured]


@dataclass(slots=True)
class Changes:
    """What one call changed, beside the state."""

    events: list[Event] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    cohorts: set[CohortKey] = field(default_factory=set)
    lessons: list[Lesson] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    window: WindowSummarised | None = None
    touched: bool = False


class Tools(NamedTuple):
    """What the domain is given from outside: detectors, merging of summaries, identifiers."""

    detector: DetectorMaker
    merge: Merge
    new_id: Callable[[], str]
