"""Following a topic on a real broker: all of it, in order, and on."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from tailrace_contracts.events import DeploymentChanged, Event
from tailrace_runtime.follower import Follower
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_runtime.settings import ServiceSettings
from tailrace_testing.polling import eventually

Deployment = Callable[..., Awaitable[ServiceSettings]]


def deployed(model: str, sequence: int) -> Outgoing:
    """A deployment of the model."""
    event = DeploymentChanged(
        model=model, sequence=sequence, spec_revision=1, reason="test", time=datetime(2025, 1, 1, tzinfo=UTC)
    )
    return outgoing(event, "deployments", model)


class Deployments:
    """What a service remembers of the topic."""

    def __init__(self) -> None:
        self.sequences: dict[str, int] = {}

    def apply(self, event: Event | None, record: Record) -> None:
        """Take a record."""
        model = (record.key or b"").decode()
        if event is None:
            self.sequences.pop(model, None)
        else:
            assert isinstance(event, DeploymentChanged)
            self.sequences[model] = event.sequence


async def test_start_returns_with_all_that_is_there_and_the_rest_follows(deployment: Deployment) -> None:
    """A serving process would answer before it knows its champion, or never hear of a new one."""
    settings = await deployment("deployments")
    producer, known = Producer(settings), Deployments()
    await producer.start()
    await producer.send_all([deployed("rain", 1), deployed("employment", 1), deployed("rain", 2)])
    follower = Follower(settings, "deployments", known.apply)
    await follower.start()
    assert known.sequences == {"rain": 2, "employment": 1}
    await producer.send_all([deployed("rain", 3), Outgoing("deployments", None, b"employment")])
    await follower.refresh()
    assert known.sequences == {"rain": 3}
    await producer.send_all([deployed("rain", 4)])
    await eventually(lambda: known.sequences["rain"] == 4)
    await follower.stop()
    await producer.stop()


async def test_an_empty_topic_does_not_hold_up_the_start(deployment: Deployment) -> None:
    """A fresh deployment would never become ready."""
    follower = Follower(await deployment("deployments"), "deployments", Deployments().apply)
    await follower.start()
    await follower.refresh()
    await follower.stop()


async def test_what_cannot_be_decoded_is_counted_and_passed_over(deployment: Deployment) -> None:
    """One broken record would keep every service from starting, or vanish without a word."""
    settings = await deployment("deployments")
    producer, known, metrics = Producer(settings), Deployments(), Metrics()
    await producer.start()
    await producer.send_all([Outgoing("deployments", b"{broken", b"rain"), deployed("rain", 1)])
    follower = Follower(settings, "deployments", known.apply, metrics=metrics)
    await follower.start()
    await follower.stop()
    await producer.stop()
    assert known.sequences == {"rain": 1}
    assert metrics.value("tailrace_follower_undecodable_total", topic="deployments") == 1


async def test_a_bug_in_applying_is_not_hidden(deployment: Deployment) -> None:
    """A service would go on with a view of the world that has stopped."""
    settings = await deployment("deployments")
    producer = Producer(settings)
    await producer.start()

    def broken(_event: Event | None, _record: Record) -> None:
        raise ZeroDivisionError("a bug")

    follower = Follower(settings, "deployments", broken)
    await follower.start()
    await producer.send_all([deployed("rain", 1)])
    with pytest.raises(ZeroDivisionError):
        await follower.wait()
    await follower.stop()
    await producer.stop()
