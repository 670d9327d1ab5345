"""Candidate against champion, on the labelled examples that both answered.

The difference of their losses (0 or 1; of a regression the error over the label's scale, cut at 1) goes into an
anytime-valid test (`tailrace_statistics.sequential`): its verdict may be acted on whenever it is given. A comparison is of one candidate with one champion. It starts anew when the champion
changes, and when the champion's concept has drifted: what two models did before does not say which is better now. It
also starts anew for a continual version after `rollout.max_examples`, because that version is no longer the one that
answered then; so each of its comparisons has the error rate of the spec for itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from pydantic import BaseModel

from tailrace_contracts.events import (
    AnswersMeasured,
    ArmMeasured,
    ArmOutput,
    ArmsCompared,
    ExampleLabelled,
    ServingMeasured,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import Gates, ModelSpec, NumericalLabel, Rollout
from tailrace_monitoring.domain.arms import loss
from tailrace_monitoring.domain.spans import Spans
from tailrace_monitoring.domain.trial import Answers, GroupTrial, TrialInput
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.sequential import PairedComparison, Verdict

Trial = Literal["shadow", "canary"]


class Placed(Protocol):
    """A labelled example and where it stands."""

    @property
    def log(self) -> Log:
        """Its log."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the log."""
        ...

    @property
    def example(self) -> ExampleLabelled:
        """The example."""
        ...


class Comparison(BaseModel):
    """The state of one comparison. `announced` is the verdict that was published last."""

    champion: int
    candidate: int
    stage: Trial
    stage_examples: int = 0
    champion_correct: int = 0
    candidate_correct: int = 0
    champion_errors: ErrorSums = ErrorSums()
    candidate_errors: ErrorSums = ErrorSums()
    test: dict[str, float]
    spans: Spans = Spans()
    announced: Verdict | None = None
    announced_at: int = 0
    unpublished: bool = False
    groups: GroupTrial = GroupTrial()
    champion_answers: Answers = Answers()
    candidate_answers: Answers = Answers()
    answers_spans: Spans = Spans()
    input: TrialInput = TrialInput()
    gates_news: bool = False

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
            self.champion_answers, self.candidate_answers = Answers(), Answers()
            self.answers_spans, self.input = Spans(), TrialInput()

    def fold(self, placed: Placed, champion: ArmOutput, candidate: ArmOutput, spec: ModelSpec) -> None:
        """Add one example. It counts for the stage where the candidate answered it in the one that it is in now."""
        label = spec.label
        given, in_stage = placed.example.label, candidate.arm == self.stage
        champion_loss, candidate_loss = loss(champion, given, label), loss(candidate, given, label)
        test = PairedComparison.load(self.test)
        test.update([champion_loss - candidate_loss])
        self.test = test.dump()
        if isinstance(label, NumericalLabel):
            self.champion_errors = self.champion_errors.plus(ErrorSums.of(champion.prediction, given))
            self.candidate_errors = self.candidate_errors.plus(ErrorSums.of(candidate.prediction, given))
        else:
            self.champion_correct += int(1 - champion_loss)
            self.candidate_correct += int(1 - candidate_loss)
        if asks_for_groups(spec):
            self.groups.fold(placed.example, champion, candidate, spec)
        self.stage_examples += in_stage
        self.spans.add(placed.log, placed.offset)
        self.unpublished = True

    def answer(self, log: Log, offset: int, measured: ServingMeasured) -> bool:
        """Count how both answered, each in its present arm. Whether either was asked."""
        champion = self.champion_answers.fold(_of(measured, "champion", self.champion))
        candidate = self.candidate_answers.fold(_of(measured, self.stage, self.candidate))
        if champion or candidate:
            self.answers_spans.add(log, offset)
            self.gates_news = True
        return champion or candidate

    def take_input(self, window: WindowSummarised, spec: ModelSpec) -> bool:
        """Remember what came in, where the candidate answered it. Whether it did."""
        answered = any(part.arm == self.stage and part.version == self.candidate for part in window.slices)
        if answered:
            self.input.take(window, spec)
            self.gates_news = True
        return answered

    @property
    def ahead(self) -> bool:
        """Whether the candidate has been better so far, by chance or not."""
        return PairedComparison.load(self.test).result().mean > 0

    def has_news(self, gates: Gates) -> bool:
        """Whether there is something to publish: of what a gate asks only where nothing else holds the candidate up."""
        return self.unpublished or (self.gates_news and self.announced == "better" and gates != Gates())

    def restart(self) -> None:
        """Forget what was compared; the stage goes on."""
        error_rate = self.test["error_rate"]
        fresh = Comparison.start(self.champion, self.candidate, self.stage, error_rate)
        self.test, self.spans, self.unpublished = fresh.test, fresh.spans, False
        self.champion_correct = self.candidate_correct = 0
        self.champion_errors = self.candidate_errors = ErrorSums()
        self.announced, self.groups = None, GroupTrial()

    def is_urgent(self, rollout: Rollout) -> bool:
        """Whether the registry may act on it now and could not on what was published last."""
        verdict = PairedComparison.load(self.test).verdict()
        least = rollout.canary_min_examples if self.stage == "canary" else rollout.shadow_min_examples
        enough = self.announced_at < least <= self.stage_examples
        return verdict != self.announced or (enough and verdict != "undecided")

    def publish(self, evaluation_id: str, spec: ModelSpec, now: datetime) -> ArmsCompared:
        """The event that says how it stands; it counts as published from now on."""
        result = PairedComparison.load(self.test).result()
        self.announced, self.announced_at, self.unpublished = result.verdict, self.stage_examples, False
        self.gates_news = False
        count, classes = max(1, self.examples), not self.champion_errors.examples
        return ArmsCompared(
            evaluation_id=evaluation_id,
            model=spec.model,
            champion=self.champion,
            candidate=self.candidate,
            stage=self.stage,
            examples=self.examples,
            stage_examples=self.stage_examples,
            champion_accuracy=self.champion_correct / count if classes else None,
            candidate_accuracy=self.candidate_correct / count if classes else None,
            champion_metrics=self.champion_errors.metrics(),
            candidate_metrics=self.candidate_errors.metrics(),
            mean_difference=result.mean,
            lower=result.lower,
            upper=result.upper,
            verdict=result.verdict,
            group_metric=self.groups.metric,
            groups=self.groups.compared(spec.rollout.error_rate, spec),
            answers=self._answers(),
            answers_from=self.answers_spans.ranges(),
            input=self.input.measured(),
            derived_from=self.spans.ranges(),
            time=now,
        )

    def _answers(self) -> tuple[AnswersMeasured, ...]:
        if not self.answers_spans.logs:
            return ()
        return self.champion_answers.measured(self.champion), self.candidate_answers.measured(self.candidate)


def _of(measured: ServingMeasured, arm: str, version: int) -> list[ArmMeasured]:
    return [each for each in measured.arms if each.arm == arm and each.version == version]


def asks_for_groups(spec: ModelSpec) -> bool:
    """Whether the spec wants to know how groups fare under a candidate, or under a new champion."""
    return spec.rollout.gates.fairness is not None or (spec.rollout.returns_on("fairness") and bool(spec.protected))
