"""How versions answer, as serving measures it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event, Value
from tailrace_contracts.events.vocabulary import Arm, Identifier
from tailrace_contracts.spec import Name


class ArmMeasured(Value):
    """What became of one version's calls in one arm during a short span.

    `durations` counts the timed calls, each with a single row, by bucket (`tailrace_contracts.durations`).
    """

    arm: Arm
    version: int = Field(ge=1)
    answered: int = Field(default=0, ge=0, description="rows answered")
    failed: int = Field(default=0, ge=0, description="rows that the version failed on")
    durations: dict[int, int] = Field(default={})


class ServingMeasured(Event):
    """How one process of serving answered for one model between two moments. Every call counts in one such event.

    It is measured where the calls are made, so there is no log that it derives from. `process` and `sequence` tell a
    repetition: of one process they come in order.
    """

    type: Literal["serving-measured"] = "serving-measured"
    model: Name
    process: Identifier = Field(description="of one start of one process")
    sequence: int = Field(ge=1)
    since: AwareDatetime
    arms: tuple[ArmMeasured, ...]
    time: AwareDatetime
