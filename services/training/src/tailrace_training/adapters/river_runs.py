"""Online runs with river, in the signed envelope of `tailrace_models`.

river brings scipy along and takes a second to import: it is imported with the first run, in the caller's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace_contracts.events import RevisionTrained
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec, OnlineLearner
from tailrace_runtime.highwater import HighWater
from tailrace_training.domain.metrics import scoring
from tailrace_training.domain.online import OnlineRun

if TYPE_CHECKING:
    from tailrace_models import RiverModel


class RiverRuns:
    """Builds river learners, and writes and reads whole runs under one signing key."""

    def __init__(self, signing_key: bytes) -> None:
        self._key = signing_key

    def build(self, learner: OnlineLearner, spec: ModelSpec) -> RiverModel:
        """An untrained pipeline."""
        from tailrace_models import RiverModel

        return RiverModel.build(learner, spec)

    def marks(self) -> HighWater:
        """Marks for a new run."""
        return HighWater()

    def seal(self, run: OnlineRun) -> bytes:
        """The run as a signed envelope: equal runs give equal bytes."""
        from tailrace_models import RiverModel

        if not isinstance(run.learner, RiverModel):
            raise TypeError(f"run {run.run_id} learns with {type(run.learner).__name__}, expected a RiverModel")
        return run.learner.to_envelope(self._key, {run.log: run.through}, _beside(run))

    def unseal(self, data: bytes, checkpoint: RevisionTrained, log: Log) -> OnlineRun:
        """The run in an envelope, ready to learn on. Raises tailrace_models.ArtefactError."""
        from tailrace_models import RiverModel

        model, _, beside = RiverModel.from_envelope(data, self._key)
        marks = self.marks()
        marks.load(beside["marks"])
        return OnlineRun(
            model=checkpoint.model,
            run_id=checkpoint.run_id,
            spec_revision=beside["spec_revision"],
            log=log,
            learner=model,
            marks=marks,
            pace=model.learner,
            prequential=scoring(model.label)(**beside["prequential"]),
            pieces=[(first, last) for first, last in beside["pieces"]],
            published_examples=model.examples,
            revision=checkpoint.revision,
        )


def _beside(run: OnlineRun) -> dict[str, Any]:
    """What stands in the envelope beside the learner, as plain JSON data."""
    return {
        "run_id": run.run_id,
        "spec_revision": run.spec_revision,
        "pieces": [list(piece) for piece in run.pieces],
        "marks": run.marks.dump(),
        "prequential": run.prequential.dump(),
    }
