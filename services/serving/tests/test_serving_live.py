"""Serving on a real broker: real artefacts, real clients, swaps under load, a broker that goes away, a stop under load."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tailrace_contracts.events import (
    ClaimCheck,
    DeploymentChanged,
    Event,
    PredictionMade,
    ServingMeasured,
    SpecApplied,
    VersionChanged,
)
from tailrace_contracts.spec import ModelSpec, OnlineLearner
from tailrace_models import ONNX, RIVER, RiverModel, column_names
from tailrace_runtime.follower import Follower
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.service import Service
from tailrace_runtime.topics import create_all
from tailrace_serving.app import create_service
from tailrace_serving.main import MEASUREMENTS_OUT, REQUESTS_IN, TOPIC_OUT, TOPICS_IN
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import RAIN, applied, deployed, rain_spec, versioned
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference
from tailrace_testing import Broker, OwnBroker, ServiceProcess, eventually

COMPOSE = Path(__file__).parents[3] / "docker-compose.yml"
KEY = b"a key for tests, 32 bytes or more"
SPEC = rain_spec()
TENSORS = [
    {"name": name, "datatype": "BYTES" if name == "sky" else "FP64", "shape": [1], "data": [value]}
    for name, value in RAIN.items()
]


def network(spec: ModelSpec, bias: float = 0.0) -> bytes:
    """A network with one layer that looks at the bias only."""
    columns = len(column_names(spec))
    weights = numpy_helper.from_array(np.zeros((columns, 1), dtype=np.float32), "weights")
    shift = numpy_helper.from_array(np.array([bias], dtype=np.float32), "bias")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])],
        [weights, shift],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def river(spec: ModelSpec, examples: int = 50) -> bytes:
    """A river pipeline that has seen rain at every example."""
    model = RiverModel.build(OnlineLearner(), spec)
    for number in range(examples):
        model.learn({**RAIN, "humidity": 40.0 + number % 20}, 1)
    return model.to_envelope(KEY)


class Site:
    """A deployment of Tailrace with nothing in it but serving; the test speaks for the registry."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        key_file = folder / "signing.key"
        key_file.write_bytes(KEY + b"\n")
        (folder / "objects").mkdir()
        self.folder = folder
        self.settings = ServingSettings(
            kafka_bootstrap=bootstrap,
            topic_prefix=prefix,
            object_store=f"file://{folder}/objects",
            signing_key_file=key_file,
            port=0,
            log_level="warning",
            artefact_retry_seconds=0.2,
        )
        self.objects = ObjectStore.from_url(self.settings.object_store)
        self.producer = Producer(self.settings)
        self.predictions: dict[str, PredictionMade] = {}
        self.times_published = 0
        self._follower = Follower(self.settings, TOPIC_OUT, self._note)
        self._processes: list[ServiceProcess] = []

    async def __aenter__(self) -> Self:
        """Create the topics and listen to what serving publishes."""
        await create_all(self.settings)
        await self.producer.start()
        await self._follower.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect, and leave no process behind."""
        for process in self._processes:
            process.kill()
        await self._follower.stop()
        await self.producer.stop()

    def _note(self, event: Event | None, _: Record) -> None:
        assert isinstance(event, PredictionMade)
        self.times_published += 1
        self.predictions[event.prediction_id] = event

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a process of this deployment is started with; with a port, beside everything that this process has."""
        given = {} if port is None else {**os.environ, "TAILRACE_PORT": str(port)}
        return {
            **given,
            "TAILRACE_KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap,
            "TAILRACE_TOPIC_PREFIX": self.settings.topic_prefix,
            "TAILRACE_OBJECT_STORE": self.settings.object_store,
            "TAILRACE_SIGNING_KEY_FILE": str(self.settings.signing_key_file),
        }

    def process(self, **settings: str) -> ServiceProcess:
        """A process of this deployment, under a name of its own; not started yet."""
        name = f"serving-{len(self._processes)}"
        given = {
            **self.environment(),
            "TAILRACE_INSTANCE": name,
            "TAILRACE_STATE_DIR": str(self.folder / name),
            **settings,
        }
        made = ServiceProcess(name, ["-m", "tailrace_serving.main"], self.folder / f"{name}.log", **given)
        self._processes.append(made)
        return made

    async def publish(self, *events: SpecApplied | VersionChanged | DeploymentChanged) -> None:
        """Say what the registry would say."""
        for event in events:
            if isinstance(event, VersionChanged):
                made = outgoing(event, "model-versions", f"{event.model}|{event.version}")
            else:
                made = outgoing(event, "model-specs" if isinstance(event, SpecApplied) else "deployments", event.model)
            await self.producer.send_all([made])

    async def artefact(self, data: bytes, media_type: str) -> ClaimCheck:
        """Put an artefact into the object store."""
        return await self.objects.put_artefact(data, media_type)

    async def champion(self, bias: float = 1.0) -> None:
        """Deploy a network as version 1."""
        claim = await self.artefact(network(SPEC, bias), ONNX)
        await self.publish(applied(SPEC), versioned(1, claim), deployed(1))


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """The service, running in this process until the block ends, and a client."""
    service = create_service(TOPICS_IN, REQUESTS_IN, TOPIC_OUT, MEASUREMENTS_OUT, site.settings)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        await eventually(lambda: service.port or task.done())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
            await until_ready(client)
            yield service, client
    finally:
        stop.set()
        await task


async def until_ready(client: httpx.AsyncClient) -> None:
    """Return when the service says that it is ready."""

    async def ready() -> bool:
        try:
            return (await client.get("/v2/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    await eventually(ready)


async def asked(client: httpx.AsyncClient, prediction_id: str, **more: Any) -> dict[str, Any]:
    """The answer to one good question."""
    body = {"features": RAIN, "prediction_id": prediction_id, **more}
    answer = await client.post("/v1/models/rain/predict", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def site(kafka: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """A deployment on the session's broker."""
    async with Site(kafka.bootstrap, kafka.unique("serving") + "-", tmp_path) as made:
        yield made


async def test_real_client_real_artefacts_real_topic(site: Site) -> None:
    """If it failed, no client of the protocol could use a model that training has made."""
    first, second = await site.artefact(network(SPEC, 1.0), ONNX), await site.artefact(river(SPEC), RIVER)
    await site.publish(applied(SPEC), versioned(1, first), versioned(2, second, revision=4), deployed(1, shadows=(2,)))
    async with running(site) as (service, _):
        client = InferenceServerClient(f"127.0.0.1:{service.port}")
        in_json = InferRequestedOutput("probability", binary_data=False)
        try:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("rain")
            assert (await client.get_model_metadata("rain"))["versions"] == ["1", "2.4"]
            assert (await client.get_server_metadata())["extensions"] == ["binary_tensor_data"]
            assert await client.is_model_ready("rain", "2.4")
            ids = {"prediction_ids": '["a", "b", "c"]'}
            result = await client.infer("rain", inputs(3), request_id="r-1", parameters=ids)
            newest = await client.infer("rain", inputs(1, binary=False), model_version="2.4", outputs=[in_json])
            with pytest.raises(InferenceServerException, match="feature 'humidity' is NaN"):
                await client.infer("rain", inputs(1, humidity=math.nan))
        finally:
            await client.close()
    assert result.as_numpy("prediction").tolist() == [1, 1, 1]
    assert result.as_numpy("probability") == pytest.approx([0.7310586] * 3)
    assert result.as_numpy("prediction_id").tolist() == [b"a", b"b", b"c"]
    assert result.get_response()["id"] == "r-1"
    assert newest.as_numpy("probability").shape == (1,)
    assert newest.get_response()["parameters"] == {"arm": "shadow", "version": 2, "revision": 4}
    await eventually(lambda: len(site.predictions) == 4)
    event = site.predictions["b"]
    assert event.features == {**RAIN, "humidity": 41.0}
    assert event.served is not None
    assert event.served.version == 1
    assert [(each.arm, each.version, each.revision) for each in event.shadows] == [("shadow", 2, 4)]


async def test_real_client_learns_what_does_not_answer(site: Site) -> None:
    """If it failed, a client of the protocol would wait for a version that is not there, or send to one that cannot answer."""
    await site.champion()
    snow = rain_spec(model="snow")
    nowhere = (await site.artefact(network(snow, 1.0), ONNX)).model_copy(update={"key": "sha256/nowhere"})
    async with running(site) as (service, _):
        await site.publish(applied(snow), versioned(1, nowhere, model="snow"), deployed(1, model="snow"))
        client = InferenceServerClient(f"127.0.0.1:{service.port}")
        try:

            async def heard_of_snow() -> bool:
                return not await client.is_server_ready()

            await eventually(heard_of_snow)
            assert await client.is_server_live()
            assert not await client.is_model_ready("snow")
            assert not await client.is_model_ready("rain", "2")
            assert not await client.is_model_ready("hail")
            assert await client.is_model_ready("rain", "1")
            one = await client.get_model_metadata("rain", "1")
            assert (one["versions"], one["platform"]) == (["1"], "tailrace_torch")
            assert {each["name"]: each["datatype"] for each in one["inputs"]} == DATATYPES_SAID
            with pytest.raises(InferenceServerException, match="version '2' of model 'rain' is not served"):
                await client.get_model_metadata("rain", "2")
            for asked_of, wrong, status, sentence in REFUSED_TO_CLIENTS:
                with pytest.raises(InferenceServerException, match=sentence) as refused:
                    await client.infer(asked_of, wrong())
                assert refused.value.status() == status
            assert (await client.infer("rain", inputs(1))).as_numpy("prediction").tolist() == [1]
        finally:
            await client.close()


async def test_why_a_real_model_answered_is_on_its_topic(site: Site) -> None:
    """If it failed, a decision could not be explained later as it was."""
    spec = rain_spec(serving={"explanations": {"sample": 1}})
    learner, given = await site.artefact(river(spec), RIVER), await site.artefact(network(spec, 1.0), ONNX)
    rows = [{**RAIN, "humidity": float(number)} for number in range(150)]
    reference = await site.artefact(Reference.build(spec, rows).to_bytes(), REFERENCE)
    versions = [versioned(1, learner, revision=4), versioned(2, given), versioned(3, given)]
    versions[2] = versions[2].model_copy(update={"reference": reference})
    await site.publish(applied(spec), *versions, deployed(1, shadows=(2, 3)))
    async with running(site) as (_, client):
        live = await asked(client, "live")
        answer = await client.post("/v1/models/rain/explain", json={"features": RAIN, "prediction_id": "asked"})
        path = "/v2/models/rain/versions/{}/explain"
        body = {"inputs": TENSORS, "parameters": {"prediction_id": "third"}}
        refused = await client.post(path.format(2), json=body)
        third = await client.post(path.format(3), json=body)
    assert (refused.status_code, refused.json()["error"][:42]) == (409, "the version has no reference rows to expla")
    assert third.json()["parameters"]["reference_sha256"] == reference.sha256
    assert third.json()["parameters"]["reference_rows"] == 100
    await eventually(lambda: len(site.predictions) == 3)
    told = site.predictions["asked"].explanation
    assert told is not None
    assert answer.json()["explanation"] == told.model_dump()
    assert (told.method, told.scale, told.reference_rows) == ("linear-exact", "log-odds", 50)
    assert told.base_value + sum(told.contributions.values()) == pytest.approx(told.output, rel=1e-9)
    assert 1 / (1 + math.exp(-told.output)) == pytest.approx(answer.json()["probability"], rel=1e-9)
    drawn = site.predictions["live"]
    assert drawn.served is not None
    assert drawn.served.probability == live["probability"]
    assert drawn.explanation == told
    assert [each.version for each in drawn.shadows] == [2, 3]


async def test_how_versions_answered_is_told_on_its_topic(site: Site) -> None:
    """If it failed, nobody could see on Kafka that a version fails or became slow."""
    told: list[ServingMeasured] = []
    follower = Follower(
        site.settings,
        MEASUREMENTS_OUT,
        lambda event, _: told.append(event) if isinstance(event, ServingMeasured) else None,
    )
    await follower.start()
    await site.champion()
    async with running(site) as (_, client):
        for number in range(5):
            await asked(client, f"m-{number}")
    await eventually(lambda: sum(arm.answered for each in told for arm in each.arms) == 5)
    await follower.stop()
    (process,) = {each.process for each in told}
    assert process.startswith(site.settings.instance)
    assert [each.sequence for each in told] == list(range(1, len(told) + 1))
    assert 1 <= sum(count for each in told for arm in each.arms for count in arm.durations.values()) <= 5


def inputs(rows: int, *, binary: bool = True, humidity: float = 40) -> list[InferInput]:
    """The question as a client of the protocol asks it: as bytes, or as JSON."""
    columns: dict[str, np.ndarray[Any, Any]] = {
        "humidity": (humidity + np.arange(rows, dtype=np.float64)).reshape(rows, 1),
        "pressure": np.full((rows, 1), 1000, dtype=np.int64),
        "wind": np.full((rows, 1), 3.0, dtype=np.float32),
        "sky": np.full((rows, 1), "clear", dtype=np.object_),
    }
    datatypes = {"humidity": "FP64", "pressure": "INT64", "wind": "FP32", "sky": "BYTES"}
    made = []
    for name, column in columns.items():
        tensor = InferInput(name, list(column.shape), datatypes[name])
        tensor.set_data_from_numpy(column, binary_data=binary)
        made.append(tensor)
    return made


DATATYPES_SAID = {"humidity": "FP64", "pressure": "FP64", "wind": "FP64", "sky": "BYTES"}
REFUSED_TO_CLIENTS: list[tuple[str, Callable[[], list[InferInput]], str, str]] = [
    ("rain", lambda: inputs(1, humidity=940), "422", "feature 'humidity' is 940, expected 0 to 100"),
    ("rain", lambda: inputs(1)[1:], "422", "feature 'humidity' is missing, expected a number"),
    ("rain", lambda: [*inputs(1), inputs(1)[0]], "400", "input 'humidity' is given twice"),
    ("rain", lambda: inputs(1001), "413", "the request has 1001 rows, expected at most 1000"),
    ("hail", lambda: inputs(1), "404", "model 'hail' is unknown; models known here: rain, snow"),
    ("snow", lambda: inputs(1), "503", "champion 1 of model 'snow' cannot answer"),
]


async def test_swaps_under_load_fail_no_request(site: Site) -> None:
    """If it failed, every revision of an online learner would cost some requests."""
    await site.champion()
    claims = [await site.artefact(river(SPEC, examples), RIVER) for examples in (10, 20)]
    async with running(site) as (_, client):
        seen: list[tuple[int, int | None]] = []
        over = asyncio.Event()

        async def ask(worker: int) -> None:
            number = 0
            while not over.is_set():
                answer = await asked(client, f"{worker}-{number}")
                seen.append((answer["version"], answer.get("revision")))
                number += 1

        workers = [asyncio.create_task(ask(worker)) for worker in range(4)]
        try:
            await site.publish(versioned(2, claims[0], revision=0), deployed(2, sequence=2))
            for revision in range(1, 41):
                await site.publish(versioned(2, claims[revision % 2], revision=revision))
            await eventually(lambda: (2, 40) in seen)
        finally:
            over.set()
            await asyncio.gather(*workers)
        assert seen[0] == (1, None)
        assert len({revision for _, revision in seen}) > 3
    await eventually(lambda: len(site.predictions) == len(seen))
    assert site.times_published == len(seen)
    served = sorted(
        (made.served.version or 0, made.served.revision or 0) for made in site.predictions.values() if made.served
    )
    assert served == sorted((version, revision or 0) for version, revision in seen)


async def test_damaged_and_forged_artefacts_do_not_serve(site: Site) -> None:
    """If it failed, changed bytes or a stranger's pickle would answer for the model, or take it off the air."""
    await site.champion()
    damaged = await site.artefact(network(SPEC, 2.0), ONNX)
    path = next(path for path in (site.folder / "objects").rglob(f"*{damaged.sha256}*") if path.is_file())
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"?")
    forged = await site.artefact(RiverModel.build(OnlineLearner(), SPEC).to_envelope(b"another key"), RIVER)
    async with running(site) as (service, client):
        await site.publish(
            versioned(2, damaged), versioned(3, forged, revision=0), deployed(2, shadows=(3,), sequence=2)
        )

        async def told() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get("/v2/models/rain/ready")).json()["parameters"]
            return found if {"problem_2", "problem_3"} <= set(found) else {}

        problems = await eventually(told)
        assert damaged.sha256[:8] in problems["problem_2"]
        assert "sign" in problems["problem_3"]
        assert (await asked(client, "p"))["version"] == 1
        assert service.metrics.value("tailrace_artefact_failures_total", model="rain") >= 2
        path.write_bytes(good)

        async def mended() -> bool:
            return bool((await asked(client, "again"))["version"] == 2)

        await eventually(mended)


@pytest.mark.timeout(180)
async def test_broker_stopped_and_started_loses_nothing(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """If it failed, a restart of the broker would fail inferences or leave holes in the record."""
    broker = await asyncio.to_thread(broker_of_its_own)
    async with Site(broker.bootstrap, "away-", tmp_path) as site:
        await site.champion()
        async with running(site) as (service, client):
            for number in range(20):
                await asked(client, f"before-{number}")
            await asyncio.to_thread(broker.stop)
            for number in range(100):
                await asked(client, f"during-{number}")
            assert (await client.get("/v2/health/ready")).status_code == 200
            await asyncio.to_thread(broker.start)
            for number in range(20):
                await asked(client, f"after-{number}")
            await eventually(lambda: len(site.predictions) == 140, 60)
            await eventually(
                lambda: outcome(service, "captured") == 140, 60
            )  # acknowledged after it is there to be read
            assert outcome(service, "capture_lost") == 0


@pytest.mark.timeout(240)
async def test_broker_away_for_long_under_load_counts_what_it_loses(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """If it failed, a long outage would fail inferences, fill the memory, or lose events that nobody counted."""
    broker = await asyncio.to_thread(broker_of_its_own)
    async with Site(broker.bootstrap, "long-", tmp_path) as site:
        site.settings = site.settings.model_copy(update={"capture_max_events": 300})
        await site.champion()
        async with running(site) as (service, client):
            answered: list[str] = []
            over = asyncio.Event()

            async def ask(worker: int) -> None:
                while not over.is_set():
                    answer = await asked(client, f"{worker}-{len(answered)}-{worker}")
                    answered.append(answer["prediction_id"])

            workers = [asyncio.create_task(ask(worker)) for worker in range(4)]
            await eventually(lambda: len(answered) > 50)
            await asyncio.to_thread(broker.stop)
            until = len(answered) + 800
            await eventually(lambda: len(answered) > until, 60)
            assert service.metrics.value("tailrace_capture_held") <= 300
            await asyncio.to_thread(broker.start)
            until = len(answered) + 50
            await eventually(lambda: len(answered) > until, 60)
            over.set()
            await asyncio.gather(*workers)

            def settled() -> bool:
                return len(answered) == sum(outcome(service, name) for name in ("captured", "capture_lost"))

            await eventually(settled, 60)
            assert outcome(service, "capture_lost") > 0
            await eventually(lambda: len(site.predictions) == outcome(service, "captured"), 60)
            assert set(site.predictions) <= set(answered)


def outcome(service: Service, name: str) -> float:
    """How many predictions ended so."""
    return service.metrics.value(f"tailrace_{name}_total", model="rain")


async def test_terminated_under_load_answers_and_publishes_what_it_took(site: Site) -> None:
    """If it failed, every rolling update would lose requests, or predictions that were answered."""
    await site.champion()
    process = site.process()
    process.start()
    async with connected(process) as client:
        await until_ready(client)
        answered: list[str] = []

        async def ask(worker: int) -> None:
            for number in range(100_000):
                try:
                    answer = await asked(client, f"{worker}-{number}")
                except httpx.TransportError:
                    return
                answered.append(answer["prediction_id"])

        workers = [asyncio.create_task(ask(worker)) for worker in range(3)]
        await eventually(lambda: len(answered) > 100)
        assert await process.told_to_stop(20) == 0
        await asyncio.gather(*workers)
    await eventually(lambda: set(answered) <= set(site.predictions))


LYING = (
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n{}",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n{}",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n{}",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{}\r\n",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{}",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"POST /v1/models/rain/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
    b"POST /v1/models/rain/predict HTTP/9.9\r\n\r\n",
    b"POST /v1/models/rain/predict\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    b"\0" * 1000,
)


async def test_lying_lengths_on_the_wire(site: Site) -> None:
    """If it failed, a client that lies about its length would crash the service, or hold it for ever."""
    site.settings = site.settings.model_copy(update={"request_seconds": 1.0})
    await site.champion()
    async with running(site) as (service, client):
        for sent in LYING:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(65_536), 20)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 4"), (sent, answer)
            assert b"Traceback" not in answer
        assert (await asked(client, "still"))["prediction_id"] == "still"


@pytest.mark.timeout(400)
async def test_rolling_restart_loses_no_request(site: Site) -> None:
    """If it failed, every rolling update would cost its callers some requests."""
    await site.champion()
    processes = [site.process(TAILRACE_DRAIN_SECONDS=deployed_drain()) for _ in range(2)]
    answered: list[str] = []
    failures: list[str] = []
    over = asyncio.Event()

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(process)) for process in processes]
        for process, client in zip(processes, clients, strict=True):
            process.start()
            await until_ready(client)
        balancer = Balancer(clients)

        async def ask(worker: int) -> None:
            number = 0
            while not over.is_set():
                answer = await balancer.ask(f"{worker}-{number}")
                (answered if answer.status_code == 200 else failures).append(f"{worker}-{number} {answer.text[:200]}")
                number += 1

        watcher = asyncio.create_task(balancer.watch(over))
        workers = [asyncio.create_task(ask(worker)) for worker in range(4)]
        for process, client in zip(processes, clients, strict=True):
            until = len(answered) + 100
            await eventually(lambda until=until: len(answered) > until)  # type: ignore[misc]  # bound at once
            assert await process.told_to_stop(60) == 0
            process.start()
            await until_ready(client)
        until = len(answered) + 100
        await eventually(lambda: len(answered) > until)
        over.set()
        await asyncio.gather(watcher, *workers)
        assert failures == []
        await eventually(lambda: {each.split()[0] for each in answered} <= set(site.predictions))


def deployed_drain() -> str:
    """The drain that is deployed, so that what is proven is what runs."""
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return str(services["serving"]["environment"]["TAILRACE_DRAIN_SECONDS"])


class Balancer:
    """Sends each request to the next process that says that it is ready, as a load balancer does."""

    def __init__(self, clients: list[httpx.AsyncClient]) -> None:
        self._clients = clients
        self._ready = list(clients)
        self._turn = 0

    async def watch(self, over: asyncio.Event) -> None:
        """Ask every process for its readiness, many times a second."""
        while not over.is_set():
            answers = await asyncio.gather(*(_ready(client) for client in self._clients))
            self._ready = [client for client, ready in zip(self._clients, answers, strict=True) if ready]
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.05)

    async def ask(self, prediction_id: str) -> httpx.Response:
        """One question to one process; to another one only where nothing was sent, because nobody listens."""
        while True:
            self._turn += 1
            client = self._ready[self._turn % len(self._ready)]
            with suppress(httpx.ConnectError):
                return await client.post(
                    "/v1/models/rain/predict", json={"features": RAIN, "prediction_id": prediction_id}, timeout=30
                )
            await asyncio.sleep(0)


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/v2/health/ready", timeout=30)).status_code == 200
    except httpx.TransportError:
        return False


def connected(process: ServiceProcess) -> httpx.AsyncClient:
    """A client of this process."""
    return httpx.AsyncClient(base_url=process.base)
