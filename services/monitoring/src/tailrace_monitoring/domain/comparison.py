"""Candidate against champion, on the labelled examples that both answered.

The difference of their 0/1 losses goes into an anytime-valid test (`tailrace_statistics.sequential`): its verdict may be
acted on whenever it is given. A comparison is of one candidate with one champion. It starts anew when the champion
changes, and when the champion's concept has drifted: what two models did before does not say which is better now. It
also starts anew for a continual version after `rollout.max_examples`, because that version is no longer the one that
answered then; so each of its comparisons has the error rate of the spec for itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from tailrace_contracts.events import ArmsCompared
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import Rollout
from tailrace_monitoring.domain.spans import Spans
from tailrace_statistics.sequential import PairedComparison, Verdict

Trial = Literal["shadow", "canary"]


class Comparison(BaseModel):
    """The state of one comparison. `announced` is the verdict that was published last."""

    champion: int
    candidate: int
    stage: Trial
    stage_examples: int = 0
    champion_correct: int = 0
    candidate_correct: int = 0
    test: dict[str, float]
    spans: Spans = Spans()
    announced: Verdict | None = None
    announced_at: int = 0
    unpublished: bool = False

    @classmethod
    def start(cls, champion: int, candidate: int, stage: Trial, error_rate: float) -> Comparison:
        """A comparison without examples."""
        return cls(champion=champion, candidate=candidate, stage=stage, test=PairedComparison(error_rate).dump())

    @property
    def examples(self) -> int:
        """Examples that both answered since the comparison began."""
        return int(self.test["examples"])

    def enter(self, stage: Trial) -> None:
        """The candidate is in this stage now."""
        if stage != self.stage:
            self.stage, self.stage_examples, self.announced_at = stage, 0, 0

    def fold(self, log: Log, offset: int, *, champion_wrong: int, candidate_wrong: int, in_stage: bool) -> None:
        """Add one example. `in_stage` where the candidate answered it in the stage that it is in now."""
        test = PairedComparison.load(self.test)
        test.update([champion_wrong - candidate_wrong])
        self.test = test.dump()
        self.champion_correct += 1 - champion_wrong
        self.candidate_correct += 1 - candidate_wrong
        self.stage_examples += in_stage
        self.spans.add(log, offset)
        self.unpublished = True

    def restart(self) -> None:
        """Forget what was compared; the stage goes on."""
        error_rate = self.test["error_rate"]
        fresh = Comparison.start(self.champion, self.candidate, self.stage, error_rate)
        self.test, self.spans, self.unpublished = fresh.test, fresh.spans, False
        self.champion_correct = self.candidate_correct = 0
        self.announced = None

    def is_urgent(self, rollout: Rollout) -> bool:
        """Whether the registry may act on it now and could not on what was published last."""
        verdict = PairedComparison.load(self.test).result().verdict
        least = rollout.canary_min_examples if self.stage == "canary" else rollout.shadow_min_examples
        enough = self.announced_at < least <= self.stage_examples
        return verdict != self.announced or (enough and verdict != "undecided")

    def publish(self, evaluation_id: str, model: str, now: datetime) -> ArmsCompared:
        """The event that says how it stands; it counts as published from now on."""
        result = PairedComparison.load(self.test).result()
        self.announced, self.announced_at, self.unpublished = result.verdict, self.stage_examples, False
        count = max(1, self.examples)
        return ArmsCompared(
            evaluation_id=evaluation_id,
            model=model,
            champion=self.champion,
            candidate=self.candidate,
            stage=self.stage,
            examples=self.examples,
            stage_examples=self.stage_examples,
            champion_accuracy=self.champion_correct / count,
            candidate_accuracy=self.candidate_correct / count,
            mean_difference=result.mean,
            lower=result.lower,
            upper=result.upper,
            verdict=result.verdict,
            derived_from=self.spans.ranges(),
            time=now,
        )
