"""Labelled examples come in: each one's place in the story of a model.

In the order of an example: who champions now, then each arm's score and cohort, the champion's error into the alarm,
each candidate against the champion; at the end of a batch, cohorts that close, the training that is due, and what is to
be published.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tailrace_contracts.events import ArmOutput, ExampleLabelled
from tailrace_contracts.spec import Label, NumericalLabel
from tailrace_monitoring.domain.arms import answers, champions_answer, loss
from tailrace_monitoring.domain.closed_cohorts import judge
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.lessons import Lesson
from tailrace_monitoring.domain.scores import SERVED, Score
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.domain.trail import Step
from tailrace_monitoring.domain.watched import ModelWatch


def observe(watch: ModelWatch, batch: Sequence[Placed], knowledge: Knowledge, now: datetime) -> None:
    """Take in a batch of labelled examples of one log, in order."""
    watch.follow(knowledge, now)
    for placed in batch:
        if watch.is_new_example(placed):
            _example(watch, placed, knowledge, now)
    watch.keep_marks()
    _close_cohorts(watch, knowledge, now)
    watch.ask_for_training(knowledge, now)
    watch.publish(knowledge, now)


def _example(watch: ModelWatch, placed: Placed, knowledge: Knowledge, now: datetime) -> None:
    example, correction = placed.example, placed.example.label_revision > 0
    champion = champions_answer(example, watch.state.champion)
    label = knowledge.spec.label
    error = None if champion is None or correction else loss(champion, example.label, label)
    step = _step(watch, placed, error, now)
    watch.changes.cohorts |= watch.cohorts.count(placed, knowledge.spec)
    _learn_error(watch, placed, step.number, knowledge)
    if not correction:
        _score(watch, example, label)
        _compare(watch, placed, champion, knowledge)
        if error is not None:
            watch.hear(step.number, error, knowledge, now)
    watch.ask_for_training(knowledge, now)


def _learn_error(watch: ModelWatch, placed: Placed, number: int, knowledge: Knowledge) -> None:
    """Keep what a regression's answers teach of its error."""
    if knowledge.spec.monitors.estimation is None or not isinstance(knowledge.spec.label, NumericalLabel):
        return
    watch.changes.lessons.extend(
        Lesson.of(number, placed.log, placed.offset, placed.example, output)
        for output in answers(placed.example).values()
    )


def _step(watch: ModelWatch, placed: Placed, error: float | None, now: datetime) -> Step:
    watch.state.examples += 1
    example = placed.example
    step = Step(
        watch.state.examples,
        placed.log,
        placed.offset,
        example.prediction_id,
        example.label_revision,
        example.time,
        error,
    )
    watch.trail.append(step)
    watch.changes.steps.append(step)
    watch.state.retraining.newest_at = now
    watermark = watch.state.watermark
    watch.state.watermark = example.time if watermark is None else max(watermark, example.time)
    return step


def _score(watch: ModelWatch, example: ExampleLabelled, label: Label) -> None:
    for version, output in answers(example).items():
        score = _score_of(watch, str(version or output.arm), version, output.arm)
        score.count(output.arm, output, example.label, label)
    if example.served is not None:
        _score_of(watch, SERVED, None, SERVED).count(SERVED, example.served, example.label, label)


def _score_of(watch: ModelWatch, name: str, version: int | None, arm: str) -> Score:
    return watch.state.scores.setdefault(name, Score(arm=arm, version=version))


def _compare(watch: ModelWatch, placed: Placed, champion: ArmOutput | None, knowledge: Knowledge) -> None:
    if champion is None:
        return
    given = answers(placed.example)
    for comparison in watch.state.comparisons.values():
        candidate = given.get(comparison.candidate)
        if candidate is None:
            continue
        limit = knowledge.spec.rollout.max_examples
        if knowledge.is_continual(comparison.candidate) and comparison.examples >= limit:
            comparison.restart()
        comparison.fold(placed, champion, candidate, knowledge.spec)


def _close_cohorts(watch: ModelWatch, knowledge: Knowledge, now: datetime) -> None:
    if watch.state.watermark is None:
        return
    for cohort in watch.cohorts.close(watch.state.watermark, knowledge.spec.monitors.allowed_lateness_days):
        watch.changes.cohorts.add(cohort.key)
        if cohort.examples:
            watch.measure(cohort, knowledge, now)
            judge(watch, cohort, knowledge, now)
