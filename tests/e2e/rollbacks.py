"""A new champion that turns out bad, in each of the ways that Tailrace watches for; and how soon the one before answers again.

The truth is whether `a` is above 0. Version 1 is imported and serves; version 2 is imported and promoted by a person, as
somebody would who trusts it. Then callers go on asking, and labels come where they are needed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import onnx
import yaml
from onnx import helper, numpy_helper

from tailrace_testing import eventually
from tests.e2e.conftest import Running

Trigger = Literal["errors", "latency", "fairness", "loss"]
TRIGGERS: tuple[Trigger, ...] = ("errors", "latency", "fairness", "loss")

SLOW_MS = 40
COLUMNS = 3
"""a, and one for each category of c."""

SECONDS = 60


@dataclass(frozen=True)
class Rollback:
    """What became of version 2."""

    trigger: Trigger
    seconds: float
    """From the first bad request, or the first bad label, to an answer by version 1."""
    requests: int
    stage: str
    paused: Mapping[str, str]
    reason: str


def spec_of(trigger: Trigger) -> dict[str, Any]:
    """The spec of this trigger's model."""
    rollout: dict[str, Any] = {"standby_examples": 100_000}
    if trigger == "loss":
        rollout["rollback_on"] = []
    return {
        "model": f"back-by-{trigger}",
        "owner": "tests",
        "features": [
            {"name": "a", "type": "numerical", "limits": {"min": -5, "max": 5}},
            {"name": "c", "type": "categorical", "categories": ["x", "y"]},
        ],
        "protected": ["c"],
        "label": {"name": "truth"},
        "monitors": {"serving": {"max_p99_ms": SLOW_MS}},
        "rollout": rollout,
    }


def network(
    weights: list[float], bias: float, *extra: onnx.NodeProto, constants: Mapping[str, Any] | None = None
) -> bytes:
    """A graph that answers by a weighted sum, to which `extra` adds something called `more`."""
    known = {"weights": np.array(weights, np.float32).reshape(COLUMNS, 1), "bias": np.array([bias], np.float32)}
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["shifted"]),
        *extra,
        helper.make_node("Add", ["shifted", "more"], ["logit"])
        if extra
        else helper.make_node("Identity", ["shifted"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "a-model",
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {**known, **(constants or {})}.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def failing() -> bytes:
    """Right as long as `a` is below 1; above, it looks beyond the end of a table, and the library gives up."""
    extra = [
        helper.make_node("Slice", ["features", "from", "to", "axis"], ["a"]),
        helper.make_node("Cast", ["a"], ["place"], to=onnx.TensorProto.INT64),
        helper.make_node("Max", ["place", "zero"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["more"]),
    ]
    constants = {
        "from": np.array([0]),
        "to": np.array([1]),
        "axis": np.array([1]),
        "zero": np.array([0]),
        "table": np.zeros(1, np.float32),
    }
    return network([10, 0, 0], 0, *extra, constants=constants)


def slow() -> bytes:
    """Right, after it has drawn ten million random numbers."""
    extra = [
        helper.make_node("RandomNormal", [], ["drawn"], shape=[10_000_000]),
        helper.make_node("ReduceMean", ["drawn"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["more"]),
    ]
    return network([10, 0, 0], 0, *extra, constants={"nothing": np.array(0, np.float32)})


def versions_of(trigger: Trigger) -> tuple[bytes, bytes]:
    """Version 1 and version 2. The unfair pair are wrong equally often, about another group each."""
    right = network([10, 0, 0], 0)
    match trigger:
        case "errors":
            return right, failing()
        case "latency":
            return right, slow()
        case "fairness":
            return network([10, -30, 0], 0), network([10, 0, -30], 0)
        case "loss":
            return right, network([-10, 0, 0], 0)


class Callers:
    """Who ask one model, and say later what was true."""

    def __init__(self, tailrace: Running, model: str, client: httpx.AsyncClient) -> None:
        self._client = client
        self._model = model
        self._serving = f"http://127.0.0.1:{tailrace.port('serving')}"
        self._gateway = f"http://127.0.0.1:{tailrace.port('ingestion')}"
        self.registry = f"http://127.0.0.1:{tailrace.port('registry')}/v1/models/{model}"
        self._chance = random.Random(7)
        self.count = 0

    async def ask(self, features: Mapping[str, Any] | None = None) -> int | None:
        """Ask one question, and label it. Gives back the version that answered."""
        self.count += 1
        identity = f"{self._model}-{self.count}"
        asked = features or {"a": self._chance.uniform(-5, 5), "c": self._chance.choice("xy")}
        answer = await self._client.post(
            f"{self._serving}/v1/models/{self._model}/predict",
            json={"features": dict(asked), "prediction_id": identity},
        )
        if answer.status_code != 200:
            return None
        label = {"prediction_id": identity, "model": self._model, "label": int(asked["a"] > 0), "time": _now()}
        await self._client.post(f"{self._gateway}/v1/labels", json={"type": "label-given", **label})
        return int(answer.json()["version"])

    async def until(self, version: int) -> None:
        """Return when this version answers a question that any version can answer."""

        async def answers() -> bool:
            return await self.ask({"a": 0.5, "c": "x"}) == version

        await eventually(answers, seconds=SECONDS)

    async def until_back(self) -> float:
        """Go on asking until version 1 answers what version 2 was asked to; the seconds that took."""
        began = time.monotonic()
        while True:
            if await self.ask({"a": 3.0, "c": "x"} if self.count % 10 == 0 else None) == 1:
                return time.monotonic() - began
            if time.monotonic() - began > SECONDS:
                raise AssertionError(f"version 2 of {self._model} still answers after {SECONDS} s")
            await asyncio.sleep(0.01)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def done(tailrace: Running, *arguments: str) -> None:
    """`tailrace …`, which has to succeed."""
    found = tailrace.run(*arguments)
    assert found.returncode == 0, found.stderr


async def rolled_back(tailrace: Running, folder: Path, trigger: Trigger, suffix: str = "") -> Rollback:
    """Let version 2 of this trigger's model become champion, and wait until version 1 is again."""
    spec = {**spec_of(trigger), "model": f"{spec_of(trigger)['model']}{suffix}"}
    model = str(spec["model"])
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    for name, graph in zip(("one", "two"), versions_of(trigger), strict=True):
        (folder / f"{name}.onnx").write_bytes(graph)
    done(tailrace, "apply", str(folder / "spec.yaml"))
    async with httpx.AsyncClient(timeout=30) as client:
        callers = Callers(tailrace, model, client)
        await asyncio.to_thread(done, tailrace, "import", model, str(folder / "one.onnx"))
        await callers.until(1)
        await asyncio.to_thread(done, tailrace, "import", model, str(folder / "two.onnx"))
        await asyncio.to_thread(done, tailrace, "promote", model, "2", "--reason", "it looked good")
        await callers.until(2)
        before = callers.count
        seconds = await callers.until_back()
        deployment = (await client.get(callers.registry)).json()["deployment"]
        version = (await client.get(f"{callers.registry}/versions/2")).json()["version"]
    return Rollback(
        trigger, seconds, callers.count - before, version["stage"], deployment["paused"], deployment["reason"]
    )
