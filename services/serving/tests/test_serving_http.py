"""The HTTP front over ASGI: the protocol, the plain form, and every refusal in one sentence."""

from __future__ import annotations

import asyncio
import json
import struct
import tracemalloc
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tailrace_contracts.events import Event, FeatureValue, PredictionMade
from tailrace_runtime.testing import record
from tailrace_serving.answering import Front, Limits
from tailrace_serving.app import capture_of, explanations_of
from tailrace_serving.bodies import DROPPED_BODIES
from tailrace_serving.capture import Capture
from tailrace_serving.consumers import Loader
from tailrace_serving.domain.arms import Table
from tailrace_serving.handlers import Desk
from tailrace_serving.http import application
from tailrace_serving.main import TOPICS_IN
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    THEN,
    FakeAnswer,
    FakeArtefacts,
    FakeEventLog,
    FakeMeter,
    FakePredictor,
    FixedClock,
    applied,
    deployed,
    digest,
    rain_spec,
    versioned,
)
from tailrace_testing import eventually

TENSORS: list[dict[str, Any]] = [
    {"name": "humidity", "datatype": "FP64", "shape": [1], "data": [40.0]},
    {"name": "pressure", "datatype": "INT64", "shape": [1, 1], "data": [[1000]]},
    {"name": "wind", "datatype": "FP32", "shape": [1], "data": [3.0]},
    {"name": "sky", "datatype": "BYTES", "shape": [1], "data": ["clear"]},
]


class Serving:
    """The service around its fakes, and a client in front of it."""

    def __init__(self) -> None:
        self.meter = FakeMeter()
        self.events = FakeEventLog()
        self.artefacts = FakeArtefacts()
        self.table = Table()
        self.settings = ServingSettings(capture_linger_seconds=0, capture_retry_seconds=0.01)
        self.explanations = explanations_of(self.settings, self.artefacts, self.meter)
        self.capture: Capture = capture_of(self.settings, self.events, self.meter, self.explanations)
        self.loader = Loader(TOPICS_IN, self.table, self.artefacts, self.meter, retry_seconds=60)
        self._ids = iter(range(1_000_000))
        desk = Desk(FixedClock(), lambda: f"made-{next(self._ids)}", self.meter)
        self.limits = Limits(100_000, 50, max_requests=4)
        self.front = Front(self.table, self.loader.waiting, self.capture, desk, self.limits, self.explanations)
        self.client = self.client_of(self.front)

    def client_of(self, front: Front) -> httpx.AsyncClient:
        """A client of the application."""
        transport = httpx.ASGITransport(application(front), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://serving")

    def hold(self, name: str, predictor: FakePredictor) -> FakePredictor:
        """Put an artefact into the store."""
        self.artefacts.predictors[digest(name)] = predictor
        return predictor

    async def learn(self, *events: Event) -> None:
        """Let facts arrive on their topics, and wait until they are served."""
        topics = {"spec-applied": "model-specs", "version-changed": "model-versions"}
        for event in events:
            self.loader.on_event(event, record(event, topics.get(event.type, "deployments")))
        await self.loader._bring_up_to_date(self.artefacts)

    async def published(self, count: int = 1) -> list[PredictionMade]:
        """The prediction events, once there are so many."""
        await eventually(lambda: len(self.events.events) >= count, 5, 0.005)
        return [PredictionMade.model_validate_json(event.value) for event in self.events.events]


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    """Champion 1 (torch) answers 0.75, shadow 3.12 (river) 0.25; nothing else is deployed."""
    made = Serving()
    made.hold("one", FakePredictor(0.75))
    made.hold("three", FakePredictor(0.25))
    await made.capture.start()
    await made.loader.start()
    await made.learn(
        applied(rain_spec()), versioned(1, "one"), versioned(3, "three", revision=12), deployed(1, shadows=(3,))
    )
    yield made
    await made.client.aclose()
    await made.loader.stop()
    await made.capture.stop()


async def test_fault_of_ours_is_told_without_its_insides(serving: Serving) -> None:
    """If it failed, a caller would get a traceback, or a broken connection."""

    def no_id() -> str:
        raise ZeroDivisionError("a secret")

    front = replace(serving.front, desk=serving.front.desk._replace(new_id=no_id))
    async with serving.client_of(front) as client:
        answer = await client.post("/v2/models/rain/infer", json={"inputs": TENSORS})
    assert answer.status_code == 500
    assert answer.json() == {"error": "the request failed through a fault of the service; its log has the reason"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/rain/infer", {"inputs": TENSORS, "parameters": {"prediction_id": "p-1"}}),
        ("/v1/models/rain/predict", {"features": {"humidity": 40.0}, "prediction_id": "p-1"}),
        ("/v2/models/rain/infer", {"inputs": []}),
        ("/v2/models/fog/infer", {"inputs": TENSORS}),
    ],
)
async def test_whole_requests_are_answered_as_streamed_ones(serving: Serving, path: str, body: dict[str, Any]) -> None:
    """If it failed, a client would get another answer when its request comes in two packets."""
    answer_to = application(serving.front).direct.answer_to(path.encode())
    assert answer_to is not None
    whole = await answer_to(json.dumps(body).encode())
    streamed = await serving.client.post(path, json=body)
    assert (whole.status, json.loads(whole.body)) == (streamed.status_code, streamed.json())
    assert dict(whole.headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    "path", ["/v2/models/rain", "/v2/models/a%2Fb/infer", "/v2/models/rain/infer?x", "/v2/models//infer"]
)
async def test_only_plain_paths_are_answered_whole(serving: Serving, path: str) -> None:
    """If it failed, a path would mean something else than the routes say."""
    assert application(serving.front).direct.answer_to(path.encode()) is None


async def test_only_paths_that_can_name_a_model_are_remembered(serving: Serving) -> None:
    """If it failed, made-up names of any length would fill the memory of the process, and stay there."""
    for form in ("/v2/models/{}/infer", "/v1/models/{}/predict"):
        answer_to = application(serving.front).direct.answer_to
        assert answer_to(form.format("m" * 63).encode()) is not None
        assert answer_to(form.format("m" * 64).encode()) is None
        assert (await serving.client.post(form.format("m" * 64), json={"inputs": TENSORS})).status_code == 404


async def test_whole_body_over_the_limit_is_refused(serving: Serving) -> None:
    """If it failed, the limit would hold for streamed bodies only."""
    front = replace(serving.front, limits=Limits(10, 50))
    answer_to = application(front).direct.answer_to(b"/v2/models/rain/infer")
    assert answer_to is not None
    assert (await answer_to(b" " * 11)).status == 413


async def test_one_row_in_the_open_inference_protocol(serving: Serving) -> None:
    """If it failed, no client of the protocol could ask anything."""
    answer = await serving.client.post(
        "/v2/models/rain/infer",
        json={
            "id": "request-9",
            "inputs": TENSORS,
            "parameters": {"prediction_id": "p-1", "entity": "station-4", "time": "2026-01-31T14:00:00+02:00"},
        },
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "request-9",
        "model_name": "rain",
        "model_version": "1",
        "parameters": {"arm": "champion", "version": 1},
        "outputs": [
            {"name": "prediction", "datatype": "INT64", "shape": [1], "data": [1]},
            {"name": "probability", "datatype": "FP64", "shape": [1], "data": [0.75]},
            {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": ["p-1"]},
        ],
    }
    (event,) = await serving.published()
    assert event.prediction_id == "p-1"
    assert event.entity == "station-4"
    assert event.time == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert event.features == RAIN
    assert event.served is not None
    assert (event.served.arm, event.served.version, event.served.probability) == ("champion", 1, 0.75)
    assert [(each.arm, each.version, each.revision, each.prediction) for each in event.shadows] == [
        ("shadow", 3, 12, 0)
    ]
    assert event.latency_ms is not None


async def test_a_regression_answers_with_a_number(serving: Serving) -> None:
    """If it failed, a regression would be answered as a class, or with a probability of nothing."""
    serving.hold("one", FakePredictor(number=12.5))
    serving.hold("three", FakePredictor(number=-1.0))
    await serving.learn(applied(rain_spec(task="regression", label={"name": "mm", "loss_scale": 50}), revision=2))
    assert (await serving.client.get("/v2/models/rain")).json()["outputs"] == [
        {"name": "prediction", "datatype": "FP64", "shape": [-1]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
    ]
    answer = await serving.client.post(
        "/v2/models/rain/infer", json={"inputs": TENSORS, "parameters": {"prediction_id": "p"}}
    )
    assert answer.json()["outputs"] == [
        {"name": "prediction", "datatype": "FP64", "shape": [1], "data": [12.5]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": ["p"]},
    ]
    plain = await serving.client.post("/v1/models/rain/predict", json={"features": RAIN})
    assert {name: plain.json().get(name) for name in ("prediction", "probability")} == {
        "prediction": 12.5,
        "probability": None,
    }
    refused = await serving.client.post(
        "/v2/models/rain/infer", json={"inputs": TENSORS, "outputs": [{"name": "probability"}]}
    )
    assert refused.status_code == 400
    assert "expected 'prediction', 'prediction_id'" in refused.json()["error"]
    event = (await serving.published(2))[0]
    assert event.served is not None
    assert (event.served.prediction, event.served.probability) == (12.5, None)
    assert [each.prediction for each in event.shadows] == [-1.0]


async def test_several_rows_with_their_ids_in_a_string(serving: Serving) -> None:
    """If it failed, a gateway could not ask for many answers at once, or would lose which is which."""
    inputs = [
        {"name": "humidity", "datatype": "FP64", "shape": [2], "data": [40.0, 50.0]},
        {"name": "pressure", "datatype": "FP64", "shape": [2, 1], "data": [1000.0, 5000.0]},
        {"name": "wind", "datatype": "FP64", "shape": [2], "data": [3.0, None]},
        {"name": "sky", "datatype": "BYTES", "shape": [2, 1], "data": [["clear"], ["clouded"]]},
    ]
    answer = await serving.client.post(
        "/v2/models/rain/infer",
        json={"inputs": inputs, "parameters": {"prediction_ids": '["a", "b"]'}, "outputs": [{"name": "prediction_id"}]},
    )
    assert answer.json()["outputs"] == [
        {"name": "prediction_id", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    ]
    events = await serving.published(2)
    assert [event.prediction_id for event in events] == ["a", "b"]
    assert events[1].features == {"humidity": 50.0, "pressure": 5000.0, "wind": None, "sky": "clouded"}
    assert {event.time for event in events} == {THEN}


async def test_plain_form(serving: Serving) -> None:
    """If it failed, a person with curl would have to write tensors."""
    one = await serving.client.post("/v1/models/rain/predict", json={"features": RAIN, "prediction_id": "p"})
    assert one.json() == {
        "model": "rain",
        "arm": "champion",
        "version": 1,
        "prediction_id": "p",
        "prediction": 1,
        "probability": 0.75,
    }
    many = await serving.client.post("/v1/models/rain/predict", json={"rows": [RAIN, RAIN]})
    ids = [each["prediction_id"] for each in many.json()["predictions"]]
    assert ids == ["made-0", "made-1"]
    assert len(await serving.published(3)) == 3


async def test_version_by_name(serving: Serving) -> None:
    """If it failed, a caller could not compare two versions by hand."""
    for version in ("3", "3.12"):
        answer = await serving.client.post(f"/v2/models/rain/versions/{version}/infer", json={"inputs": TENSORS})
        assert answer.json()["model_version"] == "3.12"
        assert answer.json()["parameters"] == {"arm": "shadow", "version": 3, "revision": 12}
    events = await serving.published(2)
    assert [each.arm for each in events[0].shadows] == ["champion"]


async def test_canary_serves_its_share_and_the_champion_answers_beside_it(serving: Serving) -> None:
    """If it failed, a canary would serve nobody, or could not be compared with the champion."""
    serving.hold("two", FakePredictor(0.9))
    await serving.learn(versioned(2, "two"), deployed(1, canary=(2, 50), shadows=(3,), sequence=2))
    for number in range(40):
        body = {"features": RAIN, "prediction_id": str(number), "entity": f"e{number}"}
        await serving.client.post("/v1/models/rain/predict", json=body)
    events = await serving.published(40)
    served = [event.served.arm for event in events if event.served]
    assert {"champion", "canary"} == set(served)
    for event in events:
        assert event.served is not None
        assert {event.served.arm, *(each.arm for each in event.shadows)} == {"champion", "canary", "shadow"}
    again = await serving.client.post("/v1/models/rain/predict", json={"features": RAIN, "entity": "e0"})
    first = next(event for event in events if event.prediction_id == "0")
    assert first.served is not None
    assert again.json()["arm"] == first.served.arm


async def test_failing_canary_is_stood_in_for(serving: Serving) -> None:
    """If it failed, a broken candidate would turn its share of the traffic into errors."""
    serving.hold("broken", FakePredictor(fails=True))
    await serving.learn(versioned(4, "broken"), deployed(1, canary=(4, 100), sequence=2))
    answer = await serving.client.post("/v2/models/rain/infer", json={"inputs": TENSORS})
    assert answer.json()["parameters"]["arm"] == "champion"
    (event,) = await serving.published()
    assert event.shadows == ()
    assert serving.meter.counts["tailrace_arm_failures_total", "rain", "canary"] == 2


async def test_bad_artefact_leaves_the_old_version_serving(serving: Serving) -> None:
    """If it failed, a damaged artefact would take the model off the air, or nobody would hear of it."""
    await serving.learn(versioned(5, "damaged"), deployed(5, sequence=2))
    answer = await serving.client.post("/v2/models/rain/infer", json={"inputs": TENSORS})
    assert answer.json()["model_version"] == "1"
    status = await serving.client.get("/v2/models/rain/ready")
    assert status.status_code == 200
    assert "is missing" in status.json()["parameters"]["problem_5"]
    assert serving.meter.counts["tailrace_artefact_failures_total", "rain"] == 1
    serving.hold("damaged", FakePredictor(0.1))
    await serving.learn(versioned(5, "damaged"))
    assert (await serving.client.get("/v2/models/rain")).json()["parameters"] == {"champion": "5"}


async def test_metadata_and_health(serving: Serving) -> None:
    """If it failed, a client could not find out what to ask, or whether to."""
    server = (await serving.client.get("/v2")).json()
    assert server["name"] == "tailrace"
    assert server["extensions"] == ["binary_tensor_data"]
    assert (await serving.client.get("/v2/health/live")).json() == {"live": True}
    assert (await serving.client.get("/v2/health/ready")).json() == {"ready": True}
    model = (await serving.client.get("/v2/models/rain")).json()
    assert model["versions"] == ["1", "3.12"]
    assert model["inputs"][3] == {"name": "sky", "datatype": "BYTES", "shape": [-1]}
    version = (await serving.client.get("/v2/models/rain/versions/3")).json()
    assert (version["versions"], version["platform"]) == (["3.12"], "tailrace_river")
    assert (await serving.client.get("/v2/models/rain/versions/3/ready")).json()["ready"] is True
    document = (await serving.client.get("/openapi.json")).json()
    assert "/v2/models/{model}/infer" in document["paths"]


async def test_not_ready_without_the_deployed_champion(serving: Serving) -> None:
    """If it failed, a load balancer would send traffic to a process that cannot answer it."""
    snow = rain_spec(model="snow")
    await serving.learn(applied(snow), versioned(1, "nowhere", model="snow"), deployed(1, model="snow"))
    ready = await serving.client.get("/v2/health/ready")
    assert ready.status_code == 503
    assert "champion 1 of model 'snow' is not loaded" in ready.json()["error"]
    assert (await serving.client.get("/v2/models/snow/ready")).status_code == 503
    answer = await serving.client.post("/v2/models/snow/infer", json={"inputs": TENSORS})
    assert answer.status_code == 503
    assert "champion 1 of model 'snow' cannot answer: artefact" in answer.json()["error"]


def changed(index: int, **changes: Any) -> dict[str, Any]:
    """A request with one tensor changed."""
    return {"inputs": [{**each, **changes} if number == index else each for number, each in enumerate(TENSORS)]}


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/v2/models/snow/infer", {"inputs": TENSORS}, 404, "model 'snow' is unknown; models known here: rain"),
        ("/v2/models/rain/versions/9/infer", {"inputs": TENSORS}, 404, "version '9' of model 'rain' is not served"),
        ("/v2/models/rain/infer", b'{"inputs": [', 400, "the request body is not JSON: "),
        ("/v2/models/rain/infer", b"\xff\xfe", 400, "the request body is not JSON: "),
        ("/v2/models/rain/infer", b'{"inputs": ' + b"[" * 90_000, 400, "the request body "),
        ("/v1/models/rain/predict", b'{"features": {"\\ud800": 1}}', 400, "feature '\\ud800' is unknown; model"),
        ("/v2/models/rain/infer", {"inputs": 5}, 400, "the request body does not fit: Expected `array`, got `int`"),
        ("/v2/models/rain/infer", {}, 400, "the request body does not fit: Object missing required field `inputs`"),
        ("/v2/models/rain/infer", {"inputs": []}, 400, "inputs is empty, expected one tensor for each feature"),
        ("/v2/models/rain/infer", {"inputs": TENSORS[1:]}, 422, "feature 'humidity' is missing, expected a number"),
        ("/v2/models/rain/infer", {"inputs": [*TENSORS, TENSORS[0]]}, 400, "input 'humidity' is given twice"),
        ("/v2/models/rain/infer", changed(0, name="humidty"), 400, "feature 'humidty' is unknown; model 'rain' exp"),
        ("/v2/models/rain/infer", changed(0, shape=[2]), 400, "input 'pressure' has 1 rows and 'humidity' has 2, exp"),
        ("/v2/models/rain/infer", changed(0, shape=[1, 2]), 400, "input 'humidity' has shape [1, 2], expected [n]"),
        ("/v2/models/rain/infer", changed(0, shape=[0]), 400, "input 'humidity' has shape [0], expected [n]"),
        ("/v2/models/rain/infer", changed(0, data=[1, 2]), 400, "input 'humidity' has 2 values, expected 1 for shape"),
        ("/v2/models/rain/infer", changed(0, data=[[1, 2]]), 400, "input 'humidity' is nested otherwise than its sh"),
        ("/v2/models/rain/infer", changed(0, datatype="BYTES"), 400, "input 'humidity' has datatype 'BYTES', expect"),
        ("/v2/models/rain/infer", changed(0, datatype="INT64", data=[0.5]), 400, "input 'humidity' holds 0.5, exp"),
        ("/v2/models/rain/infer", changed(0, datatype="BOOL"), 400, "input 'humidity' holds 40.0, expected data of"),
        ("/v2/models/rain/infer", changed(3, datatype="FP64"), 400, "input 'sky' has datatype 'FP64', expected BYTES"),
        ("/v2/models/rain/infer", changed(3, data=[7]), 400, "input 'sky' holds 7, expected data of datatype BYTES"),
        ("/v2/models/rain/infer", changed(0, data=[940]), 422, "feature 'humidity' is 940, expected 0 to 100"),
        ("/v2/models/rain/infer", changed(3, data=["green"]), 422, "feature 'sky' is 'green', expected one of"),
        (
            "/v2/models/rain/infer",
            json.dumps(changed(0, data=[float("nan")])).encode(),
            422,
            "feature 'humidity' is NaN, expected a finite number; send null for a missing value",
        ),
        ("/v2/models/rain/infer", json.dumps(changed(0)).replace("40.0", "1e999").encode(), 422, "feature 'humidity'"),
        (
            "/v2/models/rain/infer",
            {"inputs": TENSORS, "parameters": {"time": "yesterday"}},
            400,
            "parameters: time is 'yesterday', expected RFC 3339 with an offset such as 2026-01-31T12:00:00Z",
        ),
        (
            "/v2/models/rain/infer",
            {"inputs": TENSORS, "parameters": {"time": "2026-01-31T12:00:00"}},
            400,
            "parameters: time is '2026-01-31T12:00:00', expected RFC 3339 with an offset",
        ),
        (
            "/v2/models/rain/infer",
            {"inputs": TENSORS, "parameters": {"prediction_id": ""}},
            400,
            "parameters: prediction_id is 0 characters, expected a string of 1 to 128 characters",
        ),
        (
            "/v2/models/rain/infer",
            {"inputs": TENSORS, "parameters": {"prediction_ids": '["a", "b"]'}},
            400,
            "parameters: prediction_ids has 2, expected a list of 1, one for each row",
        ),
        ("/v2/models/rain/infer", {"inputs": TENSORS, "outputs": [{"name": "x"}]}, 400, "output 'x' is unknown, exp"),
        ("/v1/models/rain/predict", {}, 400, 'the body needs either "features" (one row) or "rows"'),
        ("/v1/models/rain/predict", {"rows": []}, 400, "rows is empty, expected at least one row of features"),
        ("/v1/models/rain/predict", {"features": {**RAIN, "x": 1}}, 400, "feature 'x' is unknown; model 'rain' expe"),
        ("/v1/models/rain/predict", {"rows": [RAIN, {}]}, 422, "row 1: feature 'humidity' is missing, expected a"),
        ("/v1/models/rain/predict", {"feature": RAIN}, 400, "the request body does not fit: Object contains unknown"),
        ("/v1/models/rain/predict", {"rows": [RAIN] * 51}, 413, "the request has 51 rows, expected at most 50; send"),
        (
            "/v1/models/rain/predict",
            {"rows": [RAIN, RAIN], "prediction_id": "p"},
            400,
            "prediction_id names one row, found 2; send prediction_ids, one for each row",
        ),
        ("/v1/models/rain/predict", b" " * 100_001, 413, "the request body has 100001 bytes or more, expected at mo"),
        ("/v1/nothing", {}, 404, "nothing is at '/v1/nothing'; see /openapi.json"),
    ],
)
async def test_refusal_is_one_sentence(
    serving: Serving, path: str, body: dict[str, Any] | bytes, status: int, sentence: str
) -> None:
    """If it failed, a caller would get a traceback, or an answer that does not say what to correct."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await serving.client.post(path, content=content)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].startswith(sentence)
    assert "\n" not in answer.json()["error"]
    assert serving.events.events == []


async def test_body_is_kept_no_further_than_its_limit(serving: Serving) -> None:
    """If it failed, one caller without a content length could fill the memory, or keep the service reading for ever."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 10_000
            yield bytes(10_000)

    tracemalloc.start()
    try:
        answer = await serving.client.post("/v2/models/rain/infer", content=endless())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    limit = serving.limits.max_body_bytes
    assert limit * DROPPED_BODIES <= sent <= limit * (DROPPED_BODIES + 2)
    assert most < 1_500_000  # less than was sent


async def test_method_is_refused(serving: Serving) -> None:
    """If it failed, a caller with the wrong method would not learn which one is right."""
    got = await serving.client.get("/v2/models/rain/infer")
    assert (got.status_code, got.json()["error"][:16]) == (405, "GET is not a met")


@pytest.mark.parametrize(
    ("datatype", "packed", "seen"),
    [
        ("FP64", struct.pack("<2d", 40.5, 50), [40.5, 50.0]),
        ("FP32", struct.pack("<2f", 40.5, 50), [40.5, 50.0]),
        ("FP16", struct.pack("<2e", 40.5, 50), [40.5, 50.0]),
        ("BF16", b"\x22\x42\x48\x42", [40.5, 50.0]),
        ("INT8", struct.pack("<2b", 40, 50), [40.0, 50.0]),
        ("INT16", struct.pack("<2h", 40, 50), [40.0, 50.0]),
        ("INT32", struct.pack("<2i", 40, 50), [40.0, 50.0]),
        ("INT64", struct.pack("<2q", 40, 50), [40.0, 50.0]),
        ("UINT8", struct.pack("<2B", 40, 50), [40.0, 50.0]),
        ("UINT16", struct.pack("<2H", 40, 50), [40.0, 50.0]),
        ("UINT32", struct.pack("<2I", 40, 50), [40.0, 50.0]),
        ("UINT64", struct.pack("<2Q", 40, 50), [40.0, 50.0]),
        ("BOOL", b"\1\0", [1.0, 0.0]),
    ],
)
async def test_every_datatype_as_bytes(serving: Serving, datatype: str, packed: bytes, seen: list[float]) -> None:
    """If it failed, a client that sends binary tensors would be answered for other numbers than it sent."""
    words = b"\5\0\0\0clear\7\0\0\0clouded"
    inputs = [
        {"name": "humidity", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(packed)}},
        {"name": "pressure", "datatype": "FP64", "shape": [2], "data": [1000.0, 1001.0]},
        {"name": "sky", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(words)}},
    ]
    head = json.dumps({"inputs": inputs}).encode()
    answer = await serving.client.post(
        "/v2/models/rain/infer",
        content=head + packed + words,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    events = await serving.published(2)
    assert [event.features["humidity"] for event in events] == seen
    assert [event.features["sky"] for event in events] == ["clear", "clouded"]


async def test_outputs_as_bytes_where_asked(serving: Serving) -> None:
    """If it failed, a client would read one output's bytes as another's."""
    asked = {
        "inputs": TENSORS,
        "parameters": {"binary_data_output": True, "prediction_id": "p-1"},
        "outputs": [
            {"name": "prediction_id"},
            {"name": "probability", "parameters": {"binary_data": False}},
            {"name": "prediction", "parameters": {"binary_data": True}},
        ],
    }
    answer = await serving.client.post("/v2/models/rain/infer", json=asked)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [each.get("parameters") for each in outputs] == [{"binary_data_size": 7}, None, {"binary_data_size": 8}]
    assert outputs[1]["data"] == [0.75]
    assert answer.content[length:] == b"\3\0\0\0p-1" + struct.pack("<q", 1)


async def test_one_request_too_many_is_told_when_to_come_back(serving: Serving) -> None:
    """If it failed, a burst would fill the memory with waiting requests, and nobody would be told."""
    release = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        await release.wait()
        yield json.dumps({"inputs": TENSORS}).encode()

    path = "/v2/models/rain/infer"
    held = [
        asyncio.create_task(serving.client.post(path, content=slowly())) for _ in range(serving.limits.max_requests)
    ]
    try:

        async def busy() -> httpx.Response | None:
            answer = await serving.client.post("/v1/models/rain/predict", json={"features": RAIN})
            return answer if answer.status_code == 429 else None

        refused = await eventually(busy)
        assert refused
    finally:
        release.set()
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"] == "4 requests are being answered, expected no more; try again"
    assert [(await each).status_code for each in held] == [200] * 4


async def test_request_that_does_not_arrive_is_given_up(serving: Serving) -> None:
    """If it failed, callers that send nothing would hold every place there is."""

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    hasty = replace(serving.front, limits=replace(serving.limits, request_seconds=0.05))
    async with serving.client_of(hasty) as client:
        answer = await client.post("/v2/models/rain/infer", content=never())
    assert (answer.status_code, answer.json()["error"][:32]) == (408, "the request body did not arrive ")


class Stuck(FakePredictor):
    """Never answers; says whether it was told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = 0

    async def predict(self, _: Sequence[Mapping[str, FeatureValue]], *, alone: bool = False) -> list[FakeAnswer]:  # noqa: ARG002
        """Wait for what never comes."""
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1
        return []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/snow/infer", {"inputs": TENSORS}),
        ("/v2/models/snow/versions/1/infer", {"inputs": TENSORS}),
        ("/v1/models/snow/predict", {"rows": [RAIN, RAIN]}),
    ],
)
async def test_model_that_does_not_answer_is_given_up(serving: Serving, path: str, body: dict[str, Any]) -> None:
    """If it failed, a model that hangs would hold its callers for ever, and in the end every place there is."""
    snow, stuck = rain_spec(model="snow"), Stuck()
    serving.hold("stuck", stuck)
    await serving.learn(applied(snow), versioned(1, "stuck", model="snow"), deployed(1, model="snow"))
    hasty = replace(serving.front, limits=replace(serving.limits, request_seconds=0.05))
    async with serving.client_of(hasty) as client:
        asked = 2 * serving.limits.max_requests
        for _ in range(asked):  # more than may be asked at once: each gave its place back
            answer = await client.post(path, json=body)
            assert answer.status_code == 503
            assert answer.json() == {"error": "model 'snow' did not answer within 0.05 s; send fewer rows at once"}
            assert answer.headers["retry-after"] == "1"
        good = await client.post("/v1/models/rain/predict", json={"features": RAIN})
    assert good.status_code == 200
    assert stuck.given_up == asked
    assert serving.meter.counts["tailrace_requests_refused_total", "unavailable"] == asked
    assert [each.model for each in await serving.published()] == ["rain"]


LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ([51], 51),
        ([51, 1], 51),
        ([LARGEST], 1),
        ([2**64], 1),
        ([LARGEST, 1], 1),
        ([10**30], 0),
    ],
)
@pytest.mark.parametrize("as_bytes", [False, True])
async def test_tensor_of_too_many_elements_is_refused(
    serving: Serving, shape: list[int], elements: int, as_bytes: bool
) -> None:
    """If it failed, a shape that a few bytes announce could make the service lay out memory without end."""
    tensors = [{**each, "shape": shape} for each in TENSORS]
    headers, tail = {}, b""
    if as_bytes:
        tail = struct.pack(f"<{elements}d", *[40.0] * elements)
        tensors[0] = {"name": "humidity", "datatype": "FP64", "shape": shape}
        tensors[0]["parameters"] = {"binary_data_size": len(tail)}
    else:
        tensors[0] = {**tensors[0], "data": [40.0] * elements}
    head = json.dumps({"inputs": tensors}).encode()
    if as_bytes:
        headers["Inference-Header-Content-Length"] = str(len(head))
    tracemalloc.start()
    try:
        answer = await serving.client.post("/v2/models/rain/infer", content=head + tail, headers=headers)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413, answer.text
    assert answer.json()["error"] == f"the request has {shape[0]} rows, expected at most 50; send several requests"
    assert most < 4_000_000  # of whatever it is that the first request of a process loads
    assert serving.events.events == []


async def test_acknowledged_capture_waits_for_the_broker(serving: Serving) -> None:
    """If it failed, a model whose predictions must be on record would answer without recording them."""
    await serving.learn(applied(rain_spec(capture="acknowledged"), 2))
    good = await serving.client.post("/v2/models/rain/infer", json={"inputs": TENSORS})
    assert good.status_code == 200
    (event,) = [PredictionMade.model_validate_json(each.value) for each in serving.events.events]
    assert [each.arm for each in event.shadows] == ["shadow"]
    serving.events.away = True
    bad = await serving.client.post("/v2/models/rain/infer", json={"inputs": TENSORS})
    assert bad.status_code == 503
    assert "could not be recorded, as model 'rain' requires (the broker is away); try again" in bad.json()["error"]
    assert serving.meter.counts["tailrace_capture_lost_total", "rain"] == 1


async def test_tracing_header_travels_with_the_event(serving: Serving) -> None:
    """If it failed, an inference could not be followed over its hops."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await serving.client.post("/v2/models/rain/infer", json={"inputs": TENSORS}, headers={"traceparent": parent})
    await serving.published()
    assert serving.events.events[0].trace == parent.encode()
