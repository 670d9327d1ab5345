"""What training does, as functions of events and ports: resume, learn and checkpoint online runs.

The batch side stands in `trainings.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from tailrace_contracts.events import (
    CandidateTrained,
    ClaimCheck,
    Event,
    ExampleLabelled,
    Lineage,
    RevisionTrained,
    SpecApplied,
)
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ClassLabel, OnlineLearner
from tailrace_models import RIVER, ArtefactError
from tailrace_runtime.consumer import Parked
from tailrace_runtime.errors import ArtefactCorrupt, ObjectMissing
from tailrace_runtime.records import Record
from tailrace_training.domain.metrics import scoring
from tailrace_training.domain.online import OnlineRun
from tailrace_training.domain.runs import continues, online_run_id
from tailrace_training.errors import CheckpointUnusable
from tailrace_training.ports import Artefacts, Checkpoints, OnlineLearners, Specs, Versions

Runs = dict[str, OnlineRun]
"""The online runs of one log, by model."""


@dataclass(frozen=True, slots=True)
class Online:
    """What the online handlers need."""

    specs: Specs
    checkpoints: Checkpoints
    artefacts: Artefacts
    learners: OnlineLearners
    versions: Versions
    code_version: str
    kept_revisions: int = 20


# ---------------------------------------------------------------- resuming


async def resume(log: Log, online: Online) -> Runs:
    """The runs of a log as their newest checkpoints left them.

    A checkpoint of a run that the present spec has ended gives an empty run, which begins behind it. Raises
    CheckpointUnusable where an artefact is missing, damaged or not ours: to begin anew instead would be to forget.
    """
    await online.specs.refresh()
    runs: Runs = {}
    for checkpoint in await online.checkpoints.in_log(log):
        applied = online.specs.of(checkpoint.model)
        pace = applied.spec.learners.online if applied else None
        if applied is None or pace is None:
            continue
        if continues(checkpoint.run_id, applied.spec, pace):
            runs[checkpoint.model] = await _reopened(checkpoint, log, online)
        else:
            runs[checkpoint.model] = _begun(applied, pace, log, online, floor=_through(checkpoint, log))
    return runs


async def _reopened(checkpoint: RevisionTrained, log: Log, online: Online) -> OnlineRun:
    try:
        data = await online.artefacts.get_artefact(checkpoint.artefact)
        return await asyncio.to_thread(online.learners.unseal, data, checkpoint, log)
    except (ArtefactError, ArtefactCorrupt, ObjectMissing) as error:
        raise CheckpointUnusable(
            f"online run {checkpoint.run_id} cannot resume from its revision {checkpoint.revision}, artefact "
            f"{checkpoint.artefact.key}: {error}; put the artefact back, or apply a spec with another "
            "learners.online.seed to begin a new run"
        ) from error


def _through(checkpoint: RevisionTrained, log: Log) -> int:
    return max(each.through_offset for each in checkpoint.trained_on if each.log == log)


def _begun(applied: SpecApplied, pace: OnlineLearner, log: Log, online: Online, floor: int) -> OnlineRun:
    return OnlineRun(
        model=applied.model,
        run_id=online_run_id(applied.spec, pace, applied.spec_revision),
        spec_revision=applied.spec_revision,
        log=log,
        learner=online.learners.build(pace, applied.spec),
        marks=online.learners.marks(),
        pace=pace,
        prequential=scoring(applied.spec.label)(),
        floor=floor,
    )


# ---------------------------------------------------------------- learning


async def know_specs(records: Sequence[Record], specs: Specs) -> None:
    """Read on in the specs where a record's model has none yet: its spec was published before its first example."""
    if any(record.key is not None and specs.of(record.key.decode()) is None for record in records):
        await specs.refresh()


def learn(records: Iterable[Record], runs: Runs, online: Online) -> list[Parked]:
    """Learn the examples of a log's next records, in order. Gives back those that can never be learned.

    Takes as long as learning takes: call it beside the event loop. A second call with the same records changes nothing.
    """
    parked = []
    for record in records:
        problem = _learn_one(record, runs, online)
        if problem is not None:
            parked.append(problem)
    return parked


def _learn_one(record: Record, runs: Runs, online: Online) -> Parked | None:
    model = (record.key or b"").decode(errors="replace")
    applied = online.specs.of(model)
    if applied is None:
        return Parked(
            record,
            "unknown-model",
            f"{record} is an example of model {model!r}, which has no spec; apply its spec, then replay",
            model,
        )
    if applied.spec.learners.online is None:
        if model in runs:
            runs[model].interrupted = True
        return None
    try:
        example = ExampleLabelled.model_validate_json(record.value or b"")
    except ValidationError as error:
        return Parked(record, "unreadable-event", f"{record} is no labelled example: {_first(error)}", model)
    label = applied.spec.label
    if isinstance(label, ClassLabel) and example.label not in label.classes:
        expected = " or ".join(map(str, label.classes))
        return Parked(record, "unknown-class", f"{record} has label {example.label}, expected {expected}", model)
    run = _run_for(applied, applied.spec.learners.online, record.log, runs, online)
    run.pace = applied.spec.learners.online
    run.apply(record.offset, example, label)
    return None


def _run_for(applied: SpecApplied, pace: OnlineLearner, log: Log, runs: Runs, online: Online) -> OnlineRun:
    """The model's run; a new one where there is none, or where the spec has ended it."""
    run = runs.get(applied.model)
    if run is None or not continues(run.run_id, applied.spec, pace):
        run = _begun(applied, pace, log, online, floor=run.through if run else -1)
        runs[applied.model] = run
    return run


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the value"
    return f"{where}: {first['msg']}"


# ---------------------------------------------------------------- publishing


async def checkpoint(runs: Iterable[OnlineRun], online: Online, now: float, time: datetime) -> list[Event]:
    """Write the artefacts of these runs, and give back the events that announce them.

    All artefacts are there before a run counts as published: a store that is away in between changes no run.
    """
    written = []
    for run in runs:
        sealed = await asyncio.to_thread(online.learners.seal, run)
        written.append((run, await online.artefacts.put_artefact(sealed, RIVER)))
    events: list[Event] = []
    for run, artefact in written:
        run.published(artefact, now)
        events += _announced(run, artefact, online.code_version, time)
    return events


def _announced(run: OnlineRun, artefact: ClaimCheck, code_version: str, time: datetime) -> list[Event]:
    """The events of a checkpoint: the revision, and before the first that has examples enough, the candidate.

    A resumed run offers its candidate again: the registry knows the run, and a crash may have swallowed the first offer.
    """
    events: list[Event] = []
    if not run.offered and run.prequential.examples >= run.pace.min_examples:
        run.offered = True
        events.append(
            CandidateTrained(
                run_id=run.run_id,
                model=run.model,
                learner="river",
                continual=True,
                artefact=artefact,
                lineage=_lineage(run, code_version),
                metrics=run.prequential.metrics(),
                revision=run.revision,
                time=time,
            )
        )
    events.append(
        RevisionTrained(
            run_id=run.run_id,
            model=run.model,
            revision=run.revision,
            artefact=artefact,
            trained_on=run.trained_on(),
            examples=run.learner.examples,
            time=time,
        )
    )
    return events


def _lineage(run: OnlineRun, code_version: str) -> Lineage:
    return Lineage(
        trained_on=run.trained_on(),
        examples=run.learner.examples,
        spec_revision=run.spec_revision,
        code_version=code_version,
        parameters=run.pace.model_dump(mode="json"),
        seed=run.pace.seed,
    )


async def forget_superseded(run: OnlineRun, online: Online) -> None:
    """Delete artefacts of the run that nobody will ask for: `kept_revisions` behind the one that the registry names.

    While the registry is away, or knows no version of the run, nothing is deleted. What a process had published before
    it died stays: at most a few artefacts for each death.
    """
    in_use = online.versions.revision_of(run.run_id)
    while in_use is not None and run.superseded and run.superseded[0][0] < in_use - online.kept_revisions:
        _, artefact = run.superseded[0]
        await online.artefacts.delete(artefact.key)
        run.superseded.popleft()


def finished_through(runs: Mapping[str, OnlineRun], last_read: int) -> int:
    """The last offset of a log that need not be read again: everything up to it is in checkpoints, or for nobody."""
    waiting = [run.first_unpublished for run in runs.values() if run.first_unpublished is not None]
    return min([last_read, *(first - 1 for first in waiting)])
