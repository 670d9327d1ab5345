"""Statistics of windows: mergeable summaries of columns, by partition and over all partitions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import Arm, FeatureValue, WindowSpan
from tailrace_contracts.ranges import LogRange, LogRanges, Offset
from tailrace_contracts.spec import Name


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
    chunk of features that are not sliced, the row sample, or the late events; without a name (written by older versions)
    it is the whole.
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
    late: int = Field(default=0, ge=0, description="what this part adds to the window's `late`")
    columns: dict[str, ColumnSummary]
    slices: tuple[Slice, ...] = ()
    sample: tuple[SampledRow, ...] = Field(default=(), description="a uniform sample of the rows, lowest rank first")
    watermark: AwareDatetime = Field(description="an event time that the source partition has passed, for this model")


class WindowSummarised(Event):
    """Statistics of one window over all partitions. `closed` once the watermark has passed its end and the lateness.

    Every valid event is counted once over all windows: in `events` of its own, or, when its source partition had closed
    that, in `late` of the window that was the newest there when it came.
    """

    type: Literal["window-summarised"] = "window-summarised"
    model: Name
    spec_revision: int = Field(ge=1)
    window: WindowSpan
    events: int = Field(ge=0)
    late: int = Field(default=0, ge=0, description="events that came while this was the newest, too late for their own")
    columns: dict[str, ColumnSummary]
    slices: tuple[Slice, ...] = ()
    sample: tuple[SampledRow, ...] = Field(default=(), description="a uniform sample of the rows, lowest rank first")
    closed: bool
    derived_from: LogRanges
