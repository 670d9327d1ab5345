"""The consume loop: one for all services, one task for each consumer role.

It polls, and for every batch (records of one topic partition) it runs, in this order: the handler; publication of what
it emitted and of its dead letters, acknowledged; the offset, marked as finished (`handling.py`). Finished offsets are
committed together a few times a second (`offsets.py`), and always before partitions are given away (`ownership.py`) or
the role stops: the commit is the last step. Killed in between, the records are handled again, so effects must bear
repetition.

When a partition stops, `/livez` and `/readyz` name it, the role ends with `PartitionStopped`, and the service drains
its other roles and exits with code 1, so that whoever runs it starts it again and sees it fail. A broker that is away is
waited for. Group membership is static, `{service}-{role}-{instance}`: a restarted process takes its partitions back
without a rebalance; one that is gone for good is missed after the session timeout, ten seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from tailrace_contracts.catalogue import topics
from tailrace_contracts.ranges import Log
from tailrace_runtime import health
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole
from tailrace_runtime.errors import PartitionStopped, RetryLater
from tailrace_runtime.fencing import Fencing
from tailrace_runtime.fetching import by_record_batches
from tailrace_runtime.handling import Handling, Retries
from tailrace_runtime.kafka import UNREACHABLE, close, connection, knows_its_coordinator, member_id, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.offsets import Offsets
from tailrace_runtime.ownership import Ownership
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Records
from tailrace_runtime.rolemeter import RoleMeter
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

SESSION_TIMEOUT_SECONDS = 10
HEARTBEAT_SECONDS = 2
_REJOIN_SECONDS = 20
_IDLE_POLL_SECONDS = 0.5
_REPORT_EVERY_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_NEVER_MS = 24 * 3600 * 1000


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
        self._settings = settings
        self._part = f"role {role.name}"
        self._member = f"{service}-{role.name}-{settings.instance}"
        self._group = f"{settings.topic_prefix}{service}-{role.name}"
        self._meter = RoleMeter(metrics or Metrics(service), role.name)
        self._offsets = Offsets(role.name, role.commit_seconds, self._meter)
        self._fencing = Fencing(f"{service}/{role.name}", settings.instance)
        self._handling = Handling(
            role,
            service,
            producer=producer,
            meter=self._meter,
            clock=clock or SystemClock(),
            finish=self._finish,
            retries=self._retries,
        )
        self._stop = asyncio.Event()
        self._read: dict[TopicPartition, int] = {}
        self._next_tick = self._next_report = 0.0
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
        main = asyncio.create_task(self._until_stopped(), name=self._part)
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
                self._fencing.check(error)
                log.warning("consumer failed, starting another", role=self._role.name, error=repr(error))
                health.here().waiting(self._part, f"{unreachable(self._settings)}: {error!r}")
                await asyncio.sleep(_RECONNECT_SECONDS)
            except PartitionStopped as error:
                health.here().stopped(self._part, str(error))
                raise
            finally:
                await self._leave()

    async def _connect(self) -> None:
        self._ours = self._ownership()
        self._consumer = self._new_consumer()
        self._consumer.subscribe([self._settings.topic(topic) for topic in self._role.routes], listener=self._ours)
        try:
            await self._consumer.start()
        except BaseException:
            await close(self._consumer)
            raise
        by_record_batches(self._consumer)

    def _ownership(self) -> Ownership:
        ownership = Ownership(self._role.name, self._role.revoke_seconds, self._pause_partitions)
        ownership.release = self._release
        return ownership

    def _new_consumer(self) -> Any:
        return AIOKafkaConsumer(
            **connection(self._settings),
            client_id=self._member,
            group_id=self._group,
            group_instance_id=self._member,
            partition_assignment_strategy=(RangePartitionAssignor,),  # the same numbers of all topics go together
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_SECONDS * 1000,
            heartbeat_interval_ms=HEARTBEAT_SECONDS * 1000,
            max_poll_interval_ms=_NEVER_MS,  # /livez watches progress; a long batch is no reason to lose partitions
            rebalance_timeout_ms=int((self._role.revoke_seconds + _REJOIN_SECONDS) * 1000),
            fetch_min_bytes=self._role.min_fetch_bytes,
            fetch_max_wait_ms=self._role.max_wait_ms,
            max_partition_fetch_bytes=self._role.max_fetch_bytes,
            metadata_max_age_ms=60_000,
        )

    async def _leave(self) -> None:
        """Commit what is finished and close. The group keeps our place for the session timeout."""
        owned = set(self._ours.owned)
        try:
            if owned:
                await self._release(owned)
            else:
                await self._handling.settle_last(0)
        finally:
            self._ours.owned.clear()
            await close(self._consumer)
            self._meter.left()

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
            if not batches:
                await self._ours.work(self._handling.settle(), epoch=epoch)
            await self._between_batches(epoch)

    def _poll_seconds(self) -> float:
        wait = _IDLE_POLL_SECONDS
        if self._role.state is not None:
            wait = min(wait, self._next_tick - time.monotonic())
        commit = self._offsets.seconds_until_due()
        return max(wait if commit is None else min(wait, commit), 0.001)

    async def _between_batches(self, epoch: int) -> None:
        now = time.monotonic()
        if self._offsets.seconds_until_due() == 0:
            await self._ours.work(self._commit(), epoch=epoch)
        if self._role.state is not None and now >= self._next_tick and self._ours.owned:
            self._next_tick = now + self._role.tick_seconds
            await self._ours.work(self._handling.tick(), epoch=epoch)
        if now >= self._next_report:
            self._next_report = now + _REPORT_EVERY_SECONDS
            self._report()

    async def _batch(self, partition: TopicPartition, batch: Sequence[Any]) -> None:
        if partition not in self._ours.owned:
            return
        name = self._settings.name(partition.topic)
        records = Records(name, partition.partition, batch)
        self._read[partition] = records.offsets[-1] + 1
        began = time.monotonic()
        await self._handling.batch(records)
        if self._role.commit_seconds == 0:
            await self._commit()
        self._meter.batch(name, time.monotonic() - began)

    # ------------------------------------------------------------ finishing

    def _finish(self, place: Log, through: int) -> None:
        partition = TopicPartition(self._settings.topic(place.topic), place.partition)
        if partition in self._ours.owned:
            self._offsets.finish(partition, through)

    def _retries(self, where: str) -> Retries:
        return Retries(self._role.name, where, self._settings.retry_limit_seconds, self._interrupted)

    async def _interrupted(self, seconds: float) -> bool:
        """Sleep; True when the role is stopping or its partitions are wanted back."""
        signals = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._ours.giving_way.wait())]
        try:
            done, _ = await asyncio.wait(signals, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()
        return bool(done)

    async def _commit(self) -> None:
        part, away = f"commits of {self._part}", f"{unreachable(self._settings)}: a commit is not acknowledged"
        await self._offsets.commit(
            self._consumer,
            give_up=lambda: self._ours.giving_way.is_set() or self._stop.is_set(),
            away=lambda: health.here().waiting(part, away),
        )
        health.here().ready(part)

    # ------------------------------------------------------------ taking over and letting go

    def _pause_partitions(self, partitions: set[TopicPartition]) -> None:
        self._consumer.pause(*partitions)

    async def _take_over(self, fresh: set[TopicPartition]) -> None:
        """Recover the role's state for newly assigned partitions, find the places to read on from, and start."""
        self._fencing.joined(member_id(self._consumer))
        health.here().waiting(self._part, f"recovering {len(fresh)} partitions")
        self._ours.owned.update(fresh)
        await self._notice_removed(fresh)
        await self._seek({self._log(partition): partition for partition in fresh})
        self._ours.fresh = None
        self._consumer.resume(*fresh)
        self._meter.assigned(len(fresh))
        names = sorted(f"{topic}[{number}]" for topic, number in map(self._log, fresh))
        log.info("partitions assigned", role=self._role.name, partitions=names)
        health.here().ready(self._part)

    async def _seek(self, by_log: Mapping[Log, TopicPartition]) -> None:
        """Let the role's state recover and say where to read on."""
        if self._role.state is None or not by_log:
            return
        retries = self._retries(f"recovery of {self._part}")
        while True:
            retries.attempts += 1
            try:
                with health.here().in_hand(f"{self._part} recovering"):
                    places = await self._role.state.assigned(set(by_log))
                break
            except RetryLater as later:
                await retries.pause(later)
        for place, offset in places.items():
            if place in by_log:
                self._consumer.seek(by_log[place], offset)

    async def _notice_removed(self, fresh: set[TopicPartition]) -> None:
        """Say it loudly when retention removed records that this group had not read yet."""
        starts = await self._consumer.beginning_offsets(list(fresh)) if fresh else {}
        for partition, start in starts.items():
            name = self._settings.name(partition.topic)
            card = topics().get(name)
            committed = await self._consumer.committed(partition)
            if committed is None or committed >= start or (card is not None and "delete" not in card.cleanup):
                continue
            self._meter.removed(name, start - committed)
            lost = f"{name}[{partition.partition}]@{committed}..{start - 1}"
            log.error("records removed by retention before they were read", role=self._role.name, place=lost)

    async def _release(self, partitions: set[TopicPartition]) -> None:
        """Commit and let go. Called with the hand on the lock, or after the last unit of work."""
        await self._handling.settle_last(self._role.revoke_seconds)
        await self._offsets.commit_last(self._consumer)
        self._read.clear()
        for partition in partitions:
            self._meter.forget_lag(self._log(partition))
        if self._role.state is not None:
            await self._role.state.revoked({self._log(partition) for partition in partitions})
        health.here().waiting(self._part, f"joining consumer group {self._group}")

    def _log(self, partition: TopicPartition) -> Log:
        return Log(self._settings.name(partition.topic), partition.partition)

    def _report(self) -> None:
        """Measure the lag; and say when the group's coordinator is away, even when there is nothing to read."""
        for partition in self._ours.owned:
            newest = self._consumer.highwater(partition)
            if newest is not None:
                self._meter.lag(self._log(partition), newest - self._read.get(partition, newest))
        part = f"broker of {self._part}"
        if knows_its_coordinator(self._consumer):
            health.here().ready(part)
        else:
            health.here().waiting(part, unreachable(self._settings))
