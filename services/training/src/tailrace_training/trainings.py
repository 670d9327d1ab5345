"""One batch training, from the request to the candidate.

In order: a plan (which ranges, which spec), kept before anything else; the examples of exactly these ranges; the
trainer's work, told as it goes; the artefacts; the result, kept; the candidate. Killed anywhere, the request comes
again and finds the plan, the trainer's checkpoint or the result, and goes on from there.

A request that cannot lead to a version (too few examples, one class, ranges that are gone) ends in the stage `failed`
with one sentence. It is not poison: the asker reads the progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import load

from tailrace_contracts.events import (
    CandidateTrained,
    ExampleLabelled,
    Lineage,
    SpecApplied,
    TrainingProgressed,
    TrainingRequested,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import BatchLearner, ClassLabel, Label, ModelSpec, NumericalFeature, NumericalLabel
from tailrace_models import ONNX, SAFETENSORS, encode_rows
from tailrace_runtime.clock import Clock
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.records import Record
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference
from tailrace_training.domain.datasets import Example, Untrainable, check, distinct, held_out
from tailrace_training.domain.jobs import ANSWERS, CHECKPOINT, Job, Said
from tailrace_training.domain.newest import Search, Sighting
from tailrace_training.domain.plans import Plan
from tailrace_training.errors import TrainerDied
from tailrace_training.ports import Artefacts, ExampleLogs, Labels, Matrix, RunFiles, Specs, Trainer

TOPIC = "labelled-examples"
PLAN, RESULT = "plan.json", "result.json"
ATTEMPTS = 3
"""How often a trainer may die over one run before the run has failed."""

Tell = Callable[[TrainingProgressed], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training needs."""

    specs: Specs
    logs: ExampleLogs
    artefacts: Artefacts
    files: RunFiles
    trainer: Trainer
    clock: Clock
    code_version: str
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: float = 2.0


async def train(request: TrainingRequested, batch: Batch, tell: Tell) -> CandidateTrained | None:
    """Do what the request asks. The candidate; None where there cannot be one, which `tell` has then heard."""
    run = _Run(request, batch, tell)
    kept = await batch.files.read(request.run_id, RESULT)
    if kept is not None:
        run.tell("finished", message="already trained")
        return CandidateTrained.model_validate_json(kept)
    candidate = None
    try:
        candidate = await run.through()
    except (Untrainable, RangeUnavailable) as problem:
        run.tell("failed", message=str(problem))
    await batch.files.remove(request.run_id, CHECKPOINT)
    await batch.trainer.forget(request.run_id)
    return candidate


class _Run:
    def __init__(self, request: TrainingRequested, batch: Batch, tell: Tell) -> None:
        self.request = request
        self.batch = batch
        self._tell = tell

    def tell(
        self,
        stage: Literal["started", "training", "evaluating", "exporting", "finished", "failed"],
        said: Said | None = None,
        *,
        message: str = "",
        ranges: LogRanges | None = None,
    ) -> None:
        self._tell(
            TrainingProgressed(
                run_id=self.request.run_id,
                model=self.request.model,
                stage=stage,
                epoch=said.epoch if said else 0,
                epochs=said.epochs if said else 0,
                loss=said.loss if said else None,
                message=message,
                ranges=ranges or LogRanges(),
                time=self.batch.clock.now(),
            )
        )

    async def through(self) -> CandidateTrained:
        self.batch.trainer.warm_up()
        plan, learner = await self._planned()
        self.tell("started", ranges=plan.ranges, message=self.request.reason)
        spec = plan.applied.spec
        examples = await examples_in(plan.ranges, spec, self.batch.logs)
        check(examples, spec, learner, str(plan.ranges))
        finished = await self._trained(examples, spec, learner)
        candidate = await self._candidate(plan, learner, examples, finished)
        await self.batch.files.write(self.request.run_id, RESULT, candidate.encode())
        self.tell("finished", finished)
        return candidate

    async def _planned(self) -> tuple[Plan, BatchLearner]:
        """The run's plan as its first life made it, else made and kept now."""
        kept = await self.batch.files.read(self.request.run_id, PLAN)
        if kept is not None:
            plan = Plan.model_validate_json(kept)
            return plan, _learner(plan.applied)
        applied = await self._spec()
        learner = _learner(applied)
        ranges = _asked(self.request) or await newest(applied.model, learner.max_examples, self.batch.logs)
        plan = Plan(ranges=ranges, applied=applied)
        await self.batch.files.write(self.request.run_id, PLAN, plan.model_dump_json().encode())
        return plan, learner

    async def _spec(self) -> SpecApplied:
        await self.batch.specs.refresh()
        applied = self.batch.specs.of(self.request.model)
        if applied is None or applied.spec_revision < self.request.spec_revision:
            raise Untrainable(
                f"model {self.request.model!r} has no spec of revision {self.request.spec_revision}; "
                "apply the spec before asking for a training"
            )
        return applied

    async def _trained(self, examples: list[Example], spec: ModelSpec, learner: BatchLearner) -> Said:
        """What the trainer said last. A trainer that dies is followed by another, which goes on from the checkpoint."""
        features = await asyncio.to_thread(encode_rows, spec, [each.features for each in examples])
        labels = _labels(spec.label, examples)
        job = Job(
            run_id=self.request.run_id,
            learner=learner,
            numerical=_numerical(spec),
            label=spec.label if isinstance(spec.label, NumericalLabel) else None,
            held_out=held_out(len(examples), learner),
            threads=self.batch.threads,
            device=self.batch.device,
            checkpoint_seconds=self.batch.checkpoint_seconds,
        )
        for attempt in range(ATTEMPTS):
            try:
                return await self._heard_out(job, features, labels)
            except TrainerDied as death:
                if attempt + 1 == ATTEMPTS:
                    raise Untrainable(f"{death}, {ATTEMPTS} times; give it more memory, or fewer examples") from None
        raise AssertionError("the last attempt returns or raises")

    async def _heard_out(self, job: Job, features: Matrix, labels: Labels) -> Said:
        async with aclosing(self.batch.trainer.train(job, features, labels, self.batch.files)) as saying:
            async for said in saying:
                if said.stage == "failed":
                    raise Untrainable(said.message)
                if said.stage == "finished":
                    return said
                self.tell(said.stage, said)
        raise TrainerDied("the trainer fell silent")

    async def _candidate(
        self, plan: Plan, learner: BatchLearner, examples: list[Example], finished: Said
    ) -> CandidateTrained:
        put = self.batch.artefacts.put_artefact
        graph, weights = await self.batch.trainer.result(self.request.run_id)
        reference = await asyncio.to_thread(_reference, plan.applied.spec, examples, weights)
        return CandidateTrained(
            run_id=self.request.run_id,
            model=self.request.model,
            learner="torch",
            continual=False,
            artefact=await put(graph, ONNX),
            resume_artefact=await put(weights, SAFETENSORS),
            reference=await put(reference, REFERENCE),
            lineage=Lineage(
                trained_on=plan.ranges,
                examples=len(examples),
                spec_revision=plan.applied.spec_revision,
                code_version=self.batch.code_version,
                parameters=learner.model_dump(mode="json"),
                seed=learner.seed,
            ),
            metrics=finished.metrics,
            time=self.batch.clock.now(),
        )


def _asked(request: TrainingRequested) -> LogRanges:
    others = sorted({each.topic for each in request.ranges} - {TOPIC})
    if others:
        raise Untrainable(f"training reads ranges of {TOPIC} only, found {others[0]}; name the examples' ranges")
    return request.ranges


def _learner(applied: SpecApplied) -> BatchLearner:
    learner = applied.spec.learners.batch
    if learner is None:
        raise Untrainable(f"model {applied.model!r} has no batch learner; add learners.batch to its spec")
    return learner


def _labels(label: Label, examples: list[Example]) -> Labels:
    """1 for the positive class and 0 for the other, float32; the labels of a regression as they are, float64."""
    if isinstance(label, ClassLabel):
        return np.array([each.label == label.positive for each in examples], dtype=np.float32)
    return np.array([each.label for each in examples], dtype=np.float64)


def _numerical(spec: ModelSpec) -> tuple[bool, ...]:
    """For each column of the encoding: whether it is a number."""
    return tuple(
        isinstance(feature, NumericalFeature)
        for feature in spec.features
        for _ in (["one"] if isinstance(feature, NumericalFeature) else feature.categories)
    )


def _reference(spec: ModelSpec, examples: list[Example], weights: bytes) -> bytes:
    rows, labels = [each.features for each in examples], [each.label for each in examples]
    answers = load(weights).get(ANSWERS)
    return Reference.build(spec, rows, labels, evaluated=() if answers is None else answers.tolist()).to_bytes()


# ---------------------------------------------------------------- reading


async def examples_in(ranges: LogRanges, spec: ModelSpec, logs: ExampleLogs) -> list[Example]:
    """The model's examples in exactly these ranges, one for each prediction, in the order of the log."""
    found: list[Example] = []
    async for records in logs.read(ranges):
        found.extend(await asyncio.to_thread(_examples, records, spec))
    return distinct(found)


def _examples(records: Sequence[Record], spec: ModelSpec) -> list[Example]:
    """The model's examples among these records. What the online learner parks is left out here too."""
    events = (_event(record) for record in records if record.key == spec.model.encode())
    label = spec.label
    allowed = label.classes if isinstance(label, ClassLabel) else None
    return [Example.of(each) for each in events if each is not None and (allowed is None or each.label in allowed)]


def _event(record: Record) -> ExampleLabelled | None:
    try:
        return ExampleLabelled.model_validate_json(record.value or b"")
    except ValidationError:
        return None


async def newest(model: str, wanted: int, logs: ExampleLogs) -> LogRanges:
    """The ranges that hold the newest `wanted` examples of the model, as the logs now stand."""
    bounds = await logs.bounds()
    search = Search(
        wanted, {log: begin for log, (begin, _) in bounds.items()}, {log: end for log, (_, end) in bounds.items()}
    )
    while stretches := search.next_ranges():
        for stretch in stretches:
            records = [record async for part in logs.read(LogRanges.of(stretch)) for record in part]
            oldest = min((record.timestamp_ms for record in records), default=None)
            search.saw(stretch, oldest, await asyncio.to_thread(_sightings, records, model))
    if not search.ranges():
        raise Untrainable(f"there are no labelled examples of model {model!r}; send predictions and labels first")
    return search.ranges()


def _sightings(records: Sequence[Record], model: str) -> list[Sighting]:
    events = ((record, _event(record)) for record in records if record.key == model.encode())
    return [Sighting(record.timestamp_ms, record.offset, event.prediction_id) for record, event in events if event]
