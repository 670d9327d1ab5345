"""Stand-ins for training's ports, in memory. Each passes the tests of what it stands for."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
from safetensors.numpy import save

from tailrace_contracts.events import ClaimCheck, ExampleLabelled, FeatureValue, RevisionTrained, SpecApplied
from tailrace_contracts.ranges import Log, LogRanges, Trigger
from tailrace_contracts.spec import ModelSpec
from tailrace_runtime.errors import ObjectMissing, RangeUnavailable
from tailrace_runtime.records import Record
from tailrace_training.domain.jobs import ANSWERS, CHECKPOINT, Job, Said
from tailrace_training.errors import TrainerDied
from tailrace_training.ports import Labels, Matrix, RunFiles

TOPIC = "labelled-examples"
START = datetime(2025, 1, 1, tzinfo=UTC)


class MemoryArtefacts:
    """Artefacts in a dict. `failures` are raised by the next puts, in order; None among them lets one through."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.failures: list[Exception | None] = []

    async def put_artefact(self, data: bytes, media_type: str) -> ClaimCheck:
        """Keep bytes under their digest."""
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        digest = hashlib.sha256(data).hexdigest()
        self.kept[f"sha256/{digest}"] = data
        return ClaimCheck(key=f"sha256/{digest}", sha256=digest, size_bytes=len(data), media_type=media_type)

    async def get_artefact(self, claim: ClaimCheck) -> bytes:
        """The bytes. Raises ObjectMissing."""
        if claim.key not in self.kept:
            raise ObjectMissing(f"object store: nothing under {claim.key}")
        return self.kept[claim.key]

    async def delete(self, key: str) -> None:
        """Remove the bytes, if they are there."""
        self.kept.pop(key, None)


class MemoryRunFiles:
    """Run files in a dict."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}

    async def read(self, run_id: str, name: str) -> bytes | None:
        """The file, or None."""
        return self.kept.get((run_id, name))

    async def write(self, run_id: str, name: str, data: bytes) -> None:
        """Keep or replace the file."""
        self.kept[run_id, name] = data

    async def remove(self, run_id: str, name: str) -> None:
        """Let the file go, if it is there."""
        self.kept.pop((run_id, name), None)


class ScriptedTrainer:
    """A trainer that says what the test wrote down, and gives fixed bytes. It remembers the jobs it was given.

    Each training takes the next of `deaths`: a number of deaths to die of before it finishes.
    """

    def __init__(self, said: Iterable[Said] = (), deaths: Iterable[int] = ()) -> None:
        self.said = [*said] or [
            Said(stage="training", epoch=1, epochs=2, loss=0.5, checkpoint=True),
            Said(stage="evaluating", epoch=1, epochs=2),
            Said(stage="exporting", epoch=2, epochs=2),
            Said(stage="finished", epoch=2, epochs=2, metrics={"accuracy": 0.9}),
        ]
        self.jobs: list[tuple[Job, Matrix, Labels]] = []
        self.forgotten: list[str] = []
        self._deaths = list(deaths)

    def warm_up(self) -> None:
        """Nothing to get ready."""

    async def train(self, job: Job, features: Matrix, labels: Labels, files: RunFiles) -> AsyncGenerator[Said]:
        """Say the script, unless death comes first."""
        self.jobs.append((job, features, labels))
        await files.write(job.run_id, CHECKPOINT, b"weights so far")
        if self._deaths and self._deaths[0]:
            self._deaths[0] -= 1
            raise TrainerDied("the trainer ended with exit code -9 while it trained")
        for each in self.said:
            yield each

    async def result(self, run_id: str) -> tuple[bytes, bytes]:
        """A graph of fixed bytes; weights with answers from 0 to 1, as many as were held out of the newest job."""
        held_out = self.jobs[-1][0].held_out
        return f"graph of {run_id}".encode(), save({ANSWERS: np.linspace(0, 1, held_out, dtype=np.float32)})

    async def forget(self, run_id: str) -> None:
        """Remember that the run is over."""
        self.forgotten.append(run_id)


class KnownSpecs:
    """Specs as a test states them; `coming` are seen after the next refresh."""

    def __init__(self, *specs: SpecApplied) -> None:
        self._specs = {each.model: each for each in specs}
        self.coming: list[SpecApplied] = []

    def of(self, model: str) -> SpecApplied | None:
        """The newest spec, or None where there is none yet."""
        return self._specs.get(model)

    def apply(self, applied: SpecApplied) -> None:
        """This spec takes effect."""
        self._specs[applied.model] = applied

    async def refresh(self) -> None:
        """See what was coming."""
        for each in self.coming:
            self.apply(each)
        self.coming.clear()


class KnownCheckpoints:
    """Checkpoints as they were published, the last of each model."""

    def __init__(self, published: Iterable[RevisionTrained] = ()) -> None:
        self.newest = {each.model: each for each in published}

    async def in_log(self, log: Log) -> list[RevisionTrained]:
        """The checkpoints of models that were trained on this log."""
        return [each for each in self.newest.values() if any(part.log == log for part in each.trained_on)]


class KnownVersions:
    """Revisions as a test states them, by run."""

    def __init__(self) -> None:
        self.revisions: dict[str, int] = {}

    def revision_of(self, run_id: str) -> int | None:
        """The revision passed on, or None."""
        return self.revisions.get(run_id)


class ListedLogs:
    """Logs of labelled examples from a list of records; offsets below `begins` are gone."""

    def __init__(self, records: Iterable[Record], begins: Mapping[Log, int] | None = None) -> None:
        self.records = list(records)
        self.begins = dict(begins or {})

    async def bounds(self) -> Mapping[Log, tuple[int, int]]:
        """First and next offset of each log."""
        ends: dict[Log, int] = {}
        for record in self.records:
            ends[record.log] = max(ends.get(record.log, 0), record.offset + 1)
        return {log: (self.begins.get(log, 0), end) for log, end in ends.items()}

    async def read(self, ranges: LogRanges) -> AsyncIterator[list[Record]]:
        """The records of these ranges, a few at a time. Raises RangeUnavailable."""
        ends = {log: end for log, (_, end) in (await self.bounds()).items()}
        for each in ranges:
            if each.through_offset >= ends.get(each.log, 0):
                raise RangeUnavailable(f"{each} goes beyond the log, which ends before offset {ends.get(each.log, 0)}")
            if each.from_offset < self.begins.get(each.log, 0):
                raise RangeUnavailable(f"{each} is neither in Kafka nor in the archive")
            found = [record for record in self.records if record.log == each.log and record.offset in each]
            for start in range(0, len(found), 100):
                yield found[start : start + 100]


def applied(spec: ModelSpec, revision: int = 1) -> SpecApplied:
    """The spec as the registry announces it."""
    return SpecApplied(model=spec.model, spec_revision=revision, spec=spec, applied_by="a test", time=START)


def labelled(
    model: str, number: int, features: Mapping[str, FeatureValue], label: float, *, label_revision: int = 0
) -> ExampleLabelled:
    """The example that the `number`th label of its log completed."""
    trigger = Trigger(topic="labels", partition=0, offset=number)
    return ExampleLabelled(
        prediction_id=f"{model}-{number}",
        model=model,
        time=START + timedelta(days=number),
        label_time=START + timedelta(days=number + 1),
        features=dict(features),
        label=label,
        label_revision=label_revision,
        trigger=trigger,
        derived_from=LogRanges.of_offsets([(trigger.log, trigger.offset)]),
    )


def on_log(example: ExampleLabelled, offset: int, partition: int = 0) -> Record:
    """The example as a record of `labelled-examples`."""
    return Record(TOPIC, partition, offset, offset * 1000, example.model.encode(), example.encode(), ())
