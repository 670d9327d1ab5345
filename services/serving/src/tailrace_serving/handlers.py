"""The use cases: answer a question, answer for the other arms, bring a model's arms up to date.

Nothing here knows HTTP or Kafka. `answer` is the hot path and waits for nothing but a model that is slow (`running`) or
was put away (`shelf`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import perf_counter
from typing import NamedTuple

import structlog

from tailrace_contracts.events import FeatureValue, VersionChanged
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed, Arms, Loaded, Member, Table
from tailrace_serving.domain.buffer import Captured
from tailrace_serving.domain.deployment import Facts, arranged, plan, reusable
from tailrace_serving.domain.explanation import Explanation
from tailrace_serving.domain.features import Row
from tailrace_serving.domain.prediction_event import Output, Prediction, encode
from tailrace_serving.domain.question import Question
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.ports import Artefacts, ArtefactUnusable, Clock, Meter

log = structlog.get_logger(__name__)

ALIKE_ROWS = 16
"""Rows that the other arms are asked at once; a model in line would hold up the requests for longer ones."""


class Inference(NamedTuple):
    """One row that has been answered, on its way to becoming a prediction event."""

    arms: Arms
    served: Member
    row: Row
    answer: ArmAnswer
    prediction_id: str
    entity: str | None
    time: datetime
    latency_ms: float
    trace: bytes | None = None
    alone: bool = True
    """Whether the row was asked alone, so that its call could be timed."""
    explanation: Explanation | None = None


class Answered(NamedTuple):
    """The answers to one question."""

    served: Member
    answers: Sequence[ArmAnswer]
    prediction_ids: list[str]


class Desk(NamedTuple):
    """What answering needs from outside."""

    clock: Clock
    new_id: Callable[[], str]
    meter: Meter


async def answer(desk: Desk, arms: Arms, question: Question, version: str | None = None) -> Answered:
    """Answer all rows by one arm: the named version's, or the one that the entity (or first prediction id) falls to.

    A canary that fails is stood in for by the champion. Raises Refused.
    """
    ids = question.prediction_ids or [desk.new_id() for _ in question.rows]
    served = arms.named(version) if version else arms.choose(question.entity or ids[0])
    rows = [row.seen for row in question.rows]
    try:
        answers = await _asked(arms, served, rows)
    except ArmFailed as failure:
        desk.meter.count("tailrace_arm_failures_total", model=arms.model, arm=served.arm)
        if served.arm != "canary" or version or arms.champion is None:
            raise failed(arms, served, failure) from failure
        served = Member("champion", arms.champion)
        try:
            answers = await _asked(arms, served, rows)
        except ArmFailed as second:
            raise failed(arms, served, second) from second
    desk.meter.count("tailrace_inferences_total", len(rows), model=arms.model, arm=served.arm)
    return Answered(served, answers, ids)


async def _asked(
    arms: Arms, member: Member, rows: Sequence[Mapping[str, FeatureValue]], *, apart: bool = False
) -> Sequence[ArmAnswer]:
    """A version's answers, counted in the model's tally. Raises ArmFailed.

    Now and then a row is asked alone, to be timed: where there is but one, and of several, `apart`, the first.
    """
    version, predictor, began = member.loaded.version, member.loaded.predictor, perf_counter()
    timed = (apart or len(rows) == 1) and arms.tally.is_due(member.arm, version, began)
    try:
        answers = await predictor.predict(rows[:1] if timed else rows, alone=timed)
        if timed:
            arms.tally.timed(member.arm, version, perf_counter() - began)
            if len(rows) > 1:
                answers = [*answers, *await predictor.predict(rows[1:])]
    except ArmFailed:
        arms.tally.failed(member.arm, version, len(rows))
        raise
    arms.tally.answered(member.arm, version, len(rows))
    return answers


async def _time_served(first: Inference) -> None:
    """Of a version that was asked with several rows, one row is timed: it is asked again, and the answer dropped."""
    arms, member = first.arms, first.served
    if first.alone or not arms.tally.is_due(member.arm, member.loaded.version, perf_counter()):
        return
    began = perf_counter()
    try:
        await member.loaded.predictor.predict([first.row.seen], alone=True)
    except ArmFailed:
        return
    arms.tally.timed(member.arm, member.loaded.version, perf_counter() - began)


def failed(arms: Arms, served: Member, failure: ArmFailed, what: str = "could not answer") -> Refused:
    """The refusal where a version failed; the log says why."""
    log.error("a model failed", model=arms.model, arm=served.arm, version=served.loaded.label, reason=str(failure))
    return Refused(
        "unavailable",
        f"version {served.loaded.label} of model {arms.model!r} ({served.arm}) {what}; the service's log says why",
    )


def inferences(
    desk: Desk, arms: Arms, question: Question, answered: Answered, seconds: float, *, trace: bytes | None = None
) -> list[Inference]:
    """The answered rows, as what is to be captured."""
    time, alone = question.time or desk.clock.now(), len(question.rows) == 1
    return [
        Inference(
            arms,
            answered.served,
            row,
            each,
            identity,
            question.entity,
            time,
            int(seconds * 1_000_000 + 0.5) / 1000,
            trace,
            alone,
        )
        for row, each, identity in zip(question.rows, answered.answers, answered.prediction_ids, strict=True)
    ]


async def others_answers(meter: Meter, batch: Sequence[Inference]) -> list[list[Output]]:
    """What the other arms answer, for inferences that share arms and served member. A failing arm is left out."""
    outputs: list[list[Output]] = [[] for _ in batch]
    rows = [inference.row.seen for inference in batch]
    first = batch[0]
    await _time_served(first)
    for member in first.arms.others(first.served.loaded):
        try:
            answers = await _asked(first.arms, member, rows, apart=True)
        except ArmFailed:
            meter.count("tailrace_arm_failures_total", model=first.arms.model, arm=member.arm)
            continue
        for found, each in zip(outputs, answers, strict=True):
            found.append(_output(member, each))
    return outputs


async def with_others(meter: Meter, batch: Sequence[Inference]) -> list[Captured]:
    """The prediction events of inferences that share arms and served member, the other arms' answers in them."""
    return [
        captured(inference, shadows)
        for inference, shadows in zip(batch, await others_answers(meter, batch), strict=True)
    ]


def captured(inference: Inference, shadows: Sequence[Output] = ()) -> Captured:
    """The prediction event of one inference, encoded."""
    prediction = Prediction(
        prediction_id=inference.prediction_id,
        model=inference.arms.model,
        time=inference.time,
        features=inference.row.asked,
        served=_output(inference.served, inference.answer),
        shadows=shadows,
        entity=inference.entity,
        latency_ms=inference.latency_ms,
        explanation=inference.explanation,
    )
    return Captured(
        prediction.model, prediction.prediction_id.encode(), encode(prediction), prediction.time, inference.trace
    )


def _output(member: Member, answer: ArmAnswer) -> Output:
    loaded = member.loaded
    return Output(member.arm, answer.prediction, answer.probability, loaded.version, loaded.revision)


class Refreshed(NamedTuple):
    """What bringing a model up to date came to."""

    arms: Arms | None
    loaded: tuple[Loaded, ...]
    problems: Mapping[int, str]


async def refresh(model: str, facts: Facts, table: Table, artefacts: Artefacts) -> Refreshed:
    """Load what the newest facts ask for and swap it in. What cannot be loaded is a problem, told in a sentence."""
    wanted = plan(facts, model)
    if wanted is None:
        return Refreshed(None, (), {})
    previous = table.get(model)
    found = {version: reusable(previous, wanted.spec, event) for version, event in wanted.versions.items()}
    having = {version: loaded for version, loaded in found.items() if loaded}
    fresh: dict[int, Loaded] = {}
    problems = wanted.missing()
    for event in _unloaded(wanted.versions.values(), having):
        try:
            predictor = await artefacts.load(event.artefact, wanted.spec)
        except ArtefactUnusable as unusable:
            problems[event.version] = str(unusable)
        else:
            revision = event.revision if event.continual else None
            fresh[event.version] = Loaded(
                event.version, revision, event.learner, event.artefact.sha256, predictor, event.reference
            )
    arms = arranged(wanted, {**having, **fresh}, problems, table.get(model))
    table.swap(arms)
    return Refreshed(arms, tuple(fresh.values()), problems)


def _unloaded(events: Iterable[VersionChanged], having: Mapping[int, Loaded]) -> list[VersionChanged]:
    return [event for event in events if event.version not in having]
