"""What a batch run has decided before it trains, kept so that a second life decides nothing anew."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tailrace_contracts.events import SpecApplied
from tailrace_contracts.ranges import LogRanges


class Plan(BaseModel):
    """The ranges that a run reads, and the spec that it follows."""

    model_config = ConfigDict(frozen=True)

    ranges: LogRanges
    applied: SpecApplied
