"""Where models run and how many are loaded: slow ones beside the event loop, cold ones put away and brought back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import pytest

from tailrace_contracts.events import FeatureValue
from tailrace_models import ONNX, Reference, load
from tailrace_runtime.objects import ObjectStore
from tailrace_serving.adapters.artefacts import StoredArtefacts
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed
from tailrace_serving.running import InLine, Lane, Together
from tailrace_serving.shelf import BYTES_HELD, OVERHEAD_BYTES, Shelf
from tailrace_serving.testing import (
    RAIN,
    FakeAnswer,
    FakeArtefacts,
    FakeMeter,
    FakePredictor,
    claim_check,
    digest,
    rain_spec,
)
from tailrace_testing import eventually

SPEC = rain_spec()
ONE_BYTES = OVERHEAD_BYTES + BYTES_HELD
Rows = Sequence[Mapping[str, FeatureValue]]


class Slow:
    """Answers when it is let; tells rows apart by their humidity, and fails on a negative one."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls: list[int] = []

    def predict(self, rows: Rows) -> list[FakeAnswer]:
        """Its humidity as each row's answer."""
        self.calls.append(len(rows))
        assert self.go.wait(30)
        if any(float(row["humidity"] or 0) < 0 for row in rows):
            raise ArmFailed("below zero")
        return [FakeAnswer(float(row["humidity"] or 0), None) for row in rows]

    def explainer(self, _: Reference | None) -> None:
        """It has nothing to explain with."""


def row(humidity: float) -> dict[str, FeatureValue]:
    """A row that can be told from others."""
    return {**RAIN, "humidity": humidity}


async def test_slow_model_lets_others_go_on_and_gathers() -> None:
    """If it failed, one heavy model would hold up every other, and would answer one question at a time."""
    model = Slow()
    lane = Lane(model)
    first = asyncio.create_task(lane.predict([row(1.0)]))
    await eventually(lambda: model.calls == [1])
    others = [asyncio.create_task(lane.predict([row(number), row(number + 0.5)])) for number in range(2, 12)]
    await asyncio.sleep(0)
    model.go.set()
    assert [each.prediction for each in await first] == [1.0]
    for number, asked in enumerate(others, 2):
        assert [each.prediction for each in await asked] == [number, number + 0.5]
    assert model.calls == [1, 20]


async def test_question_that_fails_fails_alone() -> None:
    """If it failed, one caller's row would turn the answers of all who asked beside it into errors."""
    model = Slow()
    lane = Lane(model)
    first = asyncio.create_task(lane.predict([row(1.0)]))
    await eventually(lambda: model.calls == [1])
    good, bad, gone = (asyncio.create_task(lane.predict([row(each)])) for each in (2.0, -1.0, 3.0))
    await asyncio.sleep(0)
    gone.cancel()
    model.go.set()
    await first
    assert [each.prediction for each in await good] == [2.0]
    with pytest.raises(ArmFailed, match="below zero"):
        await bad
    assert [each.prediction for each in await lane.predict([row(4.0)])] == [4.0]


async def test_many_rows_in_line_let_others_in() -> None:
    """If it failed, a request with a thousand rows would stop all others while it is answered."""
    turns = 0

    class Counting:
        def predict(self, rows: Rows) -> list[ArmAnswer]:
            seen.append(turns)
            return [FakeAnswer(1, 0.5) for _ in rows]

        def explainer(self, _: Reference | None) -> None:
            """Nothing is explained here."""

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    beside = asyncio.create_task(other())
    assert len(await InLine(Counting()).predict([RAIN] * 100)) == 100
    beside.cancel()
    assert len(set(seen)) == len(seen) == 7


class Columns:
    """Answers many rows for little more than one, as a network does; fails on a negative humidity."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, rows: Rows) -> list[FakeAnswer]:
        """Its humidity as each row's answer."""
        self.calls.append(len(rows))
        if any(float(each["humidity"] or 0) < 0 for each in rows):
            raise ArmFailed("below zero")
        return [FakeAnswer(float(each["humidity"] or 0), None) for each in rows]

    def explainer(self, _: Reference | None) -> None:
        """It has nothing to explain with."""


async def test_requests_of_one_turn_are_asked_together() -> None:
    """If it failed, a network would be called for each request, at many times the price; or answers be mixed up."""
    model = Columns()
    together = Together(model)
    found = await asyncio.gather(*(together.predict([row(each), row(each + 0.5)]) for each in range(40)))
    assert [[each.prediction for each in answers] for answers in found] == [[each, each + 0.5] for each in range(40)]
    assert model.calls == [64, 16]
    assert [each.prediction for each in await together.predict([row(7.0)])] == [7.0]


async def test_one_request_asked_together_fails_alone() -> None:
    """If it failed, one caller's row would turn the answers of all who asked in the same turn into errors."""
    together = Together(Columns())
    good, bad, gone = (asyncio.create_task(together.predict([row(each)])) for each in (2.0, -1.0, 3.0))
    await asyncio.sleep(0)
    gone.cancel()
    assert [each.prediction for each in await good] == [2.0]
    with pytest.raises(ArmFailed, match="below zero"):
        await bad


async def test_nothing_is_asked_for_nobody_or_twice() -> None:
    """If it failed, a model that is late would be asked once more for callers who gave up, or for one that it failed."""
    model = Columns()
    together = Together(model)
    gone = asyncio.create_task(together.predict([row(1.0)]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    with pytest.raises(ArmFailed, match="below zero"):
        await together.predict([row(-1.0)])
    assert model.calls == [1]


async def test_row_that_is_timed_is_asked_alone() -> None:
    """If it failed, a version would look as slow as all that was asked beside it."""
    model = Columns()
    together = Together(model)
    beside = asyncio.create_task(together.predict([row(1.0)]))
    await asyncio.sleep(0)
    await together.predict([row(2.0)], alone=True)
    assert model.calls == [1]
    await beside
    assert model.calls == [1, 1]


async def test_speed_decides_where_a_model_runs(small_network: bytes) -> None:
    """If it failed, a heavy network would run on the event loop, or a small one pay for a thread."""
    objects = ObjectStore.from_url("memory:///")
    claim = await objects.put_artefact(small_network, ONNX)
    assert isinstance(await StoredArtefacts(objects, b"key", 60).load(claim, SPEC), Together)
    lane = await StoredArtefacts(objects, b"key", 0).load(claim, SPEC)
    assert isinstance(lane, Lane)
    asked = [{**RAIN, "humidity": float(number)} for number in range(300)]
    found = await asyncio.gather(*(lane.predict(asked[start : start + 3]) for start in range(0, 300, 3)))
    expected = load(ONNX, small_network, signing_key=b"", spec=SPEC).predict(asked)
    assert [answer for part in found for answer in part] == expected


class Shelves:
    """A shelf with room for so many models of one byte."""

    def __init__(self, room: int) -> None:
        self.artefacts = FakeArtefacts()
        self.meter = FakeMeter()
        self.shelf = Shelf(self.artefacts, room * ONE_BYTES, self.meter)

    def hold(self, *names: str) -> None:
        """Artefacts with these names."""
        for name in names:
            self.artefacts.predictors[digest(name)] = FakePredictor(0.75)


async def test_least_recently_asked_is_put_away_and_comes_back() -> None:
    """If it failed, many models would fill the memory, or those in daily use would be loaded again and again."""
    shelves = Shelves(room=2)
    shelves.hold("a", "b", "c")
    a, b = [await shelves.shelf.load(claim_check(name), SPEC) for name in "ab"]
    await a.predict([RAIN])
    c = await shelves.shelf.load(claim_check("c"), SPEC)
    assert [each.predictor is not None for each in (a, b, c)] == [True, False, True]
    found = await asyncio.gather(*(b.predict([RAIN]) for _ in range(5)))
    assert [len(each) for each in found] == [1] * 5
    assert [each.predictor is not None for each in (a, b, c)] == [False, True, True]
    assert len(shelves.artefacts.loads) == 4
    assert shelves.meter.gauges["tailrace_models_loaded"] == 2
    assert shelves.meter.counts["tailrace_models_put_away_total",] == 2


async def test_model_in_use_is_never_put_away() -> None:
    """If it failed, making room would pull a model from under the request that it answers."""
    shelves = Shelves(room=1)
    model = Slow()
    shelves.artefacts.predictors[digest("busy")] = Lane(model)
    shelves.hold("other")
    busy = await shelves.shelf.load(claim_check("busy"), SPEC)
    asked = asyncio.create_task(busy.predict([row(1.0)]))
    await eventually(lambda: model.calls == [1])
    await shelves.shelf.load(claim_check("other"), SPEC)
    assert busy.predictor is not None
    model.go.set()
    assert [each.prediction for each in await asked] == [1.0]


async def test_model_that_cannot_come_back_says_so() -> None:
    """If it failed, an artefact that is gone from the store would look like a fault of the service."""
    shelves = Shelves(room=1)
    shelves.hold("a", "b")
    a = await shelves.shelf.load(claim_check("a"), SPEC)
    await shelves.shelf.load(claim_check("b"), SPEC)
    del shelves.artefacts.predictors[digest("a")]
    with pytest.raises(ArmFailed, match="cannot be loaded: artefact"):
        await a.predict([RAIN])
    shelves.hold("a")
    assert len(await a.predict([RAIN])) == 1


async def test_replaced_model_is_forgotten() -> None:
    """If it failed, every revision that was ever served would count against the memory."""
    shelves = Shelves(room=2)
    shelves.hold(*"abcdefgh")
    kept = await shelves.shelf.load(claim_check("a"), SPEC)
    for name in "bcdefgh":
        await shelves.shelf.load(claim_check(name), SPEC)  # nobody keeps it
    assert kept.predictor is not None
    assert shelves.meter.gauges["tailrace_models_loaded"] <= 2
