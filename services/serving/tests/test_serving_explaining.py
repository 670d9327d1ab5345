"""Explanations: asked for over HTTP and Kafka, drawn from live predictions, and never in the way of answers."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.serving.tests.test_serving_http import TENSORS, Serving, serving
from services.serving.tests.test_serving_requests import Life, request
from tailrace_contracts.events import Explanation, FeatureValue, PredictionMade
from tailrace_models import Explained, Reference
from tailrace_serving import app
from tailrace_serving.answering import Limits
from tailrace_serving.capture import Capture
from tailrace_serving.domain.arms import ArmFailed, Arms, Loaded, Member
from tailrace_serving.domain.explanation import ToExplain, drawn, seed_of
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.handlers import Inference
from tailrace_serving.http import application
from tailrace_serving.running import InLine, Lane
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    THEN,
    FakeAnswer,
    FakeArtefacts,
    FakeEventLog,
    FakeMeter,
    FakePredictor,
    applied,
    claim_check,
    deployed,
    digest,
    rain_spec,
    versioned,
)
from tailrace_testing import eventually

__all__ = ["serving"]  # the fixture
REFERENCE = claim_check("reference")
EVERY = {"explanations": {"sample": 1}}


async def with_reference(serving: Serving, **changes: object) -> Serving:
    """Version 2, which has a reference, as the champion."""
    serving.hold("two", FakePredictor(0.75))
    serving.artefacts.references[digest("rows")] = [RAIN, RAIN]
    await serving.learn(
        applied(rain_spec(**changes), 2), versioned(2, "two", reference="rows"), deployed(2, sequence=2)
    )
    return serving


# ---------------------------------------------------------------- over HTTP


async def test_explanation_in_the_open_inference_protocol(serving: Serving) -> None:
    """If it failed, a client of the protocol could not ask why, or could not tell which feature a number is of."""
    await with_reference(serving)
    answer = await serving.client.post(
        "/v2/models/rain/explain", json={"inputs": TENSORS, "parameters": {"prediction_id": "p-1", "permutations": 32}}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["parameters"] == {
        "arm": "champion",
        "version": 2,
        "method": "sampling-shapley",
        "scale": "probability",
        "permutations": 32,
        "reference_rows": 2,
        "reference_sha256": digest("rows"),
    }
    names = {"features": json.dumps(list(RAIN), separators=(",", ":"))}
    assert body["outputs"] == [
        {"name": "prediction", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "probability", "datatype": "FP64", "shape": [1], "data": [0.75]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": ["p-1"]},
        {
            "name": "contributions",
            "datatype": "FP64",
            "shape": [1, 4],
            "data": [0.75, 0.0, 0.0, 0.0],
            "parameters": names,
        },
        {"name": "base_value", "datatype": "FP64", "shape": [1], "data": [0.0]},
        {"name": "explained_output", "datatype": "FP64", "shape": [1], "data": [0.75]},
        {"name": "standard_errors", "datatype": "FP64", "shape": [1, 4], "data": [0.0] * 4, "parameters": names},
    ]
    (event,) = await serving.published()
    assert event.explanation == Explanation(
        method="sampling-shapley",
        scale="probability",
        base_value=0.0,
        output=0.75,
        contributions={**dict.fromkeys(RAIN, 0.0), "humidity": 0.75},
        standard_errors=dict.fromkeys(RAIN, 0.0),
        permutations=32,
        seed=seed_of("rain", "2", "p-1"),
        reference_rows=2,
        reference_sha256=digest("rows"),
    )


async def test_explanations_of_named_outputs_as_bytes(serving: Serving) -> None:
    """If it failed, binary clients could not read explanations, or would get what they did not ask for."""
    await with_reference(serving)
    wanted = [{"name": "probability"}, {"name": "contributions", "parameters": {"binary_data": True}}]
    rows = [{**each, "shape": [2], "data": [*_flat(each["data"])] * 2} for each in TENSORS]
    answer = await serving.client.post("/v2/models/rain/versions/2/explain", json={"inputs": rows, "outputs": wanted})
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.content[:length])
    assert [each["name"] for each in head["outputs"]] == ["probability", "contributions"]
    assert head["outputs"][1]["shape"] == [2, 4]
    assert struct.unpack("<8d", answer.content[length:]) == (0.75, 0, 0, 0, 0.75, 0, 0, 0)


def _flat(data: list[Any]) -> list[Any]:
    return data[0] if isinstance(data[0], list) else data


async def test_explanation_in_the_plain_form(serving: Serving) -> None:
    """If it failed, nobody with curl could ask why."""
    await with_reference(serving)
    one = await serving.client.post("/v1/models/rain/explain", json={"features": RAIN, "prediction_id": "p-1"})
    assert one.json()["explanation"]["contributions"] == {**dict.fromkeys(RAIN, 0.0), "humidity": 0.75}
    assert (one.json()["probability"], one.json()["explanation"]["permutations"]) == (0.75, 200)
    many = await serving.client.post("/v1/models/rain/explain", json={"rows": [RAIN, RAIN], "permutations": 64})
    assert [each["explanation"]["permutations"] for each in many.json()["predictions"]] == [64, 64]
    assert len({each["explanation"]["seed"] for each in many.json()["predictions"]}) == 2


async def test_question_of_what_would_be_leaves_no_event(serving: Serving) -> None:
    """If it failed, a person who plays with values would change the model's statistics."""
    await with_reference(serving)
    answer = await serving.client.post("/v1/models/rain/explain", json={"features": RAIN, "record": False})
    assert "explanation" in answer.json()
    await serving.client.post("/v1/models/rain/predict", json={"features": RAIN, "prediction_id": "real"})
    (event,) = await serving.published()
    assert (event.prediction_id, event.explanation) == ("real", None)


async def test_refusals_of_explanations(serving: Serving) -> None:
    """If it failed, a caller would not learn why there is no explanation."""
    path = "/v1/models/rain/explain"
    without = await serving.client.post(path, json={"features": RAIN})
    assert (without.status_code, without.json()["error"][:8]) == (409, "the fake")
    await with_reference(serving)
    many = await serving.client.post(path, json={"rows": [RAIN] * 17})
    assert (many.status_code, many.json()["error"]) == (
        413,
        "the request has 17 rows, expected at most 16; send several requests",
    )
    serving.artefacts.references.clear()
    await serving.learn(applied(rain_spec(), 3), versioned(4, "three", reference="lost"), deployed(4, sequence=3))
    lost = await serving.client.post(path, json={"features": RAIN})
    assert (lost.status_code, lost.json()["error"]) == (
        503,
        "version 4 of model 'rain' (champion) could not be explained; the service's log says why",
    )
    assert serving.events.events == []


async def test_explanations_that_wait_keep_no_answer_out(serving: Serving) -> None:
    """If it failed, a few dashboards that ask why would have every other request refused."""
    await with_reference(serving)
    predictor = Explaining()
    serving.hold("slow", predictor)
    await serving.learn(versioned(4, "slow", reference="rows"), deployed(4, sequence=3))
    client = serving.client_of(replace(serving.front, limits=replace(serving.limits, max_requests=1, max_explaining=2)))
    path, body = "/v1/models/rain/explain", {"features": RAIN}
    held = [asyncio.create_task(client.post(path, json=body)) for _ in range(2)]
    await eventually(lambda: len(predictor.asked) == 2)
    refused = await client.post("/v2/models/rain/explain", json={"inputs": TENSORS})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert (await client.post("/v1/models/rain/predict", json=body)).status_code == 200
    predictor.go.set()
    assert [(await each).status_code for each in held] == [200, 200]
    assert (await client.post(path, json=body)).status_code == 200


async def test_nothing_is_explained_for_a_client_that_went_away(serving: Serving) -> None:
    """If it failed, clients that ask and leave would keep everybody else's explanations waiting, for nobody."""
    await with_reference(serving)
    predictor = Explaining()
    serving.hold("slow", predictor)
    await serving.learn(versioned(4, "slow", reference="rows"), deployed(4, sequence=3))
    leaves = asyncio.Event()
    messages = iter([{"type": "http.request", "body": json.dumps({"features": RAIN}).encode()}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("there is nobody to answer")

    scope = {"type": "http", "method": "POST", "path": "/v1/models/rain/explain", "headers": [], "query_string": b""}
    request = asyncio.ensure_future(application(serving.front)(scope, receive, send))
    await eventually(lambda: len(predictor.asked) == 1)
    assert not request.done()
    leaves.set()
    await eventually(request.done)
    await request
    predictor.go.set()
    answer = await serving.client.post("/v1/models/rain/explain", json={"features": RAIN, "prediction_id": "next"})
    assert answer.status_code == 200
    assert len(predictor.explained) == 1
    assert [each.prediction_id for each in await serving.published()] == ["next"]
    assert serving.meter.counts["tailrace_requests_refused_total", "went-away"] == 1


# ---------------------------------------------------------------- where models run


class Stepping:
    """Explains in steps that say when they are taken; the third waits until it is let go on."""

    def __init__(self, reference: bool = True) -> None:
        self.steps_taken: list[str] = []
        self.go = threading.Event()
        self._reference = reference

    def predict(self, rows: Sequence[Mapping[str, FeatureValue]]) -> list[FakeAnswer]:
        """One half."""
        self.steps_taken.append("answer")
        return [FakeAnswer(1, 0.5) for _ in rows]

    def explainer(self, reference: Reference | None) -> Stepping | None:
        """Itself."""
        return self if reference else None

    def mixed_rows(self, permutations: int) -> int:
        """A row for each."""
        return permutations

    def steps(self, row: Mapping[str, FeatureValue], permutations: int, seed: int) -> Generator[None, None, Explained]:
        """One for each permutation."""
        assert row == RAIN
        for number in range(permutations):
            if number == 2:
                assert self.go.wait(30)
            if seed == 13:
                raise ArmFailed("out of luck")
            self.steps_taken.append("step")
            yield
        return Explained(
            "sampling-shapley", "probability", 0.25, 0.5, {"humidity": 0.25}, {}, permutations, 1, "0" * 64
        )


ASKED = ToExplain(RAIN, 5, 7, 10)


async def rows() -> Reference:
    """A reference."""
    return Reference([RAIN], "0" * 64)


async def none() -> None:
    """No reference."""


async def test_answers_have_their_turn_between_the_steps_of_an_explanation() -> None:
    """If it failed, one question for reasons would hold up every answer."""
    model = Stepping()
    model.go.set()
    in_line, answers = InLine(model), 0

    async def others() -> None:
        nonlocal answers
        while True:
            await in_line.predict([RAIN])
            answers += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    found = await in_line.explain(ASKED, rows)
    beside.cancel()
    assert (found.output, found.seed, found.permutations) == (0.5, 7, 5)
    assert answers >= 5
    assert "answer" in model.steps_taken[model.steps_taken.index("step") : -1]


async def test_in_a_lane_answers_go_before_the_next_step() -> None:
    """If it failed, explaining a slow model would make its answers wait for all of the explanation."""
    model = Stepping()
    lane = Lane(model)
    explaining = asyncio.create_task(lane.explain(ASKED, rows))
    await eventually(lambda: model.steps_taken.count("step") == 2)
    answers = [asyncio.create_task(lane.predict([RAIN])) for _ in range(3)]
    await asyncio.sleep(0)
    model.go.set()
    await asyncio.gather(explaining, *answers)
    assert model.steps_taken[3:5] in (["answer", "step"], ["step", "answer"])
    assert model.steps_taken.index("answer") <= 4
    with pytest.raises(ArmFailed):
        await lane.explain(ASKED._replace(seed=13), rows)
    assert [each.probability for each in await lane.predict([RAIN])] == [0.5]


@pytest.mark.parametrize("runs", [InLine, Lane])
async def test_nothing_to_explain_against_and_too_high_a_cost_are_refused(runs: type[InLine | Lane]) -> None:
    """If it failed, a model without a reference would be explained against nothing, or one request would take minutes."""
    with pytest.raises(Refused, match="no reference rows"):
        await runs(Stepping()).explain(ASKED, none)
    with pytest.raises(Refused, match="asked for 5 mixed rows, expected at most 4"):
        await runs(Stepping()).explain(ASKED._replace(most_rows=4), rows)


# ---------------------------------------------------------------- live predictions


class Explaining(FakePredictor):
    """A predictor whose explanations wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def explain(self, asked: ToExplain, reference: Any) -> Any:
        """As the fake, later."""
        await self.go.wait()
        return await super().explain(asked, reference)


class Live:
    """A capture of predictions, all of which are drawn."""

    def __init__(self, predictor: FakePredictor, **changes: Any) -> None:
        self.events, self.meter, artefacts = FakeEventLog(), FakeMeter(), FakeArtefacts()
        artefacts.references[REFERENCE.sha256] = [RAIN]
        settings = ServingSettings.model_validate({"capture_linger_seconds": 0, "capture_flush_seconds": 5, **changes})
        explanations = app.explanations_of(settings, artefacts, self.meter)
        self.capture: Capture = app.capture_of(settings, self.events, self.meter, explanations)
        self._loaded = Loaded(1, None, "torch", "1", predictor, REFERENCE)

    def inference(self, number: int, **changes: Any) -> Inference:
        """An answered row."""
        spec = rain_spec(**{"serving": EVERY, **changes})
        rules = FeatureRules(spec)
        arms = Arms("rain", spec, rules, self._loaded)
        member = Member("champion", self._loaded)
        return Inference(arms, member, rules.row(RAIN), FakeAnswer(1, 0.75), str(number), None, THEN, 0.1)

    def explained(self) -> dict[str, bool]:
        """By prediction id, whether the published event has an explanation."""
        events = [PredictionMade.model_validate_json(each.value) for each in self.events.events]
        return {each.prediction_id: each.explanation is not None for each in events}

    def counted(self) -> dict[str, float]:
        """Explanations by outcome."""
        return {key[2]: count for key, count in self.meter.counts.items() if key[0] == "tailrace_explanations_total"}


async def test_drawn_predictions_are_published_with_their_explanations() -> None:
    """If it failed, nobody could say later why a decision was taken as it was."""
    live = Live(FakePredictor())
    await live.capture.start()
    await live.capture.take([live.inference(number) for number in range(3)])
    await eventually(lambda: len(live.events.events) == 3)
    await live.capture.stop()
    assert live.explained() == {"0": True, "1": True, "2": True}
    assert live.counted() == {"live": 3}


async def test_predictions_that_are_not_drawn_do_not_wait() -> None:
    """If it failed, explaining a sample would delay or lose the record of all others."""
    live = Live(Explaining())
    await live.capture.start()
    half: Any = {"serving": {"explanations": {"sample": 0.5}}}
    await live.capture.take([live.inference(number, **half) for number in range(8)])
    others = {str(number) for number in range(8) if not drawn("rain", str(number), 0.5)}
    await eventually(lambda: len(live.events.events) == len(others))
    assert set(live.explained()) == others
    await live.capture.stop()
    assert live.explained() == dict.fromkeys(map(str, range(8)), False)
    assert live.counted() == {"shed": 8 - len(others)}


async def test_explanations_are_shed_before_anything_else_is() -> None:
    """If it failed, explaining would grow without bound under load, and take events with it."""
    predictor = Explaining()
    live = Live(predictor, max_waiting_explanations=2)
    await live.capture.start()
    await live.capture.take([live.inference(number) for number in range(6)])
    await eventually(lambda: len(live.events.events) == 4)
    predictor.go.set()
    await eventually(lambda: len(live.events.events) == 6)
    await live.capture.stop()
    assert sorted(live.explained().values()) == [False] * 4 + [True] * 2
    assert live.counted() == {"shed": 4, "live": 2}


async def test_an_event_does_not_wait_long_for_its_explanation() -> None:
    """If it failed, a slow explanation would keep a decision off the record."""
    live = Live(Explaining(), explanation_seconds=0.05)
    await live.capture.start()
    await live.capture.take([live.inference(1)])
    await eventually(lambda: live.explained() == {"1": False})
    await live.capture.stop()
    assert live.counted() == {"shed": 1}


async def test_a_model_that_cannot_be_explained_is_served_all_the_same() -> None:
    """If it failed, an explanation's failure would take the prediction with it."""
    live = Live(FakePredictor(fails=True))
    await live.capture.start()
    await live.capture.take([live.inference(1)])
    await eventually(lambda: live.explained() == {"1": False})
    await live.capture.stop()
    assert live.counted() == {"failed": 1}


async def test_acknowledged_predictions_have_their_explanations_when_they_are_answered() -> None:
    """If it failed, the record that an answer waits for would be without the reasons that its spec asks for."""
    live = Live(FakePredictor())
    await live.capture.start()
    await live.capture.take([live.inference(1, capture="acknowledged")])
    assert live.explained() == {"1": True}
    await live.capture.stop()


async def test_one_explanation_is_made_at_a_time_for_those_who_wait() -> None:
    """If it failed, many who ask at once would take their steps all together, and keep every answer waiting."""
    at_once: list[int] = []

    class Counting(FakePredictor):
        busy = 0

        async def explain(self, asked: ToExplain, reference: Any) -> Any:
            self.busy += 1
            at_once.append(self.busy)
            await asyncio.sleep(0)
            self.busy -= 1
            return await super().explain(asked, reference)

    live = Live(Counting())
    await live.capture.start()
    rows = [[live.inference(number, capture="acknowledged")] for number in range(8)]
    await asyncio.gather(*(live.capture.take(each) for each in rows))
    await live.capture.stop()
    assert set(live.explained().values()) == {True}
    assert at_once == [1] * 8


# ---------------------------------------------------------------- over Kafka


async def test_explanations_over_kafka() -> None:
    """If it failed, a caller on Kafka could not ask why, or would ask once more after a crash and be told otherwise."""
    life = Life()
    (event,) = await life.handle(request(0, explain=True))
    (reply,) = life.sender.replies()
    assert reply.answers[0].explanation is not None
    assert reply.answers[0].explanation == event.explanation
    again = Life(life.sender, probability=0.25)
    assert [each.explanation for each in await again.handle(request(0, explain=True))] == [event.explanation]
    refused = Life()
    await refused.handle(request(0, rows=[RAIN] * 3, explain=True), request(1, "r-2", version="2", explain=True))
    assert [each.code for each in refused.sender.replies()] == ["too-large", "unexplainable"]


def test_limits_have_a_default_for_explanations() -> None:
    """If it failed, a front made for inference alone would refuse every explanation."""
    assert Limits(1, 1).max_explained_rows == ServingSettings().max_explained_rows
