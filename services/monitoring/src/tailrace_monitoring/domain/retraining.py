"""When to ask for a batch training, and on what.

- *First*: the model has a batch learner and no version of it. The training reads `max_examples` and waits for so many
  as long as they keep coming; with `min_examples` it begins once none has come for `QUIET`, and after `PATIENCE` at the
  latest. So a replayed history is learned whole, and a slow stream gets its first version early.
- *After an alert* of a kind that the spec names: once `settle_examples` more have come and the cool-down is over. It
  reads the examples since the drift began; where those are fewer than `min_examples`, the newest `max_examples`. Never
  more than those.
- *Follow-up*: a training that saw less than `max_examples` of the new regime is asked for once more when there are
  that many: the early one repairs the damage, the late one has the data. It too has to show that it is better.

One run is outstanding at most: until it has finished or failed, or its version has been registered. While a version
of the batch learner is on trial, its trial answers low accuracy and moved features; only a concept that drifts once more
asks for another training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import TrainingRequested
from tailrace_contracts.spec import BatchLearner, ModelSpec, Retraining
from tailrace_monitoring.domain.trail import Step, Trail, distinct, ranges_of

QUIET = timedelta(seconds=20)
"""How long no example may come before the first training begins with fewer than it would read."""

PATIENCE = timedelta(minutes=10)
"""How long the first training waits for more examples at the most."""

Cause = Literal["concept-drift", "feature-drift", "performance"]


class Pending(BaseModel):
    """A training that an alert has led to and that waits for the new regime to settle."""

    run_id: str
    since: int | None
    due: int
    reason: str
    requested_by: str


class FollowUp(BaseModel):
    """A regime of which more is to be seen: since which example, and at which there are enough."""

    since: int
    due: int


class Request(NamedTuple):
    """Please train on exactly these examples."""

    run_id: str
    steps: Sequence[Step]
    reason: str
    requested_by: str

    def event(self, model: str, spec_revision: int, now: datetime) -> TrainingRequested:
        """As the topic says it."""
        return TrainingRequested(
            run_id=self.run_id,
            model=model,
            spec_revision=spec_revision,
            ranges=ranges_of(self.steps),
            reason=self.reason,
            requested_by=self.requested_by,
            time=now,
        )


class Situation(NamedTuple):
    """What the policy looks at beside its own state: the newest example's number, and where the versions stand."""

    number: int
    has_batch_version: bool
    batch_candidate_on_trial: bool
    now: datetime


class RetrainingState(BaseModel):
    """Where one model's retraining stands."""

    outstanding: str | None = None
    outstanding_since: datetime | None = None
    pending: Pending | None = None
    follow_up: FollowUp | None = None
    last_request: int | None = None
    newest_at: datetime | None = None
    enough_at: datetime | None = None

    def alert(self, cause: Cause, since: int | None, number: int, spec: ModelSpec, pending: Pending) -> bool:
        """An alert was raised at example `number`; whether it leads to the training `pending`."""
        if spec.learners.batch is None or cause not in spec.retraining.after:
            return False
        if self.outstanding is not None or self.pending is not None:
            return False
        due = max(number + spec.retraining.settle_examples, self._cool_at(spec.retraining))
        self.pending = pending.model_copy(update={"since": since, "due": due})
        self.follow_up = None
        return True

    def over(self, run_id: str) -> None:
        """A run has finished or failed, or its version is registered."""
        if self.outstanding == run_id:
            self.outstanding = self.outstanding_since = None

    def _cool_at(self, retraining: Retraining) -> int:
        return 0 if self.last_request is None else self.last_request + retraining.cooldown_examples

    def due(self, spec: ModelSpec, trail: Trail, situation: Situation, new_run: Callable[[], str]) -> Request | None:
        """The training to ask for now, if any; it is outstanding from then on."""
        batch = spec.learners.batch
        if batch is None or self.outstanding is not None:
            return None
        request = (
            self._after_alert(batch, trail, situation)
            or self._first(spec, batch, trail, situation, new_run)
            or self._follow_up(spec, batch, trail, situation, new_run)
        )
        if request is not None:
            self.outstanding, self.outstanding_since = request.run_id, situation.now
            self.last_request = situation.number
        return request

    def _first(
        self, spec: ModelSpec, batch: BatchLearner, trail: Trail, situation: Situation, new_run: Callable[[], str]
    ) -> Request | None:
        if situation.has_batch_version or situation.number < max(batch.min_examples, self._cool_at(spec.retraining)):
            return None
        now = situation.now
        self.enough_at = self.enough_at or now
        quiet = self.newest_at is not None and now - self.newest_at >= QUIET
        if situation.number < batch.max_examples and not quiet and now - self.enough_at < PATIENCE:
            return None
        reason = f"first training: {situation.number} labelled examples and no version yet"
        return Request(new_run(), list(trail.newest(batch.max_examples)), reason, "monitoring")

    def waits(self, spec: ModelSpec, situation: Situation) -> bool:
        """Whether time alone may make a training due: enough examples for a first one, and more may come."""
        batch = spec.learners.batch
        return (
            batch is not None
            and self.outstanding is None
            and not situation.has_batch_version
            and situation.number >= max(batch.min_examples, self._cool_at(spec.retraining))
        )

    def _after_alert(self, batch: BatchLearner, trail: Trail, situation: Situation) -> Request | None:
        wanted = self.pending
        if wanted is None or situation.number < wanted.due:
            return None
        since = list(trail.since(wanted.since)) if wanted.since is not None else []
        settled = distinct(since) >= batch.min_examples
        steps = since[-batch.max_examples :] if settled else list(trail.newest(batch.max_examples))
        self.pending = None
        if wanted.since is not None and settled and len(since) < batch.max_examples:
            self.follow_up = FollowUp(since=wanted.since, due=wanted.since + batch.max_examples - 1)
        return Request(wanted.run_id, steps, wanted.reason, wanted.requested_by)

    def _follow_up(
        self, spec: ModelSpec, batch: BatchLearner, trail: Trail, situation: Situation, new_run: Callable[[], str]
    ) -> Request | None:
        wanted = self.follow_up
        if wanted is None or situation.batch_candidate_on_trial:
            return None
        if situation.number < max(wanted.due, self._cool_at(spec.retraining)):
            return None
        self.follow_up = None
        reason = f"follow-up: {batch.max_examples} examples of the new regime have come since the drift began"
        return Request(new_run(), list(trail.newest(batch.max_examples)), reason, "monitoring")
