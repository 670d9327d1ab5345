"""What training needs of the world, by role."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import ClaimCheck, RevisionTrained, SpecApplied
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import ModelSpec, OnlineLearner
from tailrace_runtime.records import Record
from tailrace_training.domain.jobs import Job, Said
from tailrace_training.domain.online import Learner, Marks, OnlineRun

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Specs(Protocol):
    """The spec that each model has now."""

    def of(self, model: str) -> SpecApplied | None:
        """The newest spec, or None where there is none yet."""
        ...

    async def refresh(self) -> None:
        """Read what was written until now."""
        ...


class Checkpoints(Protocol):
    """The newest checkpoint of each online run."""

    async def in_log(self, log: Log) -> list[RevisionTrained]:
        """The newest checkpoint of each model that was trained on this log, as of now."""
        ...


class Versions(Protocol):
    """What the registry knows of runs."""

    def revision_of(self, run_id: str) -> int | None:
        """The revision that the registry has passed on, or None where it knows no version of this run."""
        ...


class Artefacts(Protocol):
    """The object store, as far as artefacts go."""

    async def put_artefact(self, data: bytes, media_type: str) -> ClaimCheck:
        """Keep bytes under their digest."""
        ...

    async def get_artefact(self, claim: ClaimCheck) -> bytes:
        """The bytes, verified."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the bytes under a claim's key, if they are there."""
        ...


class RunFiles(Protocol):
    """Small files kept for a batch run until it is over: its plan, its checkpoint, its result."""

    async def read(self, run_id: str, name: str) -> bytes | None:
        """The file, or None."""
        ...

    async def write(self, run_id: str, name: str, data: bytes) -> None:
        """Keep or replace the file."""
        ...

    async def remove(self, run_id: str, name: str) -> None:
        """Let the file go, if it is there."""
        ...


class OnlineLearners(Protocol):
    """How online learners are made, written and read."""

    def build(self, learner: OnlineLearner, spec: ModelSpec) -> Learner:
        """An untrained one."""
        ...

    def marks(self) -> Marks:
        """Marks for a new run."""
        ...

    def seal(self, run: OnlineRun) -> bytes:
        """The run as a signed artefact: equal runs give equal bytes."""
        ...

    def unseal(self, data: bytes, checkpoint: RevisionTrained, log: Log) -> OnlineRun:
        """The run in an artefact. Raises tailrace_models.ArtefactError."""
        ...


class ExampleLogs(Protocol):
    """The logs of labelled examples."""

    async def bounds(self) -> Mapping[Log, tuple[int, int]]:
        """First and next offset of each log, as of now."""
        ...

    def read(self, ranges: LogRanges) -> AsyncIterator[list[Record]]:
        """The records of these ranges. Raises RangeUnavailable."""
        ...


class Trainer(Protocol):
    """Whatever trains networks."""

    def warm_up(self) -> None:
        """A training is coming: get ready, meanwhile."""
        ...

    def train(self, job: Job, features: Matrix, labels: Labels, files: RunFiles) -> AsyncGenerator[Said]:
        """Train, going on from the run's checkpoint where there is one. Raises TrainerDied."""
        ...

    async def result(self, run_id: str) -> tuple[bytes, bytes]:
        """The finished job's ONNX graph and safetensors."""
        ...

    async def forget(self, run_id: str) -> None:
        """The run is over: let its job's files go."""
        ...
