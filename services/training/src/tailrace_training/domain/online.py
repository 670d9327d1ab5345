"""One online run: a learner, how far it has read, and when it speaks.

Every example is answered first and learned second. What the run is depends on the log's records alone, never on a
clock: two runs over the same records are equal byte for byte, whether or not one was killed in between. Only *when*
a checkpoint is written depends on the clock; its revision number is therefore not part of the state.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tailrace_contracts.events import ClaimCheck, ExampleLabelled, FeatureValue
from tailrace_contracts.ranges import Log, LogRange, LogRanges, Trigger
from tailrace_contracts.spec import ClassLabel, Label, OnlineLearner
from tailrace_training.domain.metrics import Prequential, PrequentialErrors


class Answer(Protocol):
    """What a learner answers."""

    @property
    def prediction(self) -> float:
        """A class, or the number of a regression."""
        ...

    @property
    def probability(self) -> float | None:
        """Of the positive class; a regression has none."""
        ...


class Learner(Protocol):
    """A model that learns one example after another."""

    examples: int

    def predict(self, features: Mapping[str, FeatureValue]) -> Answer:
        """The answer so far."""
        ...

    def learn(self, features: Mapping[str, FeatureValue], label: float) -> None:
        """Learn one example."""
        ...


class Marks(Protocol):
    """Remembers which facts were applied."""

    def admit(self, trigger: Trigger, identity: tuple[Hashable, int] | None = None) -> bool:
        """Whether the fact is new; from now on it is not."""
        ...

    def dump(self) -> dict[str, Any]:
        """All marks as plain JSON data."""
        ...


@dataclass(slots=True)
class OnlineRun:
    """A learner's state after the last record of `pieces`, and what of it has been published.

    `pieces` are the offsets read, first and last; one piece, unless the spec took the learner away for a while.
    `floor` is where the run before this one ended: nothing up to there is for this one. `superseded` are the
    artefacts that this process has published for the run, oldest first, the newest among them.
    """

    model: str
    run_id: str
    spec_revision: int
    log: Log
    learner: Learner
    marks: Marks
    pace: OnlineLearner
    prequential: Prequential | PrequentialErrors = field(default_factory=Prequential)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    floor: int = -1
    interrupted: bool = False
    first_unpublished: int | None = None
    published_examples: int = 0
    published_at: float = float("-inf")
    revision: int = -1
    offered: bool = False
    superseded: deque[tuple[int, ClaimCheck]] = field(default_factory=deque)

    @property
    def through(self) -> int:
        """The last offset of this model that was read, or `floor` before the first."""
        return self.pieces[-1][1] if self.pieces else self.floor

    def apply(self, offset: int, example: ExampleLabelled, label: Label) -> bool:
        """Learn the example at this offset of the log. False: it had been learned before."""
        if offset <= self.through:
            return False
        self._read(offset)
        if not self.marks.admit(example.trigger, identity(example)):
            return False
        if example.label_revision == 0:
            self._score(self.learner.predict(example.features), example.label, label)
        self.learner.learn(example.features, example.label)
        return True

    def _score(self, answer: Answer, given: float, label: Label) -> None:
        if isinstance(label, ClassLabel) and isinstance(self.prequential, Prequential):
            self.prequential.add(answer.probability or 0.0, given == label.positive)
        elif isinstance(self.prequential, PrequentialErrors):
            self.prequential.add(answer.prediction, given)

    def _read(self, offset: int) -> None:
        if self.pieces and not self.interrupted:
            self.pieces[-1] = (self.pieces[-1][0], offset)
        else:
            self.pieces.append((offset, offset))
        self.interrupted = False
        if self.first_unpublished is None:
            self.first_unpublished = offset

    def trained_on(self) -> LogRanges:
        """Everything read so far."""
        topic, partition = self.log
        return LogRanges(
            tuple(
                LogRange(topic=topic, partition=partition, from_offset=first, through_offset=last)
                for first, last in self.pieces
            )
        )

    def due(self, now: float) -> bool:
        """Whether a checkpoint is to be written: something was read, and time or examples enough have passed."""
        if self.first_unpublished is None:
            return False
        waited = now - self.published_at >= self.pace.revision_seconds
        return waited or self.learner.examples - self.published_examples >= self.pace.checkpoint_examples

    def published(self, artefact: ClaimCheck, now: float) -> None:
        """The present state is in this checkpoint."""
        self.revision += 1
        self.superseded.append((self.revision, artefact))
        self.first_unpublished = None
        self.published_examples = self.learner.examples
        self.published_at = now


def identity(example: ExampleLabelled) -> tuple[str, int]:
    """What makes an example the same under another trigger: whose it is, in 16 characters, and its label's revision."""
    return hashlib.blake2b(example.prediction_id.encode(), digest_size=8).hexdigest(), example.label_revision
