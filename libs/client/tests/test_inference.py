"""Asking over Kafka on a real broker; what answers is a stand-in that can be slow, silent or wrong."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tailrace_client import InferenceClient, InferenceError, InferenceRefused, NoReply
from tailrace_contracts.events import AnsweredRow, FeatureValue, InferenceAnswered, InferenceRequested
from tailrace_contracts.ranges import Trigger
from tailrace_testing import Broker

ROW: dict[str, FeatureValue] = {"humidity": 40.0, "sky": "clear"}
Reply = Callable[[InferenceRequested], InferenceAnswered | bytes | None]


def answered(request: InferenceRequested, **changes: Any) -> InferenceAnswered:
    """A good reply: every row is 1 with its own prediction id."""
    return InferenceAnswered(
        request_id=request.request_id,
        model=request.model,
        arm="champion",
        version=7,
        answers=tuple(
            AnsweredRow(prediction_id=f"{request.request_id}/{number}", prediction=1, probability=0.75)
            for number, _ in enumerate(request.rows)
        ),
        trigger=Trigger(topic="inference-requests", partition=0, offset=0),
        request_sha256="0" * 64,
        time=datetime(2026, 1, 1, tzinfo=UTC),
    ).model_copy(update=changes)


class Answering:
    """Answers requests as it is told to, and keeps the records."""

    def __init__(self, kafka: Broker) -> None:
        self.prefix = kafka.unique("ask") + "-"
        self.requests: list[Any] = []
        self.reply: Reply = answered
        self._kafka = kafka
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Create the topics and listen."""
        for topic in ("inference-requests", "inference-replies", "mine"):
            await self._kafka.create_topic(self.prefix + topic, partitions=3)
        self._consumer = AIOKafkaConsumer(
            self.prefix + "inference-requests",
            bootstrap_servers=self._kafka.bootstrap,
            auto_offset_reset="earliest",
        )
        self._producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap)
        await self._consumer.start()
        await self._producer.start()
        self._task = asyncio.create_task(self._answer())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def _answer(self) -> None:
        async for record in self._consumer:
            self.requests.append(record)
            reply = self.reply(InferenceRequested.model_validate_json(record.value))
            if reply is None:
                continue
            value = reply if isinstance(reply, bytes) else reply.encode()
            headers = dict(record.headers)
            back = [("correlation-id", headers["correlation-id"])]
            topic = self.prefix + headers["reply-topic"].decode()
            await self._producer.send(topic, b"{}", headers=[("correlation-id", b"another's")])
            await self._producer.send_and_wait(topic, value, partition=record.partition, headers=back)

    def client(self, **changes: Any) -> InferenceClient:
        """A client of this deployment."""
        return InferenceClient(self._kafka.bootstrap, topic_prefix=self.prefix, **changes)


@pytest.fixture
async def answering(kafka: Broker) -> AsyncIterator[Answering]:
    """Something that answers, on the session's broker."""
    async with Answering(kafka) as made:
        yield made


@pytest.mark.parametrize("topic", ["inference-replies", "mine"])
async def test_every_request_gets_its_own_answer(answering: Answering, topic: str) -> None:
    """If it failed, a caller would get the answer to somebody else's question, or none."""
    async with answering.client(reply_topic=topic) as client:
        replies = await asyncio.gather(
            *(client.infer("rain", [ROW] * (1 + number % 3), request_id=f"r-{number}") for number in range(60))
        )
    assert [reply.request_id for reply in replies] == [f"r-{number}" for number in range(60)]
    assert [len(reply.answers) for reply in replies] == [1 + number % 3 for number in range(60)]
    assert len({record.partition for record in answering.requests}) == 3


async def test_request_is_sent_again_as_it_was(answering: Answering) -> None:
    """If it failed, a reply that is lost would cost the answer, or the question would be asked as another one."""
    silent_for = 2

    def reply(request: InferenceRequested) -> InferenceAnswered | None:
        return answered(request) if len(answering.requests) > silent_for else None

    answering.reply = reply
    async with answering.client(again_seconds=0.2) as client:
        reply_to = await client.infer("rain", [ROW], request_id="r-1", entity="station-4")
    assert reply_to.answers[0].prediction == 1
    first, *others = answering.requests
    assert len(others) >= silent_for
    for each in others:
        assert (each.key, each.value, each.headers, each.partition) == (
            first.key,
            first.value,
            first.headers,
            first.partition,
        )


async def test_refusal_is_the_services_own_sentence(answering: Answering) -> None:
    """If it failed, a program could not tell its own mistake from a service that is away."""
    said = "feature 'humidity' is 940, expected 0 to 100"
    answering.reply = lambda request: answered(request, answers=(), code="unacceptable", error=said)
    async with answering.client() as client:
        with pytest.raises(InferenceRefused, match=r"^feature 'humidity' is 940, expected 0 to 100$") as refused:
            await client.infer("rain", [{**ROW, "humidity": 940}])
        assert refused.value.code == "unacceptable"
        answering.reply = lambda _: b'{"type": "nonsense"}'
        with pytest.raises(InferenceError, match=r"^reply: type: "):
            await client.infer("rain", [ROW])
        answering.reply = answered
        assert (await client.infer("rain", [ROW])).version == 7


async def test_silence_ends_in_time(answering: Answering) -> None:
    """If it failed, a program would wait for ever for a service that is gone."""
    answering.reply = lambda _: None
    async with answering.client() as client:
        with pytest.raises(NoReply, match=r"^no reply to request 'r-1' within 0.2 s; see whether serving") as late:
            await client.infer("rain", [ROW], request_id="r-1", timeout_seconds=0.2)
        assert late.value.request_id == "r-1"
        waiting = asyncio.create_task(client.infer("rain", [ROW]))
        await asyncio.sleep(0)
    with pytest.raises(InferenceError, match="the client was stopped"):
        await waiting


async def test_mistakes_are_told_at_once(answering: Answering, kafka: Broker) -> None:
    """If it failed, a wrong argument or address would end in a traceback of pydantic or of the Kafka client."""
    async with answering.client() as client:
        for wrong, said in (
            ({"rows": []}, "request: rows: "),
            (
                {"rows": [ROW, {"humidity": math.inf}]},
                "row 1: feature 'humidity' is infinite, expected a finite number",
            ),
            ({"model": "Rain!"}, "request: model: "),
            ({"request_id": "x" * 121}, "request: request_id: "),
            ({"time": datetime(2026, 1, 1)}, "request: time: "),  # noqa: DTZ001 - the mistake
        ):
            arguments: dict[str, Any] = {"model": "rain", "rows": [ROW], **wrong}
            with pytest.raises(InferenceError, match=said):
                await client.infer(**arguments)
    assert answering.requests == []
    with pytest.raises(InferenceError, match="not started"):
        await client.infer("rain", [ROW])
    with pytest.raises(InferenceError, match=r"no Kafka broker answers at 127\.0\.0\.1:9 .*; start one"):
        await InferenceClient("127.0.0.1:9").start()
    with pytest.raises(InferenceError, match="has no topic nowhere-inference-replies; start Tailrace there"):
        await InferenceClient(kafka.bootstrap, topic_prefix="nowhere-").start()
