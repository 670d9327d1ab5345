"""Serving from nothing: a process on another machine, with an empty disk, comes back to the same answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.serving.tests.test_serving_live import SPEC, Site, network, river
from tailrace_models import ONNX, RIVER
from tailrace_serving.testing import RAIN, applied, deployed, versioned
from tailrace_testing import Broker, eventually

QUESTIONS = 40


@pytest.fixture
async def site(kafka: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """A deployment on the session's broker."""
    async with Site(kafka.bootstrap, kafka.unique("again") + "-", tmp_path) as made:
        yield made


async def answers(site: Site) -> list[bytes]:
    """What a new process with a disk of its own answers to always the same questions; then it is killed."""
    process = site.process()
    process.start()
    try:
        await eventually(process.ready, seconds=60)
        async with httpx.AsyncClient(base_url=process.base) as client:
            found = []
            for number in range(QUESTIONS):
                question = {"features": {**RAIN, "humidity": 40.0 + number}, "prediction_id": f"q{number}"}
                answer = await client.post("/v1/models/rain/predict", json={**question, "entity": f"e{number % 7}"})
                assert answer.status_code == 200
                found.append(answer.content)
            found.append((await client.get("/v2/models/rain")).content)
            return found
    finally:
        process.kill()


async def test_a_new_process_with_an_empty_disk_gives_the_same_bytes(site: Site) -> None:
    """If it failed, a lost node would send users to other arms, or to other versions."""
    champion, canary = await site.artefact(network(SPEC, 1.0), ONNX), await site.artefact(river(SPEC), RIVER)
    shadow = await site.artefact(network(SPEC, -1.0), ONNX)
    await site.publish(applied(SPEC), versioned(1, champion), versioned(2, canary, revision=4), versioned(3, shadow))
    await site.publish(deployed(3), deployed(1, canary=(2, 40), shadows=(3,), sequence=2))
    first = await answers(site)
    again = await answers(site)
    assert first == again
    assert {b'"version":1' in each for each in first[:QUESTIONS]} == {True, False}
