"""Requests that nobody means well with: every one gets a 4xx and a sentence, and the service goes on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from services.serving.tests.hostile import corpus, tensors
from tailrace_serving.answering import Front, Limits
from tailrace_serving.app import capture_of, explanations_of
from tailrace_serving.capture import Capture
from tailrace_serving.domain.arms import Arms, Loaded, Table
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.handlers import Desk
from tailrace_serving.http import application
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    FakeArtefacts,
    FakeEventLog,
    FakeMeter,
    FakePredictor,
    FixedClock,
    claim_check,
    rain_spec,
)
from tailrace_testing import eventually

INTERNALS = re.compile(
    r"Traceback|File \"|/site-packages|\.py\b|tailrace_|msgspec|starlette|object at 0x|\bline \d|Error\b"
)
CORPUS = corpus()
REFERENCE = claim_check("reference")
ARTEFACTS = FakeArtefacts()
ARTEFACTS.references[REFERENCE.sha256] = [RAIN]
EXPLANATIONS = explanations_of(ServingSettings(), ARTEFACTS, FakeMeter())


def test_corpus_is_large_and_of_all_kinds() -> None:
    """If it failed, the tests below would prove less than they say."""
    kinds = Counter(each.category for each in CORPUS)
    assert len(CORPUS) >= 600
    assert min(kinds.values()) >= 10
    assert len(kinds) == 11


@pytest.fixture
async def capture() -> AsyncIterator[Capture]:
    """The capture of the service, running."""
    made = capture_of(ServingSettings(capture_linger_seconds=0), FakeEventLog(), FakeMeter(), EXPLANATIONS)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(capture: Capture) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with one champion."""
    spec, table = rain_spec(), Table()
    table.swap(Arms("rain", spec, FeatureRules(spec), Loaded(1, None, "torch", "1", FakePredictor(), REFERENCE)))
    desk = Desk(FixedClock(), lambda: "made", FakeMeter())
    front = Front(table, lambda: None, capture, desk, Limits(100_000, 50), EXPLANATIONS)
    transport = httpx.ASGITransport(application(front))
    async with httpx.AsyncClient(transport=transport, base_url="http://serving") as made:
        yield made


@pytest.mark.parametrize("category", sorted({each.category for each in CORPUS}))
async def test_hostile_requests_get_a_sentence(client: httpx.AsyncClient, capture: Capture, category: str) -> None:
    """If it failed, a stranger could crash the service, fill it, or read its insides."""
    for each in (one for one in CORPUS if one.category == category):
        answer = await client.post(each.path, content=each.body, headers=each.headers)
        note = f"{each.path} {each.body[:300]!r} {each.headers}: {answer.status_code} {answer.text[:500]}"
        assert 400 <= answer.status_code < 500, note
        sentence = answer.json()["error"]
        assert 10 < len(sentence) < 600, note
        assert sentence.isprintable(), note
        assert not INTERNALS.search(sentence), note
    good = await client.post("/v2/models/rain/infer", json={"inputs": tensors()})
    assert good.status_code == 200
    explained = await client.post("/v2/models/rain/explain", json={"inputs": tensors()})
    assert explained.status_code == 200
    await eventually(lambda: capture.buffer.published["rain"] == 2)
