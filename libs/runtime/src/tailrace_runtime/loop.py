"""The consume loop: the one place where a handler's ending becomes action.

One task for each role. It polls, and for every batch (records of one topic partition) it runs, in this order:
the handler; publication of what it emitted and of its dead letters, acknowledged; the offset, marked as finished.
Finished offsets are committed together a few times a second, and always before partitions are given away or the role
stops: the commit is the last step. Killed in between, the records are handled again, so effects must bear repetition.

How a handler ends:

- `Outcome`: as above.
- `RetryLater`: the batch stays in hand; pauses grow from the one asked for to five seconds; heartbeats go on. After
  `retry_limit_seconds` the partition stops.
- `PoisonEvent`: the record goes to `dead-letters`. From a batch of several, each is handed over alone, to find it.
- anything else: the partition stops. `/livez` and `/readyz` name it, the role ends with `PartitionStopped`, and the
  service drains its other roles and exits with code 1, so that whoever runs it starts it again and sees it fail.

A delivery that fails is repeated here, without calling the handler a second time. A broker that is away is waited for.
Group membership is static, `{service}-{role}-{instance}`: a restarted process takes its partitions back without a
rebalance; one that is gone for good is missed after the session timeout, ten seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from tailrace_contracts.catalogue import topics
from tailrace_contracts.ranges import Log
from tailrace_runtime import health
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole, Outcome, Parked
from tailrace_runtime.deadletters import DeadLetterRate, dead_letter
from tailrace_runtime.errors import (
    DeadLetterLimitExceeded,
    DeliveryFailed,
    InstanceFenced,
    PartitionStopped,
    PoisonEvent,
    RetryLater,
)
from tailrace_runtime.kafka import UNREACHABLE, close, connection, knows_its_coordinator, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.ownership import GaveWayError, Ownership
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

SESSION_TIMEOUT_SECONDS = 10
HEARTBEAT_SECONDS = 2
LONGEST_PAUSE_SECONDS = 5.0
_IDLE_POLL_SECONDS = 0.5
_LAG_EVERY_SECONDS = 1.0
_COMMIT_PATIENCE_SECONDS = 5.0
_FENCED_TIMES = 3
_FENCED_WITHIN_SECONDS = 60.0
_WORTH_A_FETCH_BYTES = 65_536
_NEVER_MS = 24 * 3600 * 1000
_NOT_OURS = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class ConsumeLoop:
    """Runs one consumer role until it is told to stop, or until a partition stops."""

    def __init__(
        self,
        role: ConsumerRole,
        *,
        service: str,
        settings: ServiceSettings,
        producer: Publisher,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._role = role
        self._service = service
        self._settings = settings
        self._producer = producer
        self._metrics = metrics or Metrics(service)
        self._clock = clock or SystemClock()
        self._part = f"role {role.name}"
        self._rate = DeadLetterRate(role.dead_letter_limit)
        self._stop = asyncio.Event()
        self._finished: dict[TopicPartition, int] = {}
        self._read: dict[TopicPartition, int] = {}
        self._members: list[tuple[float, str]] = []
        self._next_tick = self._next_commit = self._next_lag = 0.0
        self._retrying = False
        self._consumer: Any = None
        self._ours = self._ownership()

    # ------------------------------------------------------------ from start to stop

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; then finish the batch in hand and commit.

        Raises:
            PartitionStopped: a handler failed in a way that the loop may not skip.
            InstanceFenced: another process runs this role under the same instance name.
        """
        health.here().waiting(self._part, "starting")
        main = asyncio.create_task(self._until_stopped(), name=f"role:{self._role.name}")
        stopper = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((main, stopper), return_when=asyncio.FIRST_COMPLETED)
            self._stop.set()
            if not main.done() and not self._ours.busy:
                main.cancel()
            await asyncio.wait((main,))
            if not main.cancelled():
                main.result()
        except BaseException:
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
            raise
        finally:
            stopper.cancel()

    async def _until_stopped(self) -> None:
        while not self._stop.is_set():
            await wait_for(self._settings, self._role.routes, part=f"topics of {self._part}")
            await until_available(f"broker of {self._part}", unreachable(self._settings), self._connect, UNREACHABLE)
            health.here().waiting(self._part, f"joining consumer group {self._group}")
            try:
                await self._consume()
            except KafkaError as error:
                self._check_fenced(error)
                log.warning("consumer failed, starting another", role=self._role.name, error=repr(error))
                health.here().waiting(self._part, f"{unreachable(self._settings)}: {error!r}")
                await asyncio.sleep(1.0)
            except PartitionStopped as error:
                health.here().stopped(self._part, str(error))
                raise
            finally:
                await self._leave()

    @property
    def _group(self) -> str:
        return f"{self._settings.topic_prefix}{self._service}-{self._role.name}"

    def _ownership(self) -> Ownership:
        ownership = Ownership(self._role.name, self._role.revoke_seconds, self._pause_partitions)
        ownership.release = self._release
        return ownership

    async def _connect(self) -> None:
        role, settings = self._role, self._settings
        member = f"{self._service}-{role.name}-{settings.instance}"
        consumer = AIOKafkaConsumer(
            **connection(settings),
            client_id=member,
            group_id=self._group,
            group_instance_id=member,
            partition_assignment_strategy=(RangePartitionAssignor,),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_SECONDS * 1000,
            heartbeat_interval_ms=HEARTBEAT_SECONDS * 1000,
            max_poll_interval_ms=_NEVER_MS,  # /livez watches progress; a long batch is no reason to lose partitions
            rebalance_timeout_ms=int((role.revoke_seconds + 20) * 1000),
            fetch_min_bytes=_WORTH_A_FETCH_BYTES,  # a trickle is gathered for max_wait_ms: fewer, fuller batches
            fetch_max_wait_ms=role.max_wait_ms,
            metadata_max_age_ms=60_000,
        )
        self._ours = self._ownership()
        consumer.subscribe([settings.topic(topic) for topic in role.routes], listener=self._ours)
        self._consumer = consumer
        try:
            await consumer.start()
        except BaseException:
            await close(consumer)
            raise

    async def _leave(self) -> None:
        """Commit what is finished and close. The group keeps our place for the session timeout."""
        owned = set(self._ours.owned)
        try:
            if owned:
                await self._release(owned)
        finally:
            self._ours.owned.clear()
            await close(self._consumer)
            self._metrics.gauge("tailrace_partitions_assigned", 0, role=self._role.name)

    # ------------------------------------------------------------ polling

    async def _consume(self) -> None:
        while not self._stop.is_set():
            if self._ours.failure is not None:
                raise PartitionStopped(f"{self._part} could not let go of its partitions") from self._ours.failure
            if self._ours.fresh is not None:
                await self._ours.work(self._take_over(self._ours.fresh), epoch=self._ours.epoch)
            batches = await self._consumer.getmany(
                timeout_ms=int(self._poll_seconds() * 1000), max_records=self._role.max_records
            )
            epoch = self._ours.epoch
            for partition, batch in batches.items():
                if self._stop.is_set():
                    return
                await self._ours.work(self._batch(partition, batch), epoch=epoch)
            await self._between_batches(epoch)

    def _poll_seconds(self) -> float:
        now = time.monotonic()
        wait = _IDLE_POLL_SECONDS
        if self._role.state is not None:
            wait = min(wait, self._next_tick - now)
        if self._finished:
            wait = min(wait, self._next_commit - now)
        return max(wait, 0.001)

    async def _between_batches(self, epoch: int) -> None:
        now = time.monotonic()
        if self._finished and now >= self._next_commit:
            await self._ours.work(self._commit(), epoch=epoch)
        if self._role.state is not None and now >= self._next_tick and self._ours.owned:
            self._next_tick = now + self._role.tick_seconds
            await self._ours.work(self._tick(), epoch=epoch)
        if now >= self._next_lag:
            self._next_lag = now + _LAG_EVERY_SECONDS
            self._report_lag()
            self._report_broker()

    # ------------------------------------------------------------ ownership

    def _pause_partitions(self, partitions: set[TopicPartition]) -> None:
        self._consumer.pause(*partitions)

    async def _take_over(self, fresh: set[TopicPartition]) -> None:
        """Recover the role's state for newly assigned partitions, find the places to read on from, and start."""
        self._notice_member()
        self._metrics.count("tailrace_rebalances_total", role=self._role.name)
        health.here().waiting(self._part, f"recovering {len(fresh)} partitions")
        self._ours.owned.update(fresh)
        await self._notice_removed(fresh)
        by_log = {self._log(partition): partition for partition in fresh}
        await self._seek(by_log)
        self._ours.fresh = None
        self._consumer.resume(*fresh)
        self._metrics.gauge("tailrace_partitions_assigned", len(fresh), role=self._role.name)
        names = sorted(f"{topic}[{partition}]" for topic, partition in by_log)
        log.info("partitions assigned", role=self._role.name, partitions=names)
        health.here().ready(self._part)

    async def _seek(self, by_log: Mapping[Log, TopicPartition]) -> None:
        if self._role.state is None:
            return
        places: Mapping[Log, int] = {}
        began, attempt = time.monotonic(), 0
        while by_log:
            try:
                with health.here().in_hand(f"{self._part} recovering"):
                    places = await self._role.state.assigned(set(by_log))
                break
            except RetryLater as later:
                attempt += 1
                await self._pause_after(later, began, attempt, f"recovery of {self._part}")
        for place, offset in places.items():
            if place in by_log:
                self._consumer.seek(by_log[place], offset)

    async def _notice_removed(self, fresh: set[TopicPartition]) -> None:
        """Say it loudly when retention removed records that this group had not read yet."""
        starts = await self._consumer.beginning_offsets(list(fresh)) if fresh else {}
        for partition, start in starts.items():
            card = topics().get(self._settings.name(partition.topic))
            committed = await self._consumer.committed(partition)
            if committed is None or committed >= start or (card is not None and "delete" not in card.cleanup):
                continue
            name = self._settings.name(partition.topic)
            self._metrics.count("tailrace_records_removed_total", start - committed, role=self._role.name, topic=name)
            log.error(
                "records removed by retention before they were read",
                role=self._role.name,
                topic=name,
                partition=partition.partition,
                from_offset=committed,
                through_offset=start - 1,
            )

    async def _release(self, partitions: set[TopicPartition]) -> None:
        """Commit and let go. Called with the hand on the lock, or after the last unit of work."""
        try:
            async with asyncio.timeout(_COMMIT_PATIENCE_SECONDS):
                await self._commit_once()
        except (TimeoutError, KafkaError) as error:
            log.warning("partitions released without their last commit", role=self._role.name, error=repr(error))
        self._finished.clear()
        self._read.clear()
        for partition in partitions:
            self._forget_lag(partition)
        if self._role.state is not None:
            await self._role.state.revoked({self._log(partition) for partition in partitions})
        health.here().waiting(self._part, f"joining consumer group {self._group}")

    def _notice_member(self) -> None:
        """Two processes under one static id take each other's place in turn: stop instead of fighting."""
        member = str(self._consumer._coordinator.member_id)  # noqa: SLF001
        now = time.monotonic()
        self._members = [entry for entry in self._members if entry[0] > now - _FENCED_WITHIN_SECONDS]
        if not self._members or self._members[-1][1] != member:
            self._members.append((now, member))
        if len(self._members) > _FENCED_TIMES:
            raise InstanceFenced(self._fenced())

    def _check_fenced(self, error: KafkaError) -> None:
        if "FencedInstanceId" in repr(error):
            raise InstanceFenced(self._fenced()) from error

    def _fenced(self) -> str:
        return (
            f"another process runs {self._service}/{self._role.name} as instance {self._settings.instance!r}:"
            " give every process of a role its own TAILRACE_INSTANCE"
        )

    # ------------------------------------------------------------ a batch

    async def _batch(self, partition: TopicPartition, batch: Sequence[Any]) -> None:
        if partition not in self._ours.owned:
            return
        name = self._settings.name(partition.topic)
        records = [
            Record(name, each.partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
            for each in batch
        ]
        self._read[partition] = records[-1].offset + 1
        began = time.monotonic()
        await self._handle(partition, records)
        if self._retrying:
            self._retrying = False
            health.here().ready(self._part)
        if self._role.commit_seconds == 0:
            await self._commit()
        self._metrics.observe(
            "tailrace_batch_seconds", time.monotonic() - began, role=self._role.name, topic=records[0].topic
        )

    async def _handle(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        began, attempt, where = time.monotonic(), 0, _place(records)
        while records:
            attempt += 1
            try:
                with health.here().in_hand(f"{self._part} {where}"):
                    outcome = await self._role.routes[records[0].topic](records)
                await self._finish(partition, records, outcome, attempt)
                break
            except RetryLater as later:
                if later.done is not None:
                    records = await self._finish_part(partition, records, later.done, attempt)
                    began, attempt = time.monotonic(), 0
                self._count(records, "retried")
                await self._pause_after(later, began, attempt, where)
            except PoisonEvent as poison:
                await self._find_poison(partition, records, poison, attempt)
                break
            except (PartitionStopped, GaveWayError):
                raise
            except Exception as error:
                log.exception("partition stopped", role=self._role.name, place=where)
                raise PartitionStopped(f"{self._part} stopped at {where}: {error!r}") from error

    async def _find_poison(
        self, partition: TopicPartition, records: Sequence[Record], poison: PoisonEvent, attempt: int
    ) -> None:
        if len(records) > 1:
            for record in records:
                await self._handle(partition, [record])
            return
        parked = Parked(records[0], poison.code, poison.reason, poison.model)
        await self._finish(partition, records, Outcome(parked=[parked]), attempt)

    async def _finish_part(
        self, partition: TopicPartition, records: Sequence[Record], done: Outcome, attempt: int
    ) -> Sequence[Record]:
        through = records[-1].offset if done.commit_through is None else done.commit_through
        finished = [record for record in records if record.offset <= through]
        if finished:
            await self._finish(partition, finished, done, attempt)
        return records[len(finished) :]

    async def _finish(
        self, partition: TopicPartition, records: Sequence[Record], outcome: Outcome, attempt: int
    ) -> None:
        """Publish what came of the records; then, and only then, count their offsets as finished."""
        self._check_rate(records, outcome)
        letters = [self._letter(parked, attempt) for parked in outcome.parked]
        await self._publish([*outcome.emit, *letters])
        self._mark(partition, records[-1].offset if outcome.commit_through is None else outcome.commit_through)
        self._count_parked(outcome.parked)
        self._count(records, "done", less=len(outcome.parked))

    def _check_rate(self, records: Sequence[Record], outcome: Outcome) -> None:
        try:
            self._rate.add(time.monotonic(), len(records), len(outcome.parked))
        except DeadLetterLimitExceeded as error:
            last = outcome.parked[-1]
            log.error("dead-letter limit", role=self._role.name, place=str(last.record), code=last.code, why=str(error))  # noqa: TRY400
            raise DeadLetterLimitExceeded(
                f"{self._part} stopped at {last.record}: {error} (the newest: {last.code}: {last.reason})"
            ) from error

    def _letter(self, parked: Parked, attempt: int) -> Outgoing:
        now = self._clock.now()
        return dead_letter(parked, service=self._service, role=self._role.name, attempts=attempt, now=now)

    async def _publish(self, records: Sequence[Outgoing]) -> None:
        began, attempt = time.monotonic(), 0
        while records:
            try:
                await self._producer.send_all(records)
                break
            except DeliveryFailed as error:
                attempt += 1
                await self._pause_after(RetryLater(str(error), 1.0), began, attempt, "publication")

    async def _pause_after(self, later: RetryLater, began: float, attempt: int, where: str) -> None:
        """Back off, in reach of whoever wants the partition back.

        Raises:
            PartitionStopped: the time for retries is over.
        """
        spent, limit = time.monotonic() - began, self._settings.retry_limit_seconds
        seconds = min(
            later.after_seconds * 2 ** min(attempt - 1, 10) if attempt else later.after_seconds, LONGEST_PAUSE_SECONDS
        )
        if spent + seconds > limit:
            message = f"{self._part} stopped at {where} after {attempt} attempts in {spent:.0f} s: {later.reason}"
            log.error("partition stopped", role=self._role.name, place=where, reason=later.reason, attempts=attempt)
            raise PartitionStopped(message) from later
        log.warning("retrying", role=self._role.name, place=where, reason=later.reason, attempt=attempt, pause=seconds)
        self._retrying = True
        health.here().waiting(self._part, f"retrying {where}: {later.reason}")
        if await self._interrupted(seconds):
            raise GaveWayError

    async def _interrupted(self, seconds: float) -> bool:
        """Sleep; True when the role is stopping or its partitions are wanted back."""
        signals = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._ours.giving_way.wait())]
        try:
            done, _ = await asyncio.wait(signals, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()
        return bool(done)

    async def _tick(self) -> None:
        if self._role.state is None:
            return
        try:
            with health.here().in_hand(f"{self._part} tick"):
                outcome = await self._role.state.tick()
            await self._finish_tick(outcome)
        except RetryLater as later:
            log.warning("tick put off", role=self._role.name, reason=later.reason)
        except (PartitionStopped, GaveWayError):
            raise
        except Exception as error:
            log.exception("role stopped", role=self._role.name, place="tick")
            raise PartitionStopped(f"{self._part} stopped in its tick: {error!r}") from error

    async def _finish_tick(self, outcome: Mapping[Log, Outcome] | Outcome) -> None:
        by_log = {} if isinstance(outcome, Outcome) else outcome
        outcomes = [outcome] if isinstance(outcome, Outcome) else list(outcome.values())
        letters = [self._letter(parked, 1) for each in outcomes for parked in each.parked]
        await self._publish([*(record for each in outcomes for record in each.emit), *letters])
        for each in outcomes:
            self._count_parked(each.parked)
        for place, each in by_log.items():
            if each.commit_through is not None:
                self._mark(self._partition(place), each.commit_through)

    # ------------------------------------------------------------ commits

    def _mark(self, partition: TopicPartition, through: int) -> None:
        if through < 0 or partition not in self._ours.owned:
            return
        if not self._finished:
            self._next_commit = time.monotonic() + self._role.commit_seconds
        self._finished[partition] = max(through + 1, self._finished.get(partition, 0))

    async def _commit(self) -> None:
        """Commit what is finished; waits for a broker that is away, unless the partitions are wanted back."""
        while self._finished and not self._ours.giving_way.is_set():
            try:
                async with asyncio.timeout(_COMMIT_PATIENCE_SECONDS):
                    await self._commit_once()
            except TimeoutError:
                log.warning("commit not acknowledged, trying again", role=self._role.name)
                health.here().waiting(self._part, f"{unreachable(self._settings)}: a commit is not acknowledged")
                if self._stop.is_set():
                    return
            else:
                health.here().ready(self._part)

    async def _commit_once(self) -> None:
        """Commit the finished offsets of partitions that are still ours."""
        offsets = {
            partition: OffsetAndMetadata(offset, "")
            for partition, offset in self._finished.items()
            if partition in self._ours.owned
        }
        if not offsets:
            self._finished.clear()
            return
        try:
            await self._consumer.commit(offsets)
        except _NOT_OURS as error:
            self._metrics.count("tailrace_commits_lost_total", role=self._role.name)
            log.warning("commit refused after a rebalance: the records will be handled again", error=repr(error))
        self._finished.clear()

    # ------------------------------------------------------------ counting

    def _count(self, records: Sequence[Record], outcome: str, less: int = 0) -> None:
        if len(records) > less:
            self._metrics.count(
                "tailrace_events_total",
                len(records) - less,
                role=self._role.name,
                topic=records[0].topic,
                outcome=outcome,
            )

    def _count_parked(self, parked: Sequence[Parked]) -> None:
        for each in parked:
            topic = each.record.topic
            self._metrics.count("tailrace_events_total", role=self._role.name, topic=topic, outcome="parked")
            self._metrics.count("tailrace_dead_letters_total", role=self._role.name, topic=topic, code=each.code)

    def _report_lag(self) -> None:
        for partition in self._ours.owned:
            newest = self._consumer.highwater(partition)
            if newest is not None:
                read = self._read.get(partition, newest)
                self._metrics.gauge("tailrace_consumer_lag", max(newest - read, 0), **self._labels(partition))

    def _report_broker(self) -> None:
        """Not ready while the group's coordinator is away, even when there is nothing to read."""
        part = f"broker of {self._part}"
        if knows_its_coordinator(self._consumer):
            health.here().ready(part)
        else:
            health.here().waiting(part, unreachable(self._settings))

    def _forget_lag(self, partition: TopicPartition) -> None:
        with suppress(KeyError):
            self._metrics.forget("tailrace_consumer_lag", **self._labels(partition))

    def _labels(self, partition: TopicPartition) -> dict[str, str]:
        name = self._settings.name(partition.topic)
        return {"role": self._role.name, "topic": name, "partition": str(partition.partition)}

    def _log(self, partition: TopicPartition) -> Log:
        return Log(self._settings.name(partition.topic), partition.partition)

    def _partition(self, place: Log) -> TopicPartition:
        return TopicPartition(self._settings.topic(place.topic), place.partition)


def _place(records: Sequence[Record]) -> str:
    """`topic[partition]@first..last`, for logs and health."""
    first, last = records[0], records[-1]
    return str(first) if first.offset == last.offset else f"{first}..{last.offset}"
