"""Requests over Kafka: the same answers as over HTTP, once for each request id, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.serving.tests.test_serving_live import Site
from tailrace_contracts.events import Event, InferenceAnswered, InferenceRequested, PredictionMade
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_serving.app import explanations_of
from tailrace_serving.domain.answered import Replied
from tailrace_serving.domain.arms import Arms, Loaded, Table
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.requests import Cause, Reply
from tailrace_serving.handlers import Desk
from tailrace_serving.requests import Requests
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    THEN,
    FakeArtefacts,
    FakeMeter,
    FakePredictor,
    FixedClock,
    claim_check,
    rain_spec,
)
from tailrace_testing import Broker, eventually


class FakeSender:
    """Keeps what is sent; may be away."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.away = False

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Keep the records. Raises DeliveryFailed while away, with the first record kept all the same."""
        self.sent.extend(records[:1] if self.away else records)
        if self.away:
            raise DeliveryFailed("the broker is away")

    def replies(self) -> list[InferenceAnswered]:
        """What was replied."""
        return [InferenceAnswered.model_validate_json(each.value or b"") for each in self.sent]


class Life:
    """The role in one process: what an earlier process has put on the topic is what `earlier` sent."""

    def __init__(
        self, earlier: FakeSender | None = None, probability: float = 0.75, remembered_bytes: int = 1_000_000
    ) -> None:
        self.sender = FakeSender()
        self.predictor = FakePredictor(probability)
        spec, table = rain_spec(), Table()
        settings, artefacts, reference = ServingSettings(), FakeArtefacts(), claim_check("reference")
        artefacts.references[reference.sha256] = [RAIN]
        shadow = Loaded(2, None, "torch", "2", FakePredictor(0.25))
        table.swap(
            Arms(
                "rain",
                spec,
                FeatureRules(spec),
                Loaded(1, None, "torch", "1", self.predictor, reference),
                shadows=(shadow,),
            )
        )

        async def read(topic: str, partitions: set[int]) -> list[bytes]:
            sent = earlier.sent if earlier else []
            return [each.value or b"" for each in sent if each.topic == topic and each.partition in partitions]

        self.role = Requests(
            table,
            Desk(FixedClock(), lambda: "made", FakeMeter()),
            self.sender,
            read,
            reply_topics=("inference-replies", "mine"),
            topic_out="prediction-events",
            max_rows=50,
            max_explained_rows=2,
            explanations=explanations_of(settings, artefacts, FakeMeter()),
            remembered_bytes=remembered_bytes,
        )

    async def handle(self, *records: Record) -> list[PredictionMade]:
        """What the role publishes as predictions for these records of a partition that it has just taken over."""
        await self.role.assigned({records[0].log})
        outcome = await self.role.handle(records)
        self.parked = outcome.parked
        assert {each.topic for each in outcome.emit} <= {"prediction-events"}
        return [PredictionMade.model_validate_json(each.value or b"") for each in outcome.emit]


def request(offset: int, request_id: str = "r-1", headers: tuple[tuple[str, bytes], ...] = (), **more: Any) -> Record:
    """A request on partition 2."""
    body = {"type": "inference-requested", "request_id": request_id, "model": "rain", "rows": [RAIN], **more}
    return raw(offset, json.dumps(body).encode(), headers)


def on_partition(partition: int, record: Record) -> Record:
    """The same record elsewhere."""
    return record._replace(partition=partition)


def raw(offset: int, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    """Any record on partition 2."""
    return Record("inference-requests", 2, offset, int(THEN.timestamp() * 1000), b"key", value, headers)


async def test_a_batch_is_answered_and_captured() -> None:
    """If it failed, a caller on Kafka would get other answers than one on HTTP, or none on record."""
    life = Life()
    events = await life.handle(
        request(0, "one", (("correlation-id", b"c-1"), ("reply-topic", b"mine")), entity="station-4"),
        request(1, "two", rows=[RAIN, {**RAIN, "humidity": 50.0}], time="2026-01-31T14:00:00+02:00"),
        request(2, "three", version="2", prediction_ids=["p-1"]),
    )
    one, two, three = life.sender.replies()
    assert [(each.prediction_id, each.prediction, each.probability) for each in one.answers] == [("one", 1, 0.75)]
    assert [each.prediction_id for each in two.answers] == ["two/0", "two/1"]
    assert (three.arm, three.version, three.answers[0].prediction_id) == ("shadow", 2, "p-1")
    assert (one.trigger.partition, one.trigger.offset, two.trigger.offset) == (2, 0, 1)
    first, second, _ = life.sender.sent
    assert (first.topic, first.partition, first.key) == ("mine", 2, b"key")
    assert ("correlation-id", b"c-1") in first.headers
    assert second.topic == "inference-replies"
    by_id = {event.prediction_id: event for event in events}
    assert set(by_id) == {"one", "two/0", "two/1", "p-1"}
    assert by_id["one"].entity == "station-4"
    assert by_id["two/1"].features["humidity"] == 50.0
    assert {event.time for event in events} == {THEN}
    assert [each.arm for each in by_id["one"].shadows] == ["shadow"]


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"model": "snow"}, "unknown", "model 'snow' is unknown"),
        ({"version": "9"}, "unknown", "version '9' of model 'rain' is not served"),
        ({"rows": []}, "malformed", "rows is empty"),
        ({"rows": [RAIN] * 51}, "too-large", "the request has 51 rows, expected at most 50"),
        ({"rows": [{**RAIN, "humidity": 940}]}, "unacceptable", "feature 'humidity' is 940, expected 0 to 100"),
        ({"rows": "x"}, "malformed", "the request is not an inference-requested event: Expected `array`"),
        ({"request_id": "x" * 121}, "malformed", "request_id has 121 characters"),
        ({"time": "now"}, "malformed", "time is 'now', expected RFC 3339"),
        ({"entity": ""}, "malformed", "entity is 0 characters"),
        ({"prediction_ids": ["a", "b"]}, "malformed", "prediction_ids has 2, expected a list of 1"),
        ({"extra": json.loads("[" * 70 + "]" * 70)}, "malformed", "the request body is nested 71 levels deep"),
    ],
)
async def test_bad_request_is_answered_with_the_reason(changes: dict[str, Any], code: str, sentence: str) -> None:
    """If it failed, a caller would wait for ever, or the role would stop for everybody."""
    life = Life()
    body = {"request_id": "r-1", "model": "rain", "rows": [RAIN], **changes}
    events = await life.handle(raw(0, json.dumps(body).encode(), (("correlation-id", b"c"),)), request(1, "good"))
    bad, good = sorted(life.sender.replies(), key=lambda each: each.trigger.offset)
    assert bad.code == code
    assert bad.error is not None
    assert bad.error.startswith(sentence)
    assert good.answers
    assert [event.prediction_id for event in events] == ["good"]


async def test_what_cannot_be_answered_is_parked() -> None:
    """If it failed, bytes that nobody understands would be lost without a trace."""
    life = Life()
    await life.handle(raw(0, b"\xff"), raw(1, None), raw(2, b"[]"), raw(3, b"{", (("correlation-id", b"c"),)))
    assert [each.record.offset for each in life.parked] == [0, 1, 2]
    assert {each.code for each in life.parked} == {"malformed-request"}
    (reply,) = life.sender.replies()
    assert (reply.trigger.offset, reply.code) == (3, "malformed")


async def test_foreign_reply_topic_is_refused() -> None:
    """If it failed, a caller could write on any topic, such as the registry's."""
    life = Life()
    await life.handle(request(0, "r", (("reply-topic", b"deployments"),)))
    (sent,) = life.sender.sent
    assert sent.topic == "inference-replies"
    assert "expected one of inference-replies, mine" in (life.sender.replies()[0].error or "")


async def test_killed_after_reply_before_commit() -> None:
    """If it failed, a crash would answer a request twice, or leave its answer without a prediction event."""
    records = request(5, "a"), request(6, "b", rows=[RAIN, RAIN])
    before = Life(probability=0.75)
    earlier = await before.handle(*records)
    after = Life(before.sender, probability=0.1)
    later = await after.handle(*records, request(7, "c"))
    assert [reply.request_id for reply in after.sender.replies()] == ["c"]
    for first, second in zip(earlier, later[:3], strict=True):
        assert second.model_copy(update={"shadows": first.shadows, "latency_ms": first.latency_ms}) == first
    assert [event.prediction_id for event in later[3:]] == ["c"]


async def test_killed_between_replies() -> None:
    """If it failed, a request whose reply had not got out would never be answered."""
    before = Life()
    before.sender.away = True
    with pytest.raises(RetryLater):
        await before.handle(request(0, "a"), request(1, "b"))
    after = Life(before.sender)
    events = await after.handle(request(0, "a"), request(1, "b"))
    assert [reply.request_id for reply in after.sender.replies()] == ["b"]
    assert {event.prediction_id for event in events} == {"a", "b"}


async def test_delivery_that_failed_is_repeated_with_the_same_answers() -> None:
    """If it failed, a broker's hiccup would give a caller two different answers."""
    life = Life()
    life.sender.away = True
    with pytest.raises(RetryLater):
        await life.handle(request(0, "a"))
    life.sender.away = False
    events = await life.handle(request(0, "a"))
    first, second = life.sender.replies()
    assert first == second
    assert len(life.predictor.asked) == 1
    assert [event.prediction_id for event in events] == ["a"]


async def test_same_request_sent_again_is_the_same_question() -> None:
    """If it failed, a caller that repeats a request after a timeout would count twice."""
    life = Life()
    events = await life.handle(request(0, "a"), request(1, "a"), request(2, "a", entity="another"))
    first, again, other = life.sender.replies()
    assert first.answers == again.answers
    assert again.trigger.offset == 1
    assert other.error == "request_id 'a' names another request already; give each its own"
    assert [event.prediction_id for event in events] == ["a"]
    assert len(life.predictor.asked) == 1


REPLY_BYTES = 800
"""What the reply to a request of one row counts in the memory."""


async def test_same_request_is_the_same_question_as_long_as_it_is_remembered() -> None:
    """If it failed, a caller who repeats soon would be answered twice, or the memory would reach back without end."""
    life = Life(remembered_bytes=3 * REPLY_BYTES)
    await life.handle(request(0, "a"), request(1, "b"))
    assert await life.handle(request(2, "a")) == []  # the same answers, and no event beside the first
    assert len(life.predictor.asked) == 2
    await life.handle(request(3, "c"), request(4, "d"), request(5, "e"))
    (late,) = await life.handle(request(6, "a"))
    assert late.prediction_id == "a"  # asked anew, under the id that the join counts once
    assert len(life.predictor.asked) == 6


async def test_same_request_under_another_key_is_answered_again() -> None:
    """If it failed, the reference would promise more, or less, than is kept: the memory is that of a partition."""
    one, other = Life(probability=0.75), Life(probability=0.1)  # two processes, each with a partition of its own
    (first,) = await one.handle(request(0, "a"))
    (second,) = await other.handle(on_partition(3, request(0, "a")))
    assert [each.served.probability for each in (first, second) if each.served] == [0.75, 0.1]
    assert first.prediction_id == second.prediction_id == "a"
    (reply,) = other.sender.replies()
    assert reply.trigger.partition == 3
    taken_over = Life(one.sender, probability=0.1)  # a process that takes over the partition of the first key
    assert await taken_over.handle(request(1, "a")) == []
    (again,) = taken_over.sender.replies()
    assert again.answers == one.sender.replies()[0].answers


def test_memory_of_replies_is_bounded() -> None:
    """If it failed, a process that answers for weeks would run out of memory."""
    replied = Replied(max_bytes=6_000)
    for offset in range(100):
        replied.add(Reply(Cause("t", offset % 2, offset), "0" * 64, THEN, f"r-{offset}"))
    assert replied.to_request("r-89") is None
    assert replied.to_request("r-99") is not None
    replied.leave({1})
    assert replied.to_record(1, 99) is None
    assert replied.to_record(0, 98) is not None


# ---------------------------------------------------------------- on a real broker


@pytest.fixture
async def site(kafka: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """A deployment on the session's broker."""
    async with Site(kafka.bootstrap, kafka.unique("requests") + "-", tmp_path) as made:
        yield made


class Answers:
    """What comes on the reply topic."""

    def __init__(self, site: Site) -> None:
        self.all: list[InferenceAnswered] = []
        self.follower = Follower(site.settings, "inference-replies", self._note)

    def _note(self, event: Event | None, _: Record) -> None:
        assert isinstance(event, InferenceAnswered)
        self.all.append(event)


async def send(site: Site, *ids: str) -> None:
    """Publish requests with these ids."""
    made = [InferenceRequested(request_id=each, model="rain", rows=(RAIN,)) for each in ids]
    await site.producer.send_all([outgoing(each, "inference-requests", each.request_id) for each in made])


@pytest.mark.timeout(240)
async def test_sigkill_under_load_answers_each_request_once(site: Site) -> None:
    """If it failed, every crash would leave callers without an answer, or with two that differ."""
    await site.champion()
    answers = Answers(site)
    await answers.follower.start()
    sent: list[str] = []
    process = site.process()
    process.start()
    try:
        for life in range(3):
            until = len(answers.all) + 20
            sent.extend(f"{life}-{number}" for number in range(150))
            await send(site, *sent[-150:])
            await eventually(lambda until=until: len(answers.all) >= until, 60)  # type: ignore[misc]  # bound at once
            process.kill()
            process.start()
        await eventually(lambda: {each.request_id for each in answers.all} == set(sent), 60)
        await eventually(lambda: set(site.predictions) == set(sent), 60)
    finally:
        await process.told_to_stop()
        await answers.follower.stop()
    assert len(answers.all) == len(sent)
    for reply in answers.all:
        event = site.predictions[reply.request_id]
        assert event.served is not None
        assert (event.served.prediction, event.served.version) == (reply.answers[0].prediction, reply.version)
