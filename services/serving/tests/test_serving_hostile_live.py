"""The hostile corpus, all of it, over the wire to a real process with real models: it refuses, and goes on as before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.serving.tests.hostile import Hostile, corpus, tensors
from services.serving.tests.test_serving_hostile import INTERNALS
from services.serving.tests.test_serving_live import Site, connected, network, river, until_ready
from tailrace_models import ONNX, RIVER
from tailrace_serving.testing import RAIN, applied, deployed, rain_spec, versioned
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference
from tailrace_testing import Broker, ServiceProcess

LEARNER = "drizzle"
"""A model that a river pipeline answers for; `rain` is a network in ONNX."""


@pytest.fixture
async def site(kafka: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """Two models with a reference each, so that both answer and explain."""
    async with Site(kafka.bootstrap, kafka.unique("hostile") + "-", tmp_path) as made:
        rows = [{**RAIN, "humidity": float(number % 100)} for number in range(150)]
        for name, artefact, media_type, revision in (
            ("rain", network(rain_spec(), 1.0), ONNX, None),
            (LEARNER, river(rain_spec(model=LEARNER)), RIVER, 4),
        ):
            spec = rain_spec(model=name)
            claim = await made.artefact(artefact, media_type)
            reference = await made.artefact(Reference.build(spec, rows).to_bytes(), REFERENCE)
            version = versioned(1, claim, model=name, revision=revision)
            version = version.model_copy(update={"reference": reference})
            await made.publish(applied(spec), version, deployed(1, model=name))
        yield made


async def answers(client: httpx.AsyncClient) -> list[Any]:
    """What both models answer to good questions of every form, but for the ids."""
    found: list[Any] = []
    for model in ("rain", LEARNER):
        for verb in ("infer", "explain"):
            body = {"inputs": tensors(), "parameters": {"prediction_id": f"{model}-{verb}"}}
            answer = await client.post(f"/v2/models/{model}/{verb}", json=body)
            assert answer.status_code == 200, answer.text
            found.append(answer.json())
        rows = {"rows": [RAIN, RAIN], "prediction_ids": [f"{model}-a", f"{model}-b"]}
        answer = await client.post(f"/v1/models/{model}/predict", json=rows)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


class Wire:
    """A connection that sends whatever it is given: clients of good manners would refuse to send some of it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.opened = 0

    async def ask(self, each: Hostile) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self.opened += 1
        reader, writer = self._streams
        more = "".join(f"{name}: {value}\r\n" for name, value in each.headers.items())
        head = f"POST {each.path} HTTP/1.1\r\nhost: serving\r\ncontent-length: {len(each.body)}\r\n{more}\r\n"
        writer.write(head.encode("latin-1") + each.body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(status.split()[1]), body

    def close(self) -> None:
        """Let go of the connection; the next request gets a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def refused(wire: Wire, each: Hostile, model: str) -> None:
    """One hostile request to one of the models gets a 4xx and a sentence that tells nothing of the insides."""
    here = each._replace(path=each.path.replace("/models/rain/", f"/models/{model}/"))
    status, body = await asyncio.wait_for(wire.ask(here), 60)
    note = f"{here.path} {here.body[:300]!r} {here.headers}: {status} {body[:500]!r}"
    assert 400 <= status < 500, note
    sentence = json.loads(body)["error"]
    assert 10 < len(sentence) < 600, note
    assert sentence.isprintable(), note
    assert not INTERNALS.search(sentence), note


def process_of(site: Site) -> ServiceProcess:
    """A process with the limits that the corpus goes beyond."""
    return site.process(
        TAILRACE_MAX_BODY_BYTES="100000",
        TAILRACE_MAX_ROWS="50",
    )


@pytest.mark.timeout(300)
async def test_whole_corpus_against_a_process_with_real_models(site: Site) -> None:
    """If it failed, a stranger could bring down, confuse or read a service that the tests with fakes call safe."""
    process = process_of(site)
    process.start()
    async with connected(process) as client:
        await until_ready(client)
        before = await answers(client)
        wire = Wire(process.port)
        for model in ("rain", LEARNER):
            for each in corpus():
                await refused(wire, each, model)
        wire.close()
        for size in (100_001, 400_000, 1_500_000):  # clients that send all before they read
            answer = await client.post("/v2/models/rain/infer", content=b" " * size)
            assert answer.status_code == 413, size
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        assert await answers(client) == before
    assert process.ended is None
    assert await process.told_to_stop(60) == 0
    assert "Traceback" not in process.written()
    assert [each for each in faults(process) if not each["logger"].startswith("aiokafka")] == []


def faults(process: ServiceProcess) -> list[dict[str, Any]]:
    """What it has logged as an error."""
    lines = (json.loads(line) for line in process.written().splitlines() if line.startswith("{"))
    return [each for each in lines if each["level"] in {"error", "critical"}]
