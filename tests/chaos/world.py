"""The world around a rollout: callers with questions, the truth a moment later, and candidates that are right about it.

Two models, which differ in how their answers are captured: `rain` waits for the broker, `snow` does not. What is true of a
question changes from round to round, so that the champion is wrong and the next candidate right: it comes, is compared as
shadow and canary, and becomes champion, again and again. One answer in ten is noise. People give commands meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tailrace_contracts.events import (
    ApplySpec,
    CandidateTrained,
    Command,
    CommandIssued,
    DeploymentChanged,
    Event,
    LabelGiven,
    Lineage,
    PauseRollout,
    ResumeRollout,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_models import ONNX, column_names
from tailrace_runtime.follower import Follower
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.settings import KafkaSettings
from tests.chaos.fleet import Fleet

CAPTURES = {"rain": "acknowledged", "snow": "buffered"}
MODELS = tuple(CAPTURES)
_ENTITIES = 50
_NOISE = 10
_TRAINED_ON = LogRanges.of(LogRange(topic="labelled-examples", partition=0, from_offset=0, through_offset=99))


def spec_of(model: str, owner: str = "chaos", percent: int = 50) -> ModelSpec:
    """One number decides, stages are short, and nobody stands by."""
    rollout = {
        "shadow_min_examples": 30,
        "canary_min_examples": 30,
        "canary_percent": percent,
        "max_examples": 100_000,
        "standby_examples": 0,
    }
    document = {
        "model": model,
        "owner": owner,
        "features": [{"type": "numerical", "name": "x", "limits": {"min": -10, "max": 10}}],
        "label": {"name": "fell"},
        "capture": CAPTURES[model],
        "rollout": rollout,
    }
    return parse_spec(document)


def network(spec: ModelSpec, weight: float) -> bytes:
    """A network that says yes where `weight * x` is positive."""
    columns = len(column_names(spec))
    weights = np.zeros((columns, 1), dtype=np.float32)
    weights[0, 0] = weight
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as its caller has it: status 200, in hand."""

    prediction: float
    version: int
    arm: str


@dataclass(slots=True)
class World:
    """Everything outside of the services."""

    settings: KafkaSettings
    producer: Producer
    objects: ObjectStore
    serving: str
    rate: float
    answers: dict[str, dict[str, Told]] = field(default_factory=lambda: {model: {} for model in MODELS})
    commands: list[str] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 0))
    refused: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _runs: dict[tuple[str, int], str] = field(default_factory=dict)
    _deployed: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def around(cls, fleet: Fleet, rate: float) -> Self:
        """The world around a fleet, with so many questions a second."""
        return cls(fleet.settings, fleet.producer(), fleet.objects, "", rate)

    async def run(self) -> None:
        """Ask, label, offer candidates and give commands, until it is over."""
        for model in MODELS:
            await self.command(model, ApplySpec(spec=spec_of(model)))
        followers = [
            Follower(self.settings, "deployments", self._hear),
            Follower(self.settings, "model-versions", self._know),
        ]
        for each in followers:
            await each.start()
        try:
            async with asyncio.TaskGroup() as tasks, httpx.AsyncClient(base_url=self.serving, timeout=10) as client:
                running = [tasks.create_task(self._offer(model)) for model in MODELS]
                running += [
                    tasks.create_task(self._ask(client, model, worker)) for model in MODELS for worker in range(2)
                ]
                running += [tasks.create_task(self._decree())]
                await asyncio.wait(running)
        finally:
            for each in followers:
                await each.stop()

    # ------------------------------------------------------------ rounds

    def _hear(self, event: Event | None, _: Record) -> None:
        if isinstance(event, DeploymentChanged):
            self._deployed[event.model] = event.champion

    def _know(self, event: Event | None, _: Record) -> None:
        if isinstance(event, VersionChanged):
            self._runs[event.model, event.version] = event.run_id

    def _champions_run(self, model: str) -> str:
        return self._runs.get((model, self._deployed.get(model) or 0), "")

    async def _offer(self, model: str) -> None:
        """A candidate that is right about this round's truth; the next round, once it is champion."""
        spec = spec_of(model)
        for number in itertools.count(1):
            sign = 1 if number % 2 else -1
            run = f"{model}-{number}"
            claim = await self.objects.put_artefact(network(spec, sign * (4 + number / 1000)), ONNX)
            self.rounds[model] = number
            await self.send("candidate-trained", model, _candidate(model, run, claim))
            while self._champions_run(model) != run:
                if await self._rested(0.2):
                    return

    async def _decree(self) -> None:
        """What people ask for meanwhile: a pause and its end, and specs with another owner."""
        for number in itertools.count():
            model = MODELS[number % len(MODELS)]
            if await self._rested(1.5):
                return
            await self.command(model, PauseRollout())
            await self.command(model, ResumeRollout())
            await self.command(model, ApplySpec(spec=spec_of(model, f"owner-{number}", 40 + number % 20)))

    async def command(self, model: str, command: Command) -> None:
        """Ask the registry for something."""
        name = f"c-{len(self.commands)}"
        self.commands.append(name)
        now = datetime.now(UTC)
        issued = CommandIssued(command_id=name, model=model, command=command, issued_by="ada", reason="chaos", time=now)
        await self.send("registry-commands", model, issued)

    # ------------------------------------------------------------ questions

    async def _ask(self, client: httpx.AsyncClient, model: str, worker: int) -> None:
        """One question after another; its label follows its answer. One that fails is asked again under its name."""
        for number in itertools.count():
            if await self._rested(2 * len(MODELS) / self.rate):
                return
            x = ((number * 7919) % 19 - 9.5) / 2
            name = f"{model}-{worker}-{number}"
            question = {"features": {"x": x}, "prediction_id": name, "entity": f"e{number % _ENTITIES}"}
            told = await self._answer(client, model, question)
            if told is None:
                return
            self.answers[model][name] = told
            await self.send("label-events", name, self._label(model, name, number, x))

    async def _answer(self, client: httpx.AsyncClient, model: str, question: Mapping[str, object]) -> Told | None:
        while not self.over.is_set():
            try:
                answer = await client.post(f"/v1/models/{model}/predict", json=question)
            except httpx.HTTPError:
                self.refused += 1
            else:
                if answer.status_code == httpx.codes.OK:
                    found = answer.json()
                    return Told(found["prediction"], found["version"], found["arm"])
                self.refused += answer.status_code != httpx.codes.NOT_FOUND
            await asyncio.sleep(0.1)
        return None

    def _label(self, model: str, name: str, number: int, x: float) -> LabelGiven:
        """The truth of this round, but for the noise."""
        truth = (x > 0) == (self.rounds[model] % 2 == 1)
        noisy = number % _NOISE == _NOISE - 1
        return LabelGiven(prediction_id=name, model=model, label=int(truth != noisy), time=datetime.now(UTC))

    async def send(self, topic: str, key: str, event: Event) -> None:
        """Publish, acknowledged."""
        await self.producer.send_all([outgoing(event, topic, key)])

    async def _rested(self, seconds: float) -> bool:
        """Wait; whether it is over."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _candidate(model: str, run: str, claim: object) -> CandidateTrained:
    lineage = Lineage(trained_on=_TRAINED_ON, examples=100, spec_revision=1, code_version="chaos")
    given = {"run_id": run, "model": model, "learner": "imported", "continual": False, "artefact": claim}
    return CandidateTrained.model_validate({**given, "lineage": lineage, "time": datetime.now(UTC)})
