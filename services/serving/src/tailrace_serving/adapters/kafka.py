"""Prediction events onto `prediction-events`, through the runtime's producer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tailrace_contracts.events import utc
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.records import SOURCE, Outgoing
from tailrace_serving.domain.buffer import Captured
from tailrace_serving.ports import NeverPublished, NotPublished

_VERSION = ("ce_specversion", b"1.0")
_TYPE = ("ce_type", b"tailrace.prediction-made")
_JSON = ("content-type", b"application/json")


class Sender(Protocol):
    """The part of the runtime's producer that serving needs."""

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Publish all of them; return once every one is acknowledged."""
        ...


class PredictionTopic:
    """The topic that prediction events go to, keyed by prediction id."""

    def __init__(self, sender: Sender, topic: str) -> None:
        self._sender = sender
        self._topic = topic

    async def publish(self, events: Sequence[Captured]) -> None:
        """Return once all are acknowledged. Raises NotPublished or NeverPublished."""
        try:
            await self._sender.send_all([outgoing(event, self._topic) for event in events])
        except DeliveryFailed as error:
            raise NotPublished(str(error)) from error
        except DeliveryRefused as error:
            raise NeverPublished(str(error)) from error


def outgoing(event: Captured, topic: str) -> Outgoing:
    """The event as a CloudEvent in binary mode. Its id is the prediction's: published twice, it is known for the same."""
    trace = () if event.trace is None else (("traceparent", event.trace),)
    time = ("ce_time", utc(event.time).encode())
    source = ("ce_source", SOURCE.get().encode())
    headers = (_VERSION, ("ce_id", event.key), _TYPE, source, time, _JSON, *trace)
    return Outgoing(topic, event.value, event.key, None, headers)
