"""The role `aggregate` on Faust: partitions, two tables with changelogs and their recovery; our code does the rest.

Faust is kept to what it is good at. It gets bytes and gives bytes: decoding, poison and publication are ours. It runs
in the service's own event loop, its consumer in a thread beside it. The agent takes partials one by one and
acknowledges none of them; a moment after some have come `_settle` publishes the windows that are due; once the changelog
has the tables' writes as well, the partials are acknowledged. What Faust would let pass (an error in the agent, a crash of its
own) ends the role, loudly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

import structlog

from tailrace_contracts.ranges import LogRange
from tailrace_ingestion.adapters.faust_app import ROLE, Application, Hooks, build, create_changelogs, group_of
from tailrace_runtime import health
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import Parked
from tailrace_runtime.deadletters import dead_letter
from tailrace_runtime.errors import DeliveryFailed, PoisonEvent, RetryLater, TailraceError
from tailrace_runtime.kafka import UNREACHABLE, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

SETTLE_AT_STOP_SECONDS = 4.0
STOP_SECONDS = 8.0
GATHER_SECONDS = 0.02
"""From the first partial to the settling: those of one tick of `validate` come together."""
_MOST_UNSETTLED = 2_000
_LOOK_BACK = 100
_PART = f"role {ROLE}"

Read = Callable[[LogRange], AsyncIterator[Sequence[Record]]]
"""Reads what the topic still has of a range, beside Faust. May raise RetryLater."""

Take = Callable[[Record, Any], None]
"""Takes one record in, and writes the tables that it is handed. Raises PoisonEvent."""


class Aggregation(Protocol):
    """What is done with the partials that were taken in."""

    def rebuild(self, partials: Any, states: Any, partitions: set[int]) -> None:
        """Begin anew from the tables."""
        ...

    def due(self) -> list[Outgoing]:
        """What is to be published now."""
        ...


class _Taken(NamedTuple):
    """Partials that were taken in together, and the table writes that they led to."""

    events: list[Any]
    writes: list[asyncio.Future[Any]]


class _Missed(NamedTuple):
    """Records that Faust did not hand over, and the gaps of its consumer, where they let its commits go on."""

    records: Sequence[Record] = ()
    gaps: Any = None
    place: LogRange | None = None

    def ack(self) -> None:
        """They are done."""
        if self.place is not None:
            self.gaps.addi(self.place.from_offset, self.place.through_offset + 1)
            self.gaps.merge_overlaps()


def _record(topic: str, message: Any) -> Record:
    headers = tuple(dict(message.headers or ()).items())
    moment = int(message.timestamp * 1000)
    return Record(topic, message.partition, message.offset, moment, message.key, message.value, headers)


class AggregationFailed(TailraceError):  # noqa: N818  # it says what happened
    """Faust stopped, or the agent did."""


class FaustAggregation:
    """`run` works until it is told to stop. Implements the tables that the aggregation writes."""

    def __init__(
        self,
        settings: ServiceSettings,
        aggregation: Aggregation,
        topic: str,
        take: Take,
        *,
        publisher: Publisher,
        metrics: Metrics,
        settle_seconds: float,
        read: Read,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._aggregation = aggregation
        self._topic = topic
        self._take_in = take
        self._publisher = publisher
        self._metrics = metrics
        self._settle_seconds = settle_seconds
        self._read = read
        self._clock = clock or SystemClock()
        self._faust = Application(None, {})
        self._unsettled = _Taken([], [])
        self._outbox: list[Outgoing] = []
        self._held: list[_Taken] = []
        self._published: deque[_Taken] = deque()
        self._recovered = False
        self._assignment = 0
        self._next: dict[int, int] = {}
        self._hand = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._agent_failed = asyncio.Event()
        self._agent_error: BaseException | None = None

    # ------------------------------------------------------------ from start to stop

    async def run(self, stop: asyncio.Event) -> None:
        """Aggregate until `stop` is set. Raises AggregationFailed when Faust or the agent fails."""
        health.here().waiting(_PART, "starting")
        tasks = [asyncio.create_task(each) for each in (stop.wait(), self._serve(), self._settle_for_ever())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                self._fail(done.pop())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                if stop.is_set():
                    await self._settle_at_last()
            finally:
                await self._stop_faust()

    def _fail(self, task: asyncio.Task[Any]) -> None:
        error = task.exception()
        health.here().stopped(_PART, repr(error))
        raise AggregationFailed(f"{_PART} stopped: {error!r}") from error

    async def _serve(self) -> None:
        """Start Faust when the broker and the topics are there; raise when it or the agent has failed."""
        await wait_for(self._settings, [self._topic, "feature-statistics"], part=_PART)
        create = unreachable(self._settings)
        await until_available(_PART, create, lambda: create_changelogs(self._settings, self._topic), UNREACHABLE)
        hooks = Hooks(self._agent, self._note_assignment, self._note_recovery, self._note_write)
        self._faust = build(self._settings, self._topic, hooks)
        await self._faust.app.start()
        health.here().ready(_PART)
        log.info("aggregation started", group=group_of(self._settings))
        ends = [asyncio.create_task(each.wait()) for each in (self._faust.app._crashed, self._agent_failed)]  # noqa: SLF001
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
        raise AggregationFailed(repr(self._agent_error or self._faust.app.crash_reason))

    async def _settle_at_last(self) -> None:
        """Publish and acknowledge what was taken in, if that can be done in a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_AT_STOP_SECONDS):
                await self._settle()
                writes = [write for taken in self._published for write in taken.writes]
                if writes:
                    await asyncio.wait(writes)
                self._acknowledge()

    async def _stop_faust(self) -> None:
        if self._faust.app is None:
            return
        stopping = asyncio.create_task(self._faust.app.stop())
        _, late = await asyncio.wait({stopping}, timeout=STOP_SECONDS)
        if late:
            log.warning("Faust did not stop in time", seconds=STOP_SECONDS)

    # ------------------------------------------------------------ what Faust calls

    async def _agent(self, stream: Any) -> None:
        """Take partials in, one by one. Faust would log an error and go on, so it is told to the role first."""
        try:
            async for event in stream.noack().events():
                if not self._recovered:
                    self._rebuild()
                assignment = self._assignment
                missed = await self._missed_before(event.message)
                if assignment != self._assignment:
                    continue  # shared out anew meanwhile: whoever has the partition now is handed this again
                for record in (*missed.records, _record(self._topic, event.message)):
                    self._take(record)
                self._unsettled.events.extend([missed, event] if missed.place is not None else [event])
                self._arrived.set()
                if len(self._unsettled.events) >= _MOST_UNSETTLED:
                    await self._settle()
        except Exception as error:
            self._agent_error = error
            self._agent_failed.set()
            raise

    async def _note_assignment(self, _app: Any, assigned: Any, **_: Any) -> None:
        """Nothing in memory counts until the tables are recovered; what was not acknowledged comes again."""
        log.info("partials assigned", partitions=sorted({each.partition for each in assigned}))
        self._recovered = False
        self._assignment += 1
        self._unsettled = _Taken([], [])
        self._next.clear()
        for waiting in (self._outbox, self._held, self._published):
            waiting.clear()

    async def _note_recovery(self, _app: Any, **_: Any) -> None:
        self._rebuild()

    def _note_write(self, sent: asyncio.Future[Any]) -> None:
        self._unsettled.writes.append(sent)

    def _rebuild(self) -> None:
        topic, tables = self._settings.topic(self._topic), self._faust.tables
        partitions = {each.partition for each in self._faust.app.consumer.assignment() if each.topic == topic}
        models = [(key.decode(), value) for key, value in tables["models"].items() if value]
        partials = [value for value in tables["partials"].values() if value]
        self._aggregation.rebuild(partials, models, partitions)
        self._recovered = True
        log.info("aggregation recovered", partitions=sorted(partitions), partials=len(partials))

    # ------------------------------------------------------------ partials

    async def _missed_before(self, message: Any) -> _Missed:
        """What lies between this record and the one before, if anything does.

        Faust drops the record that it is handing over when partitions are shared out anew, and goes on behind it. Holes
        that compaction or retention left look the same; reading them gives nothing. A partition begins where it was
        committed. Where that is not known (nothing was, or Faust has forgotten it in the middle of a rebalance), what is
        dropped is at most the few records in hand.
        """
        partition, offset, consumer = message.partition, message.offset, self._faust.app.consumer
        committed = consumer._committed_offset.get(message.tp)  # noqa: SLF001
        begun = self._next.get(partition, committed)
        expected = max(offset - _LOOK_BACK, 0) if begun is None else begun
        self._next[partition] = max(expected, offset + 1)
        if offset <= expected:
            return _Missed()
        missed = LogRange(topic=self._topic, partition=partition, from_offset=expected, through_offset=offset - 1)
        records = await until_available(_PART, "reading missed partials", partial(self._all_of, missed), (RetryLater,))
        if records:
            log.warning("partials that were not handed over are read", place=str(missed), records=len(records))
        return _Missed(records) if begun is None else _Missed(records, consumer._gap[message.tp], missed)  # noqa: SLF001

    async def _all_of(self, missed: LogRange) -> list[Record]:
        return [each async for batch in self._read(missed) for each in batch]

    def _take(self, record: Record) -> None:
        outcome = "done"
        try:
            self._take_in(record, self)
        except PoisonEvent as poison:
            parked = Parked(record, poison.code, poison.reason, poison.model)
            letter = dead_letter(parked, service="ingestion", role=ROLE, attempts=1, now=self._clock.now())
            self._outbox.append(letter)
            self._metrics.count("tailrace_dead_letters_total", role=ROLE, topic=self._topic, code=poison.code)
            outcome = "parked"
        self._metrics.count("tailrace_events_total", role=ROLE, topic=self._topic, outcome=outcome)

    def keep_partial(self, key: str, value: bytes | None) -> None:
        """Store a partial in its table; None forgets it."""
        if value is None:
            self._faust.tables["partials"].pop(key.encode(), None)
        else:
            self._faust.tables["partials"][key.encode()] = value

    def keep_model(self, model: str, value: bytes) -> None:
        """Store a model's state in its table."""
        self._faust.tables["models"][model.encode()] = value

    # ------------------------------------------------------------ settling

    async def _settle_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), self._settle_seconds)
            self._arrived.clear()
            await asyncio.sleep(GATHER_SECONDS)
            with health.here().in_hand(f"{_PART} settles"):
                await self._settle()
            if self._recovered:
                self._report_lag()

    async def _settle(self) -> None:
        """Publish what is due; acknowledge partials whose windows are published and whose table writes are safe."""
        async with self._hand:
            if not self._recovered:
                return
            self._held.append(self._unsettled)
            self._unsettled = _Taken([], [])
            self._outbox += self._aggregation.due()
            await self._publish()
            self._acknowledge()

    async def _publish(self) -> None:
        """Publish what lies in the outbox; while the broker is away it stays there, for the next time."""
        ready, self._outbox = self._outbox, []
        try:
            await self._publisher.send_all(ready)
        except DeliveryFailed as error:
            self._outbox = ready + self._outbox
            health.here().waiting(_PART, str(error))
            log.warning("windows are not published yet", windows=len(ready), error=str(error))
            return
        if ready:
            health.here().ready(_PART)
        self._published.extend(self._held)
        self._held.clear()

    def _acknowledge(self) -> None:
        while self._published and all(write.done() for write in self._published[0].writes):
            taken = self._published.popleft()
            for write in taken.writes:
                write.result()
            for event in taken.events:
                event.ack()

    def _report_lag(self) -> None:
        topic, consumer = self._settings.topic(self._topic), self._faust.app.consumer
        for each in consumer.assignment():
            if each.topic != topic:
                continue
            read = consumer._read_offset.get(each)  # noqa: SLF001
            lag = (consumer.highwater(each) or 0) - (-1 if read is None else read) - 1
            labels = {"role": ROLE, "topic": self._topic, "partition": str(each.partition)}
            self._metrics.gauge("tailrace_consumer_lag", max(lag, 0), **labels)
