"""What a handler's ending becomes: the one place that decides.

- `Outcome`: what it emits and parks is published and acknowledged; then its offsets are finished.
- `RetryLater`: the batch stays in hand; pauses grow from the one asked for to five seconds; heartbeats go on. After
  `retry_limit_seconds` the partition stops.
- `PoisonEvent`: the record goes to `dead-letters`. From a batch of several, each is handed over alone, to find it.
- anything else: the partition stops (`PartitionStopped`).

A delivery that fails is repeated without calling the handler a second time. Where the role lets them overlap, the
delivery of one batch goes on while the next is handled; there is never more than one of each log on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from tailrace_contracts.ranges import Log
from tailrace_runtime import health
from tailrace_runtime.clock import Clock
from tailrace_runtime.consumer import ConsumerRole
from tailrace_runtime.deadletters import DeadLetterRate, dead_letter
from tailrace_runtime.errors import (
    DeadLetterLimitExceeded,
    DeliveryFailed,
    PartitionStopped,
    PoisonEvent,
    RetryLater,
)
from tailrace_runtime.outcome import Outcome, Parked
from tailrace_runtime.ownership import GaveWayError
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, Record, Run
from tailrace_runtime.rolemeter import RoleMeter, place

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 5.0
_REDELIVERY_SECONDS = 1.0
_TURNS_TO_THE_SOCKET = 5
"""Turns of the event loop in which a delivery gets from its task through the client's sender to the socket."""

Finish = Callable[[Log, int], None]
Interrupted = Callable[[float], Awaitable[bool]]


class Retries:
    """Bounded patience for one piece of work: pauses that grow, in reach of whoever wants the partition back."""

    def __init__(self, role: str, where: str, limit_seconds: float, interrupted: Interrupted) -> None:
        self._role = role
        self._where = where
        self._limit_seconds = limit_seconds
        self._interrupted = interrupted
        self._began = time.monotonic()
        self._waited = False
        self.attempts = 0

    def progressed(self) -> None:
        """Something was finished in between: patience starts again."""
        self._began, self.attempts = time.monotonic(), 0

    async def pause(self, later: RetryLater) -> None:
        """Wait before the next attempt.

        Raises:
            PartitionStopped: the time for retries is over.
            GaveWayError: the partition is wanted back, or the role is stopping.
        """
        spent = time.monotonic() - self._began
        seconds = min(later.after_seconds * 2.0 ** min(max(self.attempts - 1, 0), 10), LONGEST_PAUSE_SECONDS)
        note = {"role": self._role, "place": self._where, "reason": later.reason, "attempts": self.attempts}
        if spent + seconds > self._limit_seconds:
            log.error("partition stopped", **note)
            raise PartitionStopped(
                f"role {self._role} stopped at {self._where} after {self.attempts} attempts"
                f" in {spent:.0f} s: {later.reason}"
            ) from later
        log.warning("retrying", pause_seconds=seconds, **note)
        self._waited = True
        health.here().waiting(f"role {self._role}", f"retrying {self._where}: {later.reason}")
        if await self._interrupted(seconds):
            raise GaveWayError

    def over(self) -> None:
        """The work is done; if there had been pauses, the role is ready again."""
        if self._waited:
            health.here().ready(f"role {self._role}")


class Handling:
    """Hands batches and ticks to a role, and makes what comes of them true."""

    def __init__(
        self,
        role: ConsumerRole,
        service: str,
        *,
        producer: Publisher,
        meter: RoleMeter,
        clock: Clock,
        finish: Finish,
        retries: Callable[[str], Retries],
    ) -> None:
        self._role = role
        self._service = service
        self._producer = producer
        self._meter = meter
        self._clock = clock
        self._finish = finish
        self._retries = retries
        self._rate = DeadLetterRate(role.dead_letter_limit)
        self._deliveries: dict[Log, asyncio.Task[None]] = {}

    async def batch(self, records: Sequence[Record]) -> None:
        """Handle records of one topic partition, to their end.

        Raises:
            PartitionStopped: the handler failed in a way that may not be skipped.
            GaveWayError: the partition is wanted back before the end.
        """
        where = place(records)
        retries = self._retries(where)
        while records:
            retries.attempts += 1
            try:
                with health.here().in_hand(f"role {self._role.name} {where}"):
                    outcome = await self._role.routes[records[0].topic](records)
                await self._finished(records, outcome, retries.attempts)
                break
            except RetryLater as later:
                if later.done is not None:
                    records = await self._finished_part(records, later.done, retries.attempts)
                    retries.progressed()
                self._meter.handled(records, "retried")
                await retries.pause(later)
            except PoisonEvent as poison:
                await self._find_poison(records, poison, retries.attempts)
                break
            except (PartitionStopped, GaveWayError):
                raise
            except Exception as error:
                raise self._stopped(where, error) from error
        retries.over()

    def _stopped(self, where: str, error: Exception) -> PartitionStopped:
        log.error("partition stopped", role=self._role.name, place=where, exc_info=error)
        return PartitionStopped(f"role {self._role.name} stopped at {where}: {error!r}")

    async def _find_poison(self, records: Sequence[Record], poison: PoisonEvent, attempts: int) -> None:
        if len(records) > 1:
            for record in records:
                await self.batch([record])
            return
        parked = Parked(records[0], poison.code, poison.reason, poison.model)
        await self._finished(records, Outcome(parked=[parked]), attempts)

    async def _finished_part(self, records: Sequence[Record], done: Outcome, attempts: int) -> Sequence[Record]:
        """Finish what was done before a retry; gives back the rest."""
        through = records[-1].offset if done.commit_through is None else done.commit_through
        finished = [record for record in records if record.offset <= through]
        if finished:
            await self._finished(finished, done, attempts)
        return records[len(finished) :]

    async def _finished(self, records: Sequence[Record], outcome: Outcome, attempts: int) -> None:
        """Publish what came of the records; then, and only then, their offsets are finished."""
        self._check_rate(records, outcome)
        log_ = records[-1].log
        await self._settle({log_} | {other for other, task in self._deliveries.items() if task.done()})
        delivery = self._deliver(records, outcome, attempts)
        if not self._role.overlap:
            await delivery
            return
        self._deliveries[log_] = asyncio.create_task(delivery)
        for _ in range(_TURNS_TO_THE_SOCKET):
            await asyncio.sleep(0)

    async def _deliver(self, records: Sequence[Record], outcome: Outcome, attempts: int) -> None:
        letters = [self._letter(parked, attempts) for parked in outcome.parked]
        try:
            await self._publish([*outcome.emit, *letters], outcome.runs)
        except (PartitionStopped, GaveWayError):
            raise
        except Exception as error:
            raise self._stopped(place(records), error) from error
        last = records[-1]
        self._finish(last.log, last.offset if outcome.commit_through is None else outcome.commit_through)
        self._meter.parked(outcome.parked)
        self._meter.handled(records, "done", less=len(outcome.parked))

    async def settle(self) -> None:
        """Wait for the deliveries that are on their way. Raises as `batch` does."""
        await self._settle(set(self._deliveries))

    async def _settle(self, logs: set[Log]) -> None:
        """Wait for the deliveries of these logs."""
        for log_ in logs & self._deliveries.keys():
            delivery = self._deliveries.pop(log_)
            try:
                await delivery
            except asyncio.CancelledError:
                delivery.cancel()
                raise

    async def settle_last(self, seconds: float) -> None:
        """Give the deliveries that are on their way so long; what is not acknowledged is handled again by the next."""
        deliveries, self._deliveries = list(self._deliveries.values()), {}
        if not deliveries:
            return
        _, late = await asyncio.wait(deliveries, timeout=seconds)
        for delivery in late:
            delivery.cancel()
        for result in await asyncio.gather(*deliveries, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, GaveWayError | asyncio.CancelledError):
                raise result

    def _check_rate(self, records: Sequence[Record], outcome: Outcome) -> None:
        try:
            self._rate.add(time.monotonic(), len(records), len(outcome.parked))
        except DeadLetterLimitExceeded as error:
            newest = outcome.parked[-1]
            sentence = f"role {self._role.name} stopped at {newest.record}: {error} (the newest: {newest.code}: {newest.reason})"
            raise DeadLetterLimitExceeded(sentence) from error

    def _letter(self, parked: Parked, attempts: int) -> Outgoing:
        now = self._clock.now()
        return dead_letter(parked, service=self._service, role=self._role.name, attempts=attempts, now=now)

    async def _publish(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        if not records and not runs:
            return
        retries = self._retries("publication")
        while True:
            retries.attempts += 1
            try:
                await self._producer.send_all(records, runs)
                break
            except DeliveryFailed as error:
                await retries.pause(RetryLater(str(error), _REDELIVERY_SECONDS))
        retries.over()

    async def tick(self) -> None:
        """Let the role's state do what it does between batches, and make that true.

        Raises:
            PartitionStopped: it failed. `RetryLater` only puts it off until the next tick; the role is not ready until then.
        """
        if self._role.state is None:
            return
        part = f"tick of role {self._role.name}"
        try:
            await self.settle()
            with health.here().in_hand(f"role {self._role.name} tick"):
                outcome = await self._role.state.tick()
            await self._ticked(outcome)
            health.here().ready(part)
        except RetryLater as later:
            health.here().waiting(part, later.reason)
            log.warning("tick put off", role=self._role.name, reason=later.reason)
        except (PartitionStopped, GaveWayError):
            raise
        except Exception as error:
            log.exception("role stopped", role=self._role.name, place="tick")
            raise PartitionStopped(f"role {self._role.name} stopped in its tick: {error!r}") from error

    async def _ticked(self, outcome: Mapping[Log, Outcome] | Outcome) -> None:
        by_log = {} if isinstance(outcome, Outcome) else outcome
        outcomes = [outcome] if isinstance(outcome, Outcome) else list(outcome.values())
        letters = [self._letter(parked, 1) for each in outcomes for parked in each.parked]
        runs = [run for each in outcomes for run in each.runs]
        await self._publish([*(record for each in outcomes for record in each.emit), *letters], runs)
        for each in outcomes:
            self._meter.parked(each.parked)
        for log_, each in by_log.items():
            if each.commit_through is not None:
                self._finish(log_, each.commit_through)
