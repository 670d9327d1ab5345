"""More models than memory has room for: what is loaded at the start, at a swap and when it is asked, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.serving.tests.test_serving_live import Site, connected, network, until_ready
from tailrace_contracts.events import ClaimCheck, Event
from tailrace_contracts.spec import ModelSpec
from tailrace_models import ONNX
from tailrace_runtime.testing import record
from tailrace_serving.consumers import Loader
from tailrace_serving.domain.arms import ArmFailed, Predictor, Table
from tailrace_serving.main import TOPICS_IN
from tailrace_serving.shelf import BYTES_HELD, OVERHEAD_BYTES, Shelf, Shelved, WhileRoom
from tailrace_serving.testing import (
    RAIN,
    FakeArtefacts,
    FakeMeter,
    FakePredictor,
    applied,
    deployed,
    digest,
    rain_spec,
    versioned,
)
from tailrace_testing import Broker

ONE_BYTES = OVERHEAD_BYTES + BYTES_HELD
SPEC = rain_spec()


class SlowStore(FakeArtefacts):
    """Artefacts that take a while, and how many models were loaded or on their way whenever one was asked for."""

    def __init__(self, shelf_of: list[Shelf]) -> None:
        super().__init__()
        self.held: list[int] = []
        self._shelf_of = shelf_of

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Predictor:
        """The predictor, some turns of the loop later. Raises ArtefactUnusable."""
        (shelf,) = self._shelf_of
        self.held.append(shelf._held() // ONE_BYTES)
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().load(claim, spec)


class Models:
    """A process with so many models deployed and room for fewer, around its fakes."""

    def __init__(self, room: int) -> None:
        shelves: list[Shelf] = []
        self.store, self.meter, self.table = SlowStore(shelves), FakeMeter(), Table()
        self.shelf = Shelf(self.store, room * ONE_BYTES, self.meter)
        shelves.append(self.shelf)
        self.loader = Loader(
            TOPICS_IN, self.table, self.shelf, self.meter, retry_seconds=60, at_start=WhileRoom(self.shelf)
        )

    def deploy(self, model: str, version: int = 1) -> None:
        """Let the registry's events arrive."""
        artefact = f"{model}-{version}"
        self.store.predictors[digest(artefact)] = FakePredictor(0.75)
        events: list[tuple[Event, str]] = [
            (versioned(version, artefact, model=model), "model-versions"),
            (deployed(version, model=model, sequence=version), "deployments"),
        ]
        if version == 1:
            events.insert(0, (applied(rain_spec(model=model)), "model-specs"))
        for event, topic in events:
            self.loader.on_event(event, record(event, topic))

    def champion(self, model: str) -> Shelved:
        """What answers for a model."""
        arms = self.table.find(model)
        assert arms.champion is not None
        assert isinstance(arms.champion.predictor, Shelved)
        return arms.champion.predictor

    def loaded(self) -> set[str]:
        """The models that are loaded."""
        return {arms.model for arms in self.table if self.champion(arms.model).predictor is not None}


NAMES = [f"model-{number}" for number in range(200)]


async def test_start_with_more_models_than_room_loads_what_fits() -> None:
    """If it failed, a process with many models would load all of them at its start, to put most of them away again."""
    models = Models(room=20)
    for name in NAMES:
        models.deploy(name)
    await models.loader.start()
    try:
        assert models.loader.waiting() is None
        assert models.loaded() == set(NAMES[:20])
        assert len(models.store.loads) == 20
        assert ("tailrace_models_put_away_total",) not in models.meter.counts
        for name in NAMES:
            assert [each.prediction for each in await models.champion(name).predict([RAIN])] == [1]
            assert name in models.loaded()
            assert len(models.loaded()) <= 20
        assert len(models.store.loads) == 200
        assert models.meter.gauges["tailrace_models_loaded"] == 20
        assert models.meter.counts["tailrace_models_put_away_total",] == 180
    finally:
        await models.loader.stop()


async def test_new_version_is_loaded_before_it_is_asked_however_full_memory_is() -> None:
    """If it failed, the first request after a swap would wait for the new version, or a bad one would take its place."""
    models = Models(room=3)
    for name in NAMES[:9]:
        models.deploy(name)
    await models.loader.start()
    try:
        used = models.champion(NAMES[0])
        await used.predict([RAIN])
        models.deploy(NAMES[5], version=2)
        await models.loader._bring_up_to_date(models.shelf)
        loads = len(models.store.loads)
        assert models.champion(NAMES[5]).predictor is not None
        await models.champion(NAMES[5]).predict([RAIN])
        assert len(models.store.loads) == loads
        assert used.predictor is not None  # asked more recently than the two others that were loaded
        del models.store.predictors[digest(f"{NAMES[6]}-1")]
        models.deploy(NAMES[7], version=2)
        del models.store.predictors[digest(f"{NAMES[7]}-2")]
        await models.loader._bring_up_to_date(models.shelf)
        assert [each.prediction for each in await models.champion(NAMES[7]).predict([RAIN])] == [1]  # still version 1
        with pytest.raises(ArmFailed, match="it was put away and cannot be loaded: artefact"):
            await models.champion(NAMES[6]).predict([RAIN])
        assert models.meter.counts["tailrace_artefact_failures_total", NAMES[6]] == 1
    finally:
        await models.loader.stop()


async def test_burst_of_questions_to_cold_models_keeps_to_the_bound() -> None:
    """If it failed, a burst would load every model that it asks at once, however many there are."""
    models = Models(room=4)
    for name in NAMES:
        models.deploy(name)
    await models.loader.start()
    try:
        cold = [models.champion(name) for name in NAMES[4:] for _ in range(3)]
        found = await asyncio.gather(*(each.predict([RAIN]) for each in cold))
        assert {answer.prediction for answers in found for answer in answers} == {1}
        assert len(models.store.loads) == 200  # each once, although three asked for it
        assert max(models.store.held) <= 4 + 1  # the one that has just come back, and is answering
    finally:
        await models.loader.stop()


async def test_whoever_gives_up_leaves_the_others_waiting() -> None:
    """If it failed, a model that takes longer to load than a request may last would never be there."""
    models = Models(room=1)
    for name in NAMES[:2]:
        models.deploy(name)
    await models.loader.start()
    try:
        cold = models.champion(NAMES[1])
        hasty, patient = (asyncio.create_task(cold.predict([RAIN])) for _ in range(2))
        await asyncio.sleep(0)
        hasty.cancel()
        assert [each.prediction for each in await patient] == [1]
        assert models.store.loads.count(digest(f"{NAMES[1]}-1")) == 1
        assert hasty.cancelled()
    finally:
        await models.loader.stop()


# ---------------------------------------------------------------- a real process

COUNT, ROOM = 12, 4


@pytest.fixture
async def site(kafka: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """A deployment of a dozen networks."""
    async with Site(kafka.bootstrap, kafka.unique("shelf") + "-", tmp_path) as made:
        claim = await made.artefact(network(SPEC, 1.0), ONNX)
        for name in NAMES[:COUNT]:
            spec = rain_spec(model=name)
            await made.publish(applied(spec), versioned(1, claim, model=name), deployed(1, model=name))
        yield made


async def ask(client: httpx.AsyncClient, model: str) -> None:
    """One good question."""
    answer = await client.post(f"/v1/models/{model}/predict", json={"features": RAIN})
    assert (answer.status_code, answer.json()["prediction"]) == (200, 1), answer.text


async def test_process_with_more_models_than_room_answers_for_all(site: Site) -> None:
    """If it failed, a process with many models would not start, or would answer for some of them only."""
    each = OVERHEAD_BYTES + BYTES_HELD * (await site.artefact(network(SPEC, 1.0), ONNX)).size_bytes
    process = site.process(TAILRACE_MAX_LOADED_BYTES=str(ROOM * each))
    process.start()
    async with connected(process) as client:
        await until_ready(client)
        assert await process.metric("tailrace_models_loaded") == ROOM
        assert await process.metric("tailrace_models_put_away_total") == 0
        await asyncio.gather(*(ask(client, name) for name in NAMES[:COUNT]))
        assert await process.metric("tailrace_models_loaded") <= ROOM + 1
        for name in NAMES[:COUNT]:
            await ask(client, name)
        assert await process.metric("tailrace_models_loaded") == ROOM
    assert await process.told_to_stop(60) == 0
