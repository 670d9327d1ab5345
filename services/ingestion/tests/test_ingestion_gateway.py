"""The gateway over HTTP: what is taken is on the broker, what is not is told in one sentence."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tailrace_contracts.events import LabelGiven, PredictionMade
from tailrace_ingestion.http import create_api
from tailrace_ingestion.main import HTTP_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import label, prediction
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.testing import RecordingProducer


@pytest.fixture
def producer() -> RecordingProducer:
    """What the gateway publishes to."""
    return RecordingProducer()


@pytest.fixture
async def client(producer: RecordingProducer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with small limits."""
    settings = IngestionSettings(max_body_bytes=2000, max_events=3, max_pending_events=3)
    transport = httpx.ASGITransport(create_api(producer, settings, HTTP_IN))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def document(event: PredictionMade | LabelGiven, **changes: Any) -> dict[str, Any]:
    """The event as JSON data."""
    return json.loads(event.encode()) | changes  # type: ignore[no-any-return]


async def test_events_are_taken_once_the_broker_has_them(
    client: httpx.AsyncClient, producer: RecordingProducer
) -> None:
    """A producer would believe an event safe that is nowhere."""
    one = await client.post("/v1/predictions", json=document(prediction(1)))
    many = await client.post("/v1/labels", json={"events": [document(label(1)), document(label(2))]})
    assert [(answer.status_code, answer.json()) for answer in (one, many)] == [
        (202, {"accepted": 1}),
        (202, {"accepted": 2}),
    ]
    assert producer.events("prediction-events") == [prediction(1)]
    assert producer.events("label-events") == [label(1), label(2)]
    assert [record.key for record in producer.on("prediction-events")] == [b"p1"]


async def test_wrong_events_are_named_and_nothing_is_taken(
    client: httpx.AsyncClient, producer: RecordingProducer
) -> None:
    """A producer could not tell which of its events is wrong, or whether the others were taken."""
    wrong = document(prediction(2), time="yesterday", features={})
    lacking = {k: v for k, v in document(prediction(3)).items() if k != "model"}
    answer = await client.post("/v1/predictions", json={"events": [document(prediction(1)), wrong, lacking]})
    assert answer.status_code == 422
    body = answer.json()
    assert body["error"] == "2 of 3 events are not valid, so none was accepted; see errors"
    assert [(each["index"], each["field"]) for each in body["errors"]] == [(1, "time"), (2, "model")]
    assert "found 'yesterday'" in body["errors"][0]["error"]
    assert body["errors"][1]["error"] == "model: field required"
    assert producer.sent == []


BODIES = [
    (b"{", 422, "the body is not JSON"),
    (b'{"time": NaN}', 422, "NaN and Infinity are not JSON either"),
    (b"[]", 422, 'the body is neither an event nor {"events": [...]}'),
    (b'{"events": {}}', 422, 'the body is neither an event nor {"events": [...]}'),
    (b'{"events": []}', 422, "events is empty"),
    (b'{"events": [1, 2, 3, 4]}', 413, "the request has 4 events, expected at most 3"),
    (b'{"events": [1]}', 422, "1 of 1 events are not valid"),
    (b"x" * 2001, 413, "the body is over the limit of 2000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "sentence"), BODIES, ids=[sentence[:30] for _, _, sentence in BODIES])
async def test_a_body_that_cannot_be_taken_is_refused(
    client: httpx.AsyncClient, body: bytes, status: int, sentence: str
) -> None:
    """A mistake would be answered with a stack trace, or with nothing that helps."""
    answer = await client.post("/v1/predictions", content=body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


async def test_a_body_without_an_end_is_cut_off(client: httpx.AsyncClient) -> None:
    """One client could fill the memory by never saying how much it will send."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1000

    answer = await client.post("/v1/labels", content=endless())
    assert (answer.status_code, sent) == (413, 3)


async def test_another_media_type_is_refused(client: httpx.AsyncClient) -> None:
    """A form or an XML document would be read as if it were JSON."""
    answer = await client.post("/v1/labels", content=b"a=1", headers={"content-type": "text/plain; charset=utf-8"})
    assert (answer.status_code, answer.json()) == (
        415,
        {"error": "content-type is text/plain, expected application/json"},
    )


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/labels"), ("POST", "/v1/admin"), ("GET", "/docs"), ("GET", "/openapi.json")]
)
async def test_there_is_nothing_else(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Something would be reachable that nobody meant to open."""
    answer = await client.request(method, path)
    assert answer.status_code in {404, 405}
    assert "ingestion takes POST /v1/predictions and POST /v1/labels" in answer.json()["error"]


async def test_a_broker_that_does_not_answer_is_told(client: httpx.AsyncClient, producer: RecordingProducer) -> None:
    """A producer would hang, or not know that it has to send again."""
    producer.fail_next(DeliveryFailed("away"))
    answer = await client.post("/v1/labels", json=document(label(1)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "did not acknowledge in time" in answer.json()["error"]
    producer.fail_next(DeliveryRefused("a record of 9 bytes is over its limit"))
    assert (await client.post("/v1/labels", json=document(label(1)))).status_code == 413
    assert (await client.post("/v1/labels", json=document(label(1)))).status_code == 202
