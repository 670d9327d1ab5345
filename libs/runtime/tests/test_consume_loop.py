"""The consume loop on a real broker: what each ending of a handler does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tailrace_contracts.events import EventParked, LabelGiven, decode
from tailrace_contracts.ranges import Log
from tailrace_runtime.consumer import BatchHandler, ConsumerRole, DeadLetterLimit, Outcome, Parked, Stateless, each
from tailrace_runtime.deadletters import original
from tailrace_runtime.errors import DeadLetterLimitExceeded, PartitionStopped, PoisonEvent, RetryLater
from tailrace_runtime.health import Health, installed
from tailrace_runtime.loop import ConsumeLoop
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record, Records, Run, outgoing
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.testing import everything_on
from tailrace_testing.polling import eventually

Deployment = Callable[..., Awaitable[ServiceSettings]]


def numbered(count: int, topic: str = "predictions", start: int = 0) -> list[Outgoing]:
    """Records 0, 1, 2 … on the topic, spread over its partitions by key."""
    return [Outgoing(topic, str(number).encode(), key=f"key-{number}".encode()) for number in range(start, count)]


@asynccontextmanager
async def producing(settings: ServiceSettings) -> AsyncIterator[Producer]:
    """A started producer."""
    producer = Producer(settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def running(
    role: ConsumerRole, settings: ServiceSettings, producer: Producer, metrics: Metrics | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """The role's loop, running; stopped in good order at the end unless it has ended before."""
    stop = asyncio.Event()
    loop = ConsumeLoop(role, service="svc", settings=settings, producer=producer, metrics=metrics)
    task = asyncio.create_task(loop.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait((task,))


class Collected:
    """A handler that remembers the values of what it got."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    async def __call__(self, records: Sequence[Record]) -> Outcome:
        """Take the batch."""
        self.values.extend(record.value or b"" for record in records)
        return Outcome()


async def test_every_record_is_handled_and_not_again_after_a_restart(deployment: Deployment) -> None:
    """A service that restarts would lose or repeat events."""
    settings = await deployment("predictions")
    async with producing(settings) as producer:
        await producer.send_all(numbered(500))
        first = Collected()
        async with running(ConsumerRole("r", {"predictions": first}), settings, producer):
            await eventually(lambda: len(first.values) == 500)
        assert sorted(map(int, first.values)) == list(range(500))
        await producer.send_all(numbered(510, start=500))
        second = Collected()
        async with running(ConsumerRole("r", {"predictions": second}), settings, producer):
            await eventually(lambda: len(second.values) >= 10)
        assert sorted(map(int, second.values)) == list(range(500, 510))


async def test_batches_hold_one_partition_in_order(deployment: Deployment) -> None:
    """A learner would see events out of order."""
    settings = await deployment("predictions")
    batches: list[list[Record]] = []

    async def handle(records: Sequence[Record]) -> Outcome:
        batches.append(list(records))
        return Outcome()

    async with producing(settings) as producer:
        await producer.send_all(numbered(400))
        async with running(ConsumerRole("r", {"predictions": handle}, max_records=30), settings, producer):
            await eventually(lambda: sum(map(len, batches)) == 400)
    assert all(len({record.log for record in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) <= 30
    for partition in range(4):
        offsets = [record.offset for batch in batches for record in batch if record.partition == partition]
        assert offsets == sorted(offsets)


async def test_batches_smaller_than_the_log_was_written_in_repeat_nothing(deployment: Deployment) -> None:
    """Records that were written together and are read in pieces would be handled twice, or left out."""
    settings = await deployment("predictions")
    offsets: list[int] = []

    async def handle(records: Sequence[Record]) -> Outcome:
        assert len(records) <= 7
        offsets.extend(record.offset for record in records)
        return Outcome()

    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", str(n).encode(), partition=1) for n in range(300)])
        async with running(ConsumerRole("r", {"predictions": handle}, max_records=7), settings, producer):
            await eventually(lambda: len(offsets) >= 300)
            await producer.send_all([Outgoing("predictions", b"last", partition=1)])
            await eventually(lambda: len(offsets) >= 301)
    assert offsets == list(range(301))


async def test_with_overlap_publications_keep_their_order_and_come_before_commits(deployment: Deployment) -> None:
    """A role that handles ahead of the broker would publish out of order, or commit what is not safe yet."""
    settings = await deployment("predictions", "labels")
    handled: list[int] = []

    async def forward(records: Sequence[Record]) -> Outcome:
        batch = Records.of(records)
        handled.extend(batch.offsets)
        headers = [[("trigger-offset", b"%d" % offset)] for offset in batch.offsets]
        values = [value or b"" for value in batch.values]
        return Outcome(runs=[Run("labels", batch.partition, batch.keys, values, headers)])

    role = ConsumerRole("r", {"predictions": forward}, max_records=20, overlap=True)
    async with producing(settings) as producer:
        await producer.send_all(numbered(400))
        async with running(role, settings, producer):
            await eventually(lambda: len(handled) >= 400)
        await producer.send_all([Outgoing("predictions", b"more", b"k", partition=0)])
        again = Collected()
        async with running(ConsumerRole("r", {"predictions": again}), settings, producer):
            await eventually(lambda: len(again.values) >= 1)
    assert again.values == [b"more"]
    found = await everything_on(settings, "labels")
    for partition in range(4):
        triggers = [int(record.header("trigger-offset") or b"") for record in found if record.partition == partition]
        assert triggers == list(range(len(triggers)))
    assert len(found) == 400


async def test_with_overlap_a_refused_publication_stops_the_partition(deployment: Deployment) -> None:
    """What the broker never takes would be committed as if it were published."""
    settings = await deployment("predictions", "labels")

    async def forward(records: Sequence[Record]) -> Outcome:
        return Outcome(runs=[Run("labels", 0, [b"k"], [bytes(2_000_000)], [[]])] if records else [])

    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", b"x", partition=2)])
        async with running(ConsumerRole("r", {"predictions": forward}, overlap=True), settings, producer) as task:
            with pytest.raises(PartitionStopped, match=r"predictions\[2\]@0.*over its limit"):
                await task
        fixed = Collected()
        async with running(ConsumerRole("r", {"predictions": fixed}), settings, producer):
            await eventually(lambda: fixed.values == [b"x"])


async def test_emitted_records_are_published(deployment: Deployment) -> None:
    """What a handler derives from an event would not reach the next service."""
    settings = await deployment("predictions", "labels")

    async def forward(record: Record) -> Iterable[Outgoing]:
        return [Outgoing("labels", record.value, record.key, partition=record.partition)]

    async with producing(settings) as producer:
        await producer.send_all(numbered(60))
        async with running(ConsumerRole("r", {"predictions": each(forward)}), settings, producer):
            await eventually(lambda: _count(settings, "labels", 60))
    sources = {record.value: record.partition for record in await everything_on(settings, "predictions")}
    assert {record.value: record.partition for record in await everything_on(settings, "labels")} == sources


async def test_a_trace_goes_on_over_a_hop(deployment: Deployment) -> None:
    """One inference could not be followed from the gateway to the learner."""
    settings = await deployment("predictions", "labels")
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    async def label(record: Record) -> Iterable[Outgoing]:
        moment = datetime(2025, 1, 1, tzinfo=UTC)
        event = LabelGiven(prediction_id=str(record.offset), model="rain", time=moment, label=1)
        return [outgoing(event, "labels", "k")]

    async with producing(settings) as producer:
        await producer.send_all(
            [Outgoing("predictions", b"x", partition=0, headers=(trace,)), Outgoing("predictions", b"y", partition=0)]
        )
        async with running(ConsumerRole("r", {"predictions": each(label)}), settings, producer):
            await eventually(lambda: _count(settings, "labels", 2))
    traced, untraced = sorted(await everything_on(settings, "labels"), key=lambda record: record.offset)
    assert trace in traced.headers
    assert untraced.header("traceparent") is None


async def test_the_largest_poison_fits_into_the_dead_letters(deployment: Deployment) -> None:
    """One large broken event would stop its partition, because it could not be parked either."""
    settings = await deployment("predictions", "dead-letters")

    async def refuse(_: Record) -> Iterable[Outgoing]:
        raise PoisonEvent("too-odd", "no")

    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", bytes(1_048_000), b"k")])
        async with running(ConsumerRole("r", {"predictions": each(refuse)}), settings, producer):
            await eventually(lambda: _count(settings, "dead-letters", 1))


async def _count(settings: ServiceSettings, topic: str, wanted: int) -> bool:
    return len(await everything_on(settings, topic)) >= wanted


async def test_poison_is_parked_whole_and_the_others_go_on(deployment: Deployment) -> None:
    """A broken event would block its topic, or vanish."""
    settings = await deployment("predictions", "dead-letters")
    done: list[bytes | None] = []

    async def handle(record: Record) -> Iterable[Outgoing]:
        if record.value == b"7":
            raise PoisonEvent("unreadable", "seven is not a number that we like", model="rain")
        done.append(record.value)
        return ()

    metrics = Metrics("svc")
    async with producing(settings) as producer:
        poison = Outgoing("predictions", b"7", b"k", partition=2, headers=(("h", b"\x00\xff"),), timestamp_ms=5)
        await producer.send_all([*numbered(7), poison, *numbered(20, start=8)])
        async with running(ConsumerRole("r", {"predictions": each(handle)}), settings, producer, metrics):
            await eventually(lambda: len(done) == 19)
            await eventually(lambda: _count(settings, "dead-letters", 1))
    (letter,) = await everything_on(settings, "dead-letters")
    assert letter.key == b"k"
    event = decode(letter.value or b"")
    assert isinstance(event, EventParked)
    (source,) = [record for record in await everything_on(settings, "predictions") if record.value == b"7"]
    assert original(event) == source
    assert (event.code, event.model, event.service, event.role, event.attempts) == ("unreadable", "rain", "svc", "r", 1)
    assert metrics.value("tailrace_dead_letters_total", role="r", topic="predictions", code="unreadable") == 1


async def test_poison_in_a_batch_handler_parks_only_the_record_that_caused_it(deployment: Deployment) -> None:
    """One broken event would take its whole batch into the dead letters."""
    settings = await deployment("predictions", "dead-letters")
    done: list[bytes | None] = []

    async def handle(records: Sequence[Record]) -> Outcome:
        if any(record.value == b"3" for record in records):
            raise PoisonEvent("unreadable", "three")
        done.extend(record.value for record in records)
        return Outcome()

    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", str(n).encode(), partition=0) for n in range(8)])
        async with running(ConsumerRole("r", {"predictions": handle}), settings, producer):
            await eventually(lambda: len(done) == 7)
            await eventually(lambda: _count(settings, "dead-letters", 1))
    assert done == [b"0", b"1", b"2", b"4", b"5", b"6", b"7"]


async def test_retry_later_keeps_the_batch_until_it_can_be_handled(deployment: Deployment) -> None:
    """An event that came before its spec would be lost, or handled twice."""
    settings = await deployment("predictions")
    seen: list[bytes | None] = []
    refusals = 3

    async def handle(record: Record) -> Iterable[Outgoing]:
        nonlocal refusals
        if record.value == b"2" and refusals:
            refusals -= 1
            raise RetryLater("the spec is not there yet", 0.01)
        seen.append(record.value)
        return ()

    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", str(n).encode(), partition=0) for n in range(5)])
        async with running(ConsumerRole("r", {"predictions": each(handle)}), settings, producer):
            await eventually(lambda: len(seen) == 5)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert refusals == 0


async def test_retries_have_an_end(deployment: Deployment) -> None:
    """A service would go on for ever with an event that can never be handled, and look healthy."""
    settings = (await deployment("predictions")).model_copy(update={"retry_limit_seconds": 0.3})
    calls = 0

    async def handle(_: Record) -> Iterable[Outgoing]:
        nonlocal calls
        calls += 1
        raise RetryLater("never", 0.05)

    with installed(Health()) as health:
        async with producing(settings) as producer:
            await producer.send_all([Outgoing("predictions", b"x", partition=3)])
            async with running(ConsumerRole("r", {"predictions": each(handle)}), settings, producer) as task:
                with pytest.raises(PartitionStopped, match=r"predictions\[3\]@0 after \d+ attempts .*: never"):
                    await task
        live, report = health.live()
    assert calls > 1
    assert not live
    assert "predictions[3]@0" in report["problems"]["role r"]


async def test_any_other_error_stops_the_partition_and_commits_nothing_of_it(deployment: Deployment) -> None:
    """A bug in a handler would skip the events that it fails on."""
    settings = await deployment("predictions")

    async def broken(_: Sequence[Record]) -> Outcome:
        raise ZeroDivisionError("a bug")

    fixed = Collected()
    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", str(n).encode(), partition=1) for n in range(3)])
        async with running(ConsumerRole("r", {"predictions": broken}), settings, producer) as task:
            with pytest.raises(PartitionStopped, match=r"predictions\[1\]@0\.\.2: ZeroDivisionError"):
                await task
        async with running(ConsumerRole("r", {"predictions": fixed}), settings, producer):
            await eventually(lambda: len(fixed.values) == 3)


async def test_too_many_dead_letters_stop_the_consumer_before_they_are_parked(deployment: Deployment) -> None:
    """A broken deployment would drain a topic into the bin."""
    settings = await deployment("predictions", "dead-letters")

    async def wrong(records: Sequence[Record]) -> Outcome:
        return Outcome(parked=[Parked(record, "bad", "all of them") for record in records])

    limit = DeadLetterLimit(share=0.5, records=40, window_seconds=60)
    role = ConsumerRole("r", {"predictions": wrong}, max_records=10, dead_letter_limit=limit)
    async with producing(settings) as producer:
        await producer.send_all(numbered(200))
        async with running(role, settings, producer) as task:
            with pytest.raises(DeadLetterLimitExceeded, match="the newest: bad: all of them"):
                await task
    assert len(await everything_on(settings, "dead-letters")) < 40


class Remembering(Stateless):
    """A role's state that finds its own place, and commits only when it ticks."""

    def __init__(self, places: dict[Log, int]) -> None:
        self.places = places
        self.assigned_logs: set[Log] = set()
        self.revoked_logs: set[Log] = set()
        self.read: dict[Log, int] = {}

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Where to read on."""
        self.assigned_logs |= logs
        return {log: self.places[log] for log in logs if log in self.places}

    async def revoked(self, logs: set[Log]) -> None:
        """Note it."""
        self.revoked_logs |= logs

    async def handle(self, records: Sequence[Record]) -> Outcome:
        """Keep the batch in hand."""
        self.read[records[0].log] = records[-1].offset
        return Outcome(commit_through=-1)

    async def tick(self) -> dict[Log, Outcome]:
        """Everything read so far is finished."""
        done, self.read = self.read, {}
        return {log: Outcome(commit_through=offset) for log, offset in done.items()}


async def test_a_state_says_where_to_read_on_and_commits_when_it_ticks(deployment: Deployment) -> None:
    """A learner's checkpoint and the place on its topic would fall apart."""
    settings = await deployment("predictions")
    log = Log("predictions", 0)
    state = Remembering({log: 6})
    got: list[int] = []

    async def handle(records: Sequence[Record]) -> Outcome:
        got.extend(record.offset for record in records)
        return await state.handle(records)

    after = Collected()
    async with producing(settings) as producer:
        await producer.send_all([Outgoing("predictions", str(n).encode(), partition=0) for n in range(10)])
        role = ConsumerRole("r", {"predictions": handle}, state, tick_seconds=0.05)
        async with running(role, settings, producer):
            await eventually(lambda: len(got) == 4)
            await eventually(lambda: not state.read)
        assert got == [6, 7, 8, 9]
        assert log in state.assigned_logs
        assert log in state.revoked_logs
        await producer.send_all([Outgoing("predictions", b"10", partition=0)])
        async with running(ConsumerRole("r", {"predictions": after}), settings, producer):
            await eventually(lambda: after.values)
    assert after.values == [b"10"]


async def test_missing_topics_are_waited_for_by_name(settings: ServiceSettings, deployment: Deployment) -> None:
    """A service that starts before its topics exist would crash, or wait without saying for what."""
    handler = Collected()
    role = ConsumerRole("r", {"predictions": handler})
    with installed(Health()) as health:
        async with producing(settings) as producer, running(role, settings, producer):

            def reason() -> str:
                return str(health.readiness()[1]["waiting"].get("topics of role r", ""))

            await eventually(lambda: f"do not exist yet: {settings.topic_prefix}predictions" in reason())
            await deployment("predictions")
            await producer.send_all(numbered(5))
            await eventually(lambda: len(handler.values) == 5)
            assert health.readiness()[0]


async def test_lag_is_measured(deployment: Deployment) -> None:
    """Nobody would see that a role falls behind, and autoscaling would do nothing."""
    settings = await deployment("alerts")
    metrics = Metrics("svc")
    release = asyncio.Event()

    async def slow(_: Sequence[Record]) -> Outcome:
        await release.wait()
        return Outcome()

    handler: BatchHandler = slow
    async with producing(settings) as producer:
        await producer.send_all(numbered(50, "alerts"))
        role = ConsumerRole("r", {"alerts": handler}, max_records=10)
        async with running(role, settings, producer, metrics):
            release.set()
            await eventually(
                lambda: metrics.value("tailrace_events_total", role="r", topic="alerts", outcome="done") == 50
            )
            assert "tailrace_consumer_lag" in metrics.render().decode()
            await eventually(
                lambda: metrics.value("tailrace_consumer_lag", role="r", topic="alerts", partition="0") == 0
            )
