"""The running accuracy of each arm: for people who look at the console, and for Prometheus."""

from __future__ import annotations

from pydantic import BaseModel

RECENT = 500
"""Answers that the recent accuracy looks back on."""

SERVED = "served"
"""The pseudo-arm of what the users got, whichever version it came from."""


class Score(BaseModel):
    """One version's answers, in all arms it has been in; `arm` is the newest."""

    arm: str
    version: int | None
    examples: int = 0
    correct: int = 0
    hits: str = ""

    def count(self, arm: str, right: bool) -> None:
        """One more answer."""
        self.arm = arm
        self.examples += 1
        self.correct += right
        self.hits = (self.hits + ("1" if right else "0"))[-RECENT:]

    @property
    def accuracy(self) -> float:
        """Over all answers."""
        return self.correct / self.examples if self.examples else 0.0

    @property
    def recent_accuracy(self) -> float:
        """Over the newest answers."""
        return self.hits.count("1") / len(self.hits) if self.hits else 0.0
