"""From records to handlers and back: the two roles of training.

`online` learns in a thread beside the event loop, one log's batch at a time, and publishes a checkpoint before the
offsets behind it are committed. Between batches a tick publishes what became due.

`batch` takes requests in hand and commits nothing: one task works through them, in order, and each tick hands on what
that task has said since. A request's offset is committed with its last event. When the partition is taken away, the
task in hand is cancelled; the next owner goes on from its checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from tailrace_contracts.events import CandidateTrained, Event, RevisionTrained, TrainingProgressed, TrainingRequested
from tailrace_contracts.ranges import Log
from tailrace_runtime.clock import Clock
from tailrace_runtime.consumer import Outcome, Parked, Stateless
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_training.domain.online import OnlineRun
from tailrace_training.errors import TrainingStuck
from tailrace_training.handlers import (
    Online,
    Runs,
    checkpoint,
    finished_through,
    forget_superseded,
    know_specs,
    learn,
    resume,
)
from tailrace_training.trainings import Batch, train

log = structlog.get_logger(__name__)

TopicsOut = Mapping[type[Event], str]
"""The topic of each event that training publishes."""


def _addressed(event: Event, topics: TopicsOut) -> Outgoing:
    """Under its model; progress under its run."""
    match event:
        case TrainingProgressed():
            return outgoing(event, topics[TrainingProgressed], event.run_id)
        case CandidateTrained() | RevisionTrained():
            return outgoing(event, topics[type(event)], event.model)
    raise TypeError(f"training publishes no {event.type}")


class OnlineRole(Stateless):
    """The state of the `online` role: the runs of each log that this process owns."""

    def __init__(
        self, online: Online, topics: TopicsOut, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._online = online
        self._topics = topics
        self._clock = clock
        self._monotonic = monotonic
        self.runs: dict[Log, Runs] = {}
        self._read: dict[Log, int] = {}

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Resume the runs of these logs. Reading goes on as committed: a commit never runs ahead of a checkpoint."""
        for log in sorted(logs):
            self.runs[log] = await resume(log, self._online)
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Forget the runs: whoever owns the logs next resumes them."""
        for log in logs:
            self.runs.pop(log, None)
            self._read.pop(log, None)

    async def learned(self, records: Sequence[Record]) -> Outcome:
        """Learn a batch of one log, and publish what is due."""
        log = records[-1].log
        await know_specs(records, self._online.specs)
        parked = await asyncio.to_thread(learn, records, self.runs[log], self._online)
        self._read[log] = records[-1].offset
        outcome = await self._published(log)
        outcome.parked = parked
        return outcome

    async def tick(self) -> Mapping[Log, Outcome]:
        """Delete what nobody will ask for, and publish what has become due without a new record."""
        for runs in self.runs.values():
            for run in runs.values():
                await forget_superseded(run, self._online)
        return {log: await self._published(log) for log in list(self._read) if self._due(log)}

    def _due(self, log: Log) -> list[OnlineRun]:
        now = self._monotonic()
        return [run for run in self.runs[log].values() if run.due(now)]

    async def _published(self, log: Log) -> Outcome:
        events = await checkpoint(self._due(log), self._online, self._monotonic(), self._clock.now())
        through = finished_through(self.runs[log], self._read[log])
        return Outcome(emit=[_addressed(each, self._topics) for each in events], commit_through=through)


@dataclass(slots=True)
class _Asked:
    """A record in hand, and what its training has said since the last tick. Poison has no request, and is done."""

    record: Record
    request: TrainingRequested | None
    said: list[Event] = field(default_factory=list)
    done: bool = False


class BatchRole(Stateless):
    """The state of the `batch` role: requests in hand, oldest first, and the task that works on the first."""

    def __init__(
        self,
        batch: Batch,
        topics: TopicsOut,
        progress_seconds: float = 0.5,
        retry_limit_seconds: float = 600,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batch = batch
        self._topics = topics
        self._progress_seconds = progress_seconds
        self._retry_limit_seconds = retry_limit_seconds
        self._monotonic = monotonic
        self._asked: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self._told_at = float("-inf")

    async def requested(self, records: Sequence[Record]) -> Outcome:
        """Take requests in hand. Nothing is committed before it is done."""
        outcome = Outcome(commit_through=-1)
        for record in records:
            try:
                request = TrainingRequested.model_validate_json(record.value or b"")
            except ValidationError as error:
                reason = f"{record} is no training request: {error.errors()[0]['msg']}"
                outcome.parked.append(Parked(record, "unreadable-event", reason))
                self._asked.append(_Asked(record, None, done=True))
            else:
                self._asked.append(_Asked(record, request))
        self._go_on()
        return outcome

    async def revoked(self, logs: set[Log]) -> None:
        """Let go of these logs' requests, in the middle of a training if need be."""
        working = self._asked[0] if self._asked and self._task is not None else None
        self._asked = deque(each for each in self._asked if each.record.log not in logs)
        if working is not None and working.record.log in logs and self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._go_on()

    async def tick(self) -> Mapping[Log, Outcome]:
        """Hand on what was said, and the offsets of what is done. Raises what stopped the task."""
        outcomes: dict[Log, Outcome] = {}
        self._check()
        while self._asked:
            first = self._asked[0]
            outcome = outcomes.setdefault(first.record.log, Outcome(commit_through=-1))
            outcome.emit += [_addressed(each, self._topics) for each in first.said]
            first.said.clear()
            if not first.done:
                break
            outcome.commit_through = first.record.offset
            self._asked.popleft()
        self._go_on()
        return outcomes

    def _check(self) -> None:
        """Raise what stopped the task, if anything did."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()

    def _go_on(self) -> None:
        """Work on the first request, if nobody does."""
        self._check()
        if self._task is None and self._asked and not self._asked[0].done:
            self._task = asyncio.create_task(self._work(self._asked[0]))

    async def _work(self, asked: _Asked) -> None:
        """Train as asked. A broker or a store that is away is waited for, up to the bound."""
        began = self._monotonic()
        while asked.request is not None and not asked.done:
            try:
                candidate = await train(asked.request, self._batch, lambda told: self._tell(asked, told))
                asked.said += [candidate] if candidate is not None else []
                asked.done = True
                seconds = round(self._monotonic() - began, 2)
                log.info("training over", run_id=asked.request.run_id, offered=candidate is not None, seconds=seconds)
            except RetryLater as later:
                waited = self._monotonic() - began
                if waited > self._retry_limit_seconds:
                    raise TrainingStuck(f"run {asked.request.run_id} stopped after {waited:.0f} s: {later}") from later
                log.warning("training put off", run_id=asked.request.run_id, reason=later.reason)
                await asyncio.sleep(later.after_seconds)

    def _tell(self, asked: _Asked, told: TrainingProgressed) -> None:
        """Keep an event for the next tick. Of the many of stage `training`, one in a while is enough."""
        if told.stage == "training":
            now = self._monotonic()
            if now - self._told_at < self._progress_seconds:
                return
            self._told_at = now
        asked.said.append(told)
