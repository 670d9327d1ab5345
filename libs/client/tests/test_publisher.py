"""The producer API against a real broker."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer

import tailrace_client
from tailrace_client import AsyncPublisher, Publisher, PublishError
from tailrace_contracts.events import Event, LabelGiven, PredictionMade, decode
from tailrace_testing import Broker


async def read(kafka: Broker, topic: str, count: int) -> list[tuple[bytes, Event]]:
    """The first `count` records of a topic: key and event."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        records = [await consumer.getone() for _ in range(count)]
        return [(record.key, decode(record.value)) for record in records]
    finally:
        await consumer.stop()


async def prefixed(kafka: Broker) -> str:
    """A prefix of its own with the two public topics under it."""
    prefix = kafka.unique("client") + "-"
    for topic in ("prediction-events", "label-events"):
        await kafka.create_topic(prefix + topic)
    return prefix


async def test_what_is_published_is_on_the_topics(kafka: Broker) -> None:
    """A producer's events would not arrive, or not under the key by which labels are joined."""
    prefix = await prefixed(kafka)
    async with AsyncPublisher(kafka.bootstrap, topic_prefix=prefix) as publisher:
        question = await publisher.prediction(
            model="rain", features={"a": 1.5, "b": "x"}, prediction=1, probability=0.75
        )
        await publisher.label(question, model="rain", label=0, time=datetime(2026, 1, 1, tzinfo=UTC))
    [(key, prediction)] = await read(kafka, prefix + "prediction-events", 1)
    [(label_key, label)] = await read(kafka, prefix + "label-events", 1)
    assert key == label_key == question.encode()
    assert isinstance(prediction, PredictionMade)
    assert prediction.served is not None
    assert (prediction.served.arm, prediction.served.prediction) == ("external", 1)
    assert isinstance(label, LabelGiven)
    assert label.label == 0


async def test_numbers_are_published_as_they_are(kafka: Broker) -> None:
    """A regression's predictions and labels would be refused, or rounded."""
    prefix = await prefixed(kafka)
    async with AsyncPublisher(kafka.bootstrap, topic_prefix=prefix) as publisher:
        question = await publisher.prediction(model="rain", features={"a": 1.5}, prediction=12.75)
        await publisher.label(question, model="rain", label=-0.5)
        with pytest.raises(PublishError, match="should be a finite number"):
            await publisher.label(question, model="rain", label=float("nan"))
    [(_, prediction)] = await read(kafka, prefix + "prediction-events", 1)
    [(_, label)] = await read(kafka, prefix + "label-events", 1)
    assert isinstance(prediction, PredictionMade)
    assert prediction.served is not None
    assert isinstance(label, LabelGiven)
    assert (prediction.served.prediction, prediction.served.probability, label.label) == (12.75, None, -0.5)


async def test_docstring_example_runs(kafka: Broker) -> None:
    """The first thing that a newcomer copies would not work."""
    prefix = await prefixed(kafka)
    example = "\n".join(
        line[4:] for line in (tailrace_client.__doc__ or "").splitlines() if line.startswith("    ") or not line
    )
    example = re.sub(r'Publisher\("[^"]*"\)', f'Publisher("{kafka.bootstrap}", topic_prefix="{prefix}")', example)
    exec(compile(example, "docstring", "exec"), {})  # noqa: S102 - our own docstring
    assert len(await read(kafka, prefix + "label-events", 1)) == 1


async def test_a_wrong_event_raises_at_the_call(kafka: Broker) -> None:
    """A typing error would only show in the dead-letters, hours later."""
    async with AsyncPublisher(kafka.bootstrap) as publisher:
        with pytest.raises(PublishError, match="probability"):
            await publisher.prediction(model="rain", features={}, prediction=1, probability=1.5)
        with pytest.raises(PublishError, match=r"label: time: .* timezone"):
            await publisher.label("x", model="rain", label=1, time=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


def test_no_broker_is_one_sentence() -> None:
    """A wrong address would show a traceback of the Kafka client."""
    with (
        pytest.raises(PublishError, match=r"no Kafka broker answers at 127\.0\.0\.1:9 .*; start one"),
        Publisher("127.0.0.1:9"),
    ):
        pass


def test_an_unstarted_publisher_says_so() -> None:
    """Forgetting the `with` block would end in an AttributeError."""
    publisher = AsyncPublisher("127.0.0.1:9")
    with pytest.raises(PublishError, match="not started"):
        publisher.publish_bytes("label-events", "k", b"{}").send(None)
