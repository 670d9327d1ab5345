"""The gateway over HTTP: what is taken is on the broker, what is not is told in one sentence."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from tailrace_contracts.events import LabelGiven, PredictionMade
from tailrace_ingestion.adapters.grouped import GroupedPublisher
from tailrace_ingestion.http import create_api
from tailrace_ingestion.main import HTTP_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import label, prediction
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.records import Outgoing, Run
from tailrace_runtime.testing import RecordingProducer
from tailrace_testing import eventually


@pytest.fixture
def producer() -> RecordingProducer:
    """What the gateway publishes to."""
    return RecordingProducer()


@pytest.fixture
async def client(producer: RecordingProducer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with small limits."""
    settings = IngestionSettings(max_body_bytes=2000, max_events=3, max_pending_events=3)
    transport = httpx.ASGITransport(create_api(GroupedPublisher(producer), settings, HTTP_IN))
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


async def test_numbers_are_taken_as_labels_and_predictions(
    client: httpx.AsyncClient, producer: RecordingProducer
) -> None:
    """The producers of a regression could not use HTTP."""
    served = {"arm": "external", "prediction": 12.75}
    one = await client.post("/v1/predictions", json=document(prediction(1), served=served))
    two = await client.post("/v1/labels", json=document(label(1), label=-0.5))
    refused = await client.post("/v1/labels", json=document(label(1), label=True))
    assert [each.status_code for each in (one, two)] == [202, 202]
    assert refused.status_code in {400, 422}
    (taken,) = producer.events("prediction-events")
    assert isinstance(taken, PredictionMade)
    assert taken.served is not None
    assert taken.served.prediction == 12.75
    assert [each.label for each in producer.events("label-events") if isinstance(each, LabelGiven)] == [-0.5]


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


async def test_the_valid_events_of_a_request_are_taken_where_that_is_wanted(
    client: httpx.AsyncClient, producer: RecordingProducer
) -> None:
    """A producer with batches of a thousand would have to send 999 good events again for a bad one."""
    events = [document(prediction(1)), document(prediction(2), time="yesterday"), document(prediction(3))]
    answer = await client.post("/v1/predictions?partial=true", json={"events": events})
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (2, 1)
    assert [(each["index"], each["field"]) for each in body["errors"]] == [(1, "time")]
    assert [record.key for record in producer.sent] == [b"p1", b"p3"]
    none = await client.post("/v1/predictions?partial=true", json={"events": events[1:2]})
    every = await client.post("/v1/predictions?partial=true", json={"events": events[:1]})
    odd = await client.post("/v1/predictions?partial=maybe", json=events[0])
    assert [none.status_code, every.status_code, odd.status_code] == [422, 202, 422]


async def test_cloud_events_in_structured_mode_are_unwrapped(
    client: httpx.AsyncClient, producer: RecordingProducer
) -> None:
    """A producer with a CloudEvents library would be refused, or its envelope be taken for an event."""
    envelopes = [{"specversion": "1.0", "id": "1", "data": document(label(n))} for n in (1, 2)]
    one = await client.post(
        "/v1/labels", json=envelopes[0], headers={"content-type": "application/cloudevents+json; charset=utf-8"}
    )
    both = await client.post(
        "/v1/labels", json=envelopes, headers={"content-type": "application/cloudevents-batch+json"}
    )
    bare = await client.post("/v1/labels", json=[1], headers={"content-type": "application/cloudevents-batch+json"})
    assert [one.json(), both.json()] == [{"accepted": 1}, {"accepted": 2}]
    assert (bare.status_code, bare.json()["error"].startswith("the body is not CloudEvents")) == (422, True)
    assert producer.events("label-events") == [label(1), label(1), label(2)]


async def test_what_is_published_is_what_was_sent(client: httpx.AsyncClient, producer: RecordingProducer) -> None:
    """Fields of tomorrow would be lost on the way, or an event arrive without its type."""
    whole = document(prediction(1), note="from a newer producer")
    bare = {name: value for name, value in document(label(1)).items() if name != "type"}
    await client.post("/v1/predictions", content=json.dumps(whole, indent=1))
    await client.post("/v1/labels", json=bare)
    lax = await client.post("/v1/labels", json=bare | {"label": "1"})
    assert json.loads(producer.sent[0].value or b"") == whole
    assert (lax.status_code, producer.events("label-events")) == (202, [label(1), label(1)])
    headers = dict(producer.sent[0].headers)
    assert (headers["ce_type"], headers["ce_time"]) == (b"tailrace.prediction-made", b"2024-01-09T00:00:00Z")
    assert len({dict(record.headers)["ce_id"] for record in producer.sent}) == 3


class SlowProducer(RecordingProducer):
    """Acknowledges when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledge = asyncio.Event()
        self.calls = 0

    async def send_all(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        """Wait, then keep them."""
        self.calls += 1
        await self.acknowledge.wait()
        await super().send_all(records, runs)


async def test_too_much_at_once_is_put_off() -> None:
    """A burst would fill the memory; or one client keep all others out."""
    producer = SlowProducer()
    settings = IngestionSettings(max_pending_events=3, max_pending_events_per_client=2)
    api = create_api(GroupedPublisher(producer), settings, HTTP_IN)
    one, two = (
        httpx.AsyncClient(transport=httpx.ASGITransport(api, client=(host, 1)), base_url="http://gateway")
        for host in ("10.0.0.1", "10.0.0.2")
    )
    async with one, two:
        both = {"events": [document(label(1)), document(label(2))]}
        first = asyncio.create_task(one.post("/v1/labels", json=both))
        await eventually(lambda: first.done() or api.state.gateway.pending == 2)
        mine = await one.post("/v1/labels", json=document(label(3)))
        all_ours = await two.post("/v1/labels", json=both)
        assert [(each.status_code, each.headers["retry-after"]) for each in (mine, all_ours)] == [(429, "1")] * 2
        assert "2 events of this client wait" in mine.json()["error"]
        assert "2 events wait for the broker already" in all_ours.json()["error"]
        fits = asyncio.create_task(two.post("/v1/labels", json=document(label(4))))
        producer.acknowledge.set()
        assert [(await first).status_code, (await fits).status_code] == [202, 202]
        assert (await one.post("/v1/labels", json=both)).status_code == 202


async def test_bodies_of_many_clients_are_bounded_together() -> None:
    """A thousand clients with a megabyte each would end the process."""
    api = create_api(
        GroupedPublisher(RecordingProducer()), IngestionSettings(max_buffered_bytes=3000, max_body_bytes=2500), HTTP_IN
    )
    rest = asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield b" " * 2000
        await rest.wait()
        yield json.dumps(document(label(1))).encode()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://gateway") as client:
        slow = asyncio.create_task(client.post("/v1/labels", content=halting()))
        await eventually(lambda: slow.done() or api.state.gateway.buffered_bytes == 2000)
        refused = await client.post("/v1/labels", content=b" " * 1500)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        rest.set()
        assert (await slow).status_code == 202
        assert api.state.gateway.buffered_bytes == 0


async def test_requests_that_come_together_are_published_together_and_fail_alone() -> None:
    """Many clients would wait for each other's batches until the producer gives up; or one large event fail them all."""
    producer = SlowProducer()
    publisher = GroupedPublisher(producer)

    def records(first: int) -> list[Outgoing]:
        return [Outgoing("label-events", b"%d" % n, b"k") for n in range(first, first + 2)]

    tasks = [asyncio.create_task(publisher.publish(records(first))) for first in (0, 2, 4)]
    with pytest.raises(DeliveryRefused):
        await publisher.publish([Outgoing("label-events", b"x" * 2_000_000, b"k")])
    await eventually(lambda: producer.calls == 1)
    later = asyncio.create_task(publisher.publish(records(6)))
    producer.acknowledge.set()
    await asyncio.gather(*tasks, later)
    assert producer.calls == 2
    assert [record.value for record in producer.sent] == [b"%d" % n for n in range(8)]
    producer.fail_next()
    failed = await asyncio.gather(*(publisher.publish(records(n)) for n in (8, 10)), return_exceptions=True)
    assert [type(each) for each in failed] == [DeliveryFailed, DeliveryFailed]
    await publisher.publish(records(12))
    assert len(producer.sent) == 10


HOSTILE = [
    b"",
    b"null",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"[" * 50_000,
    b'{"events":' * 5_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"events":[' + b"[" * 50_000 + b"]" * 50_000 + b"]}",
    b'{"events":[' + b"1," * 9_999 + b"1]}",
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{"a":1e999}}',
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{"a":-Infinity}}',
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{"a":' + b"9" * 5_000 + b"}}",
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","label":' + b"9" * 5_000 + b"}",
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","label":1e400}',
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","label":true}',
    b'{"prediction_id":"p","prediction_id":"q","model":"rain","time":"2024-01-01T00:00:00Z","label":1,"features":{}}',
    b'{"prediction_id":"\\ud800","model":"rain","time":"2024-01-01T00:00:00Z","label":1,"features":{"a":"\\udfff"}}',
    b'{"prediction_id":"\\u0000","model":"rain","time":"2024-01-01T00:00:00Z","label":1,"features":{"\\u0000":1}}',
    b'{"prediction_id":"' + b"p" * 100_000 + b'","model":"rain","time":"2024-01-01T00:00:00Z","label":1}',
    b'{"prediction_id":"p","model":"../etc","time":"2024-01-01T00:00:00Z","label":1}',
    b'{"prediction_id":"p","model":"rain","time":"99999-01-01T00:00:00Z","label":1}',
    b'{"prediction_id":"p","model":"rain","time":1e308,"label":1}',
    b'{"prediction_id":"p","model":"rain","time":"0001-01-01T00:00:00+23:59","label":1,"features":{}}',
    b'{"prediction_id":"p","model":"rain","time":"9999-12-31T23:59:59-23:59","label":1,"features":{}}',
    b'{"prediction_id":{"$ne":null},"model":["rain"],"time":{},"label":{},"features":[]}',
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{'
    + b",".join(b'"f%d":[]' % n for n in range(50_000))
    + b"}}",
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{},"shadows":['
    + b",".join([b"1"] * 100_000)
    + b"]}",
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{},"latency_ms":-1}',
    b'{"prediction_id":"p","model":"rain","time":"2024-01-01T00:00:00Z","features":{},"served":{"arm":"champion","prediction":1,"probability":2}}',
]


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/labels"])
@pytest.mark.parametrize("number", range(len(HOSTILE)))
async def test_a_hostile_body_is_refused_with_a_sentence_or_harmless(number: int, path: str) -> None:
    """Strangers could end the process, fill the log with tracebacks, or put on the topics what stops the readers."""
    producer = RecordingProducer()
    transport = httpx.ASGITransport(create_api(GroupedPublisher(producer), IngestionSettings(), HTTP_IN))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for wrapped in (HOSTILE[number], b'{"events":[' + HOSTILE[number] + b"]}"):
            answer = await client.post(path, content=wrapped)
            sentence = answer.json().get("error", "")
            assert answer.status_code == 202 or 400 <= answer.status_code < 500
            assert answer.status_code == 202 or (sentence and "\n" not in sentence and len(sentence) < 300)
            assert all(len(each["error"]) < 400 for each in answer.json().get("errors", []))
    for topic in ("prediction-events", "label-events"):
        producer.events(topic)


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
    """A form or an XML document would be read as if it were JSON, or a small file become a large one in memory."""
    packed = await client.post("/v1/labels", content=b"x", headers={"content-encoding": "gzip"})
    assert (packed.status_code, "not compressed" in packed.json()["error"]) == (415, True)
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
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "did not acknowledge in time" in answer.json()["error"]
    producer.fail_next(DeliveryRefused("a record of 9 bytes is over its limit"))
    assert (await client.post("/v1/labels", json=document(label(1)))).status_code == 413
    assert (await client.post("/v1/labels", json=document(label(1)))).status_code == 202
