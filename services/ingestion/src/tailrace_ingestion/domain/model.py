"""What the checks and the windows know of one model: its spec, and what follows from a revision of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tailrace_contracts.spec import CategoricalFeature, ClassLabel, ModelSpec
from tailrace_ingestion.domain.checks import CompiledSpec, Floats
from tailrace_ingestion.domain.event_time import DAY_SECONDS, TimeRule
from tailrace_ingestion.domain.parts import Plan, plan_of


@dataclass(frozen=True, slots=True)
class Shape:
    """What a revision of a spec says about windows and columns."""

    spec: ModelSpec
    revision: int
    plan: Plan = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", plan_of(self.spec))

    @property
    def width(self) -> float:
        """A window's length in seconds."""
        return self.spec.monitors.window_days * DAY_SECONDS

    @property
    def lateness(self) -> float:
        """How long after its end a window takes events, in seconds of event time."""
        return self.spec.monitors.allowed_lateness_days * DAY_SECONDS

    def window_of(self, moments: Floats) -> Floats:
        """Where the windows of these event times begin, both in seconds since 1970."""
        return moments // self.width * self.width

    def categories(self, name: str) -> tuple[str, ...]:
        """The known words of a categorical column."""
        for feature in self.spec.features:
            if feature.name == name and isinstance(feature, CategoricalFeature):
                return feature.categories
        label = self.spec.label
        return tuple(str(each) for each in label.classes) if isinstance(label, ClassLabel) else ()


class Model(NamedTuple):
    """Everything that the checks know about one model."""

    compiled: CompiledSpec
    rule: TimeRule
    shape: Shape
