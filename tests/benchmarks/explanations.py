"""What an explanation costs beside an answer, and what explaining a sample of live predictions does to the answers.

    uv run python -m tests.benchmarks.explanations
    uv run python -m tests.benchmarks.explanations --serving [--asking] [--seconds 8] [--rounds 3]

The first asks loaded models of 16 features, in one process, in CPU time. The second starts a broker of its own and the real
serving process, held to the machine's first core, with a river regression, a network of 128 hidden units or a river tree as the
champion, and asks it over 8 connections, with no sample and with one of 1 % in turns. What is explained, shed and lost is counted by the
process itself. With `--asking` the second of each turn has no sample: one client more asks for explanations, one after another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

from services.serving.tests.test_serving_live import KEY, Site, until_ready
from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import OnlineLearner
from tailrace_local import free_port
from tailrace_local.kafka import EmbeddedKafka
from tailrace_models import ONNX, RIVER, Predictor, Reference, RiverModel, load
from tailrace_serving import testing
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference as StoredReference
from tests.benchmarks.serving_http import NAMES, ask, eight_features, start

Row = dict[str, FeatureValue]


def spec_of(features: int) -> ModelSpec:
    """So many numbers."""
    named = [{"type": "numerical", "name": f"x{number}"} for number in range(features)]
    return parse_spec({"model": "rain", "owner": "benchmark", "label": {"name": "rain"}, "features": named})


def rows_of(spec: ModelSpec, count: int) -> list[Row]:
    """Rows of normal numbers."""
    table = np.random.default_rng(7).normal(size=(count, len(spec.features)))
    return [dict(zip(spec.feature_names, line, strict=True)) for line in table.tolist()]


def network(spec: ModelSpec, hidden: int) -> bytes:
    """A network with one hidden layer, or without one: a logistic regression."""
    chance, columns = np.random.default_rng(11), len(spec.features)
    first = chance.normal(size=(columns, hidden or 1)).astype(np.float32)
    last = chance.normal(size=(hidden, 1)).astype(np.float32) / 10
    nodes = [helper.make_node("MatMul", ["features", "first"], ["sums" if hidden else "score"])]
    if hidden:
        nodes += [
            helper.make_node("Relu", ["sums"], ["units"]),
            helper.make_node("MatMul", ["units", "last"], ["score"]),
        ]
    nodes.append(helper.make_node("Sigmoid", ["score"], ["probability"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(first, "first"), *([numpy_helper.from_array(last, "last")] if hidden else [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def river(spec: ModelSpec, algorithm: str, examples: int = 2_000) -> bytes:
    """A learner that has learned."""
    model = RiverModel.build(OnlineLearner.model_validate({"algorithm": algorithm}), spec)
    for row in rows_of(spec, examples):
        model.learn(row, int(sum(value for value in row.values() if isinstance(value, float)) > 0))
    return model.to_envelope(KEY)


# ---------------------------------------------------------------- by itself


def cpu_seconds(work: Callable[[], object], least: float = 0.5) -> float:
    """CPU time of one call, over at least half a second of it."""
    count, began = 0, time.process_time()
    while (spent := time.process_time() - began) < least:
        work()
        count += 1
    return spent / count


def by_itself() -> None:
    """Answers and explanations of every kind of model."""
    spec = spec_of(16)
    row, reference = rows_of(spec, 1)[0], Reference(rows_of(spec, 100), "0" * 64)
    models: dict[str, Predictor] = {
        "logistic regression, ONNX": load(ONNX, network(spec, 0), signing_key=b"", spec=spec),
        "network of 128, ONNX": load(ONNX, network(spec, 128), signing_key=b"", spec=spec),
        **{
            f"{algorithm}, river": load(RIVER, river(spec, algorithm), signing_key=KEY, spec=spec)
            for algorithm in ("logistic-regression", "hoeffding-adaptive-tree", "adaptive-random-forest")
        },
    }
    print("CPU time, 16 features, 100 reference rows, 200 permutations")
    for name, model in models.items():
        began = time.process_time()
        explainer = model.explainer(reference)
        made = time.process_time() - began
        assert explainer is not None
        answer = cpu_seconds(lambda model=model: model.predict([row]))  # type: ignore[misc]  # bound at once
        explanation = cpu_seconds(lambda explainer=explainer: list(explainer.steps(row, 200, 7)))  # type: ignore[misc]  # bound at once
        print(
            f"{name:36s} answer {answer * 1e6:8.1f} us, explanation {explanation * 1e6:11.1f} us"
            f" ({'exact' if explainer.exact else 'sampled'}), explainer made once in {made * 1e3:.1f} ms"
        )


# ---------------------------------------------------------------- beside answers


async def deploy(site: Site, champion: str, sample: float) -> None:
    """A champion, of which so large a share is explained."""
    spec = parse_spec(
        eight_features().model_dump(mode="json")
        | {"serving": {"explanations": {"sample": sample, "permutations": 200}}}
    )
    if champion == "network":
        kept = StoredReference.build(spec, rows_of(spec, 500)).to_bytes()
        version = testing.versioned(1, await site.artefact(network(spec, 128), ONNX))
        version = version.model_copy(update={"reference": await site.artefact(kept, REFERENCE)})
    else:
        version = testing.versioned(1, await site.artefact(river(spec, champion, 500), RIVER), revision=1)
    await site.publish(testing.applied(spec), version, testing.deployed(1))


async def ask_why(client: httpx.AsyncClient, until: float) -> int:
    """One explanation after another; how many there were."""
    count = 0
    while time.perf_counter() < until:
        answer = await client.post("/v1/models/rain/explain", json={"features": dict.fromkeys(NAMES, 0.5)}, timeout=60)
        answer.raise_for_status()
        count += 1
    return count


async def one_round(bootstrap: str, champion: str, sample: float, seconds: float, *, asking: bool) -> None:
    """Start the service, ask, print, stop."""
    prefix = f"bench-{os.getpid()}-{time.monotonic_ns()}-"
    with tempfile.TemporaryDirectory() as folder:
        async with Site(bootstrap, prefix, Path(folder)) as site:
            await site._follower.stop()
            await deploy(site, champion, sample)
            port = free_port()
            process = await start(site, port)
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                    await until_ready(client)
                    await asyncio.gather(*(ask(port, time.perf_counter() + 1, []) for _ in range(8)))
                    before, taken = await counters(client), list[float]()
                    until = time.perf_counter() + seconds
                    why = asyncio.create_task(ask_why(client, until)) if asking else None
                    await asyncio.gather(*(ask(port, until, taken) for _ in range(8)))
                    asked = await why if why else 0
                    after = await counters(client)
            finally:
                process.terminate()
                await process.wait()
    told = {name: after.get(name, 0) - before.get(name, 0) for name in after}
    cuts = statistics.quantiles(taken, n=100)
    print(
        f"{champion:24s} sample {sample:4.0%}, {asked} asked: {len(taken) / seconds:6.0f} requests/s,"
        f" p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms,"
        f" {told['process_cpu_seconds_total'] / len(taken) * 1e6:.0f} us of CPU each,"
        f" explained {told.get('live', 0):.0f}, shed {told.get('shed', 0):.0f}, lost {told.get('lost', 0):.0f}"
    )


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """What the service counts, by short names."""
    found: dict[str, float] = {}
    for line in (await client.get("/metrics")).text.splitlines():
        name, _, value = line.rpartition(" ")
        for short in ("live", "shed"):
            if name.startswith("tailrace_explanations_total") and f'outcome="{short}"' in name:
                found[short] = float(value)
        if name.startswith("tailrace_capture_lost_total"):
            found["lost"] = float(value)
        if name == "process_cpu_seconds_total":
            found[name] = float(value)
    return found


async def beside_answers(champions: list[str], seconds: float, rounds: int, *, asking: bool) -> None:
    """With and without a sample, in turns."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder), heap_megabytes=256) as kafka:
        for champion in champions:
            for _ in range(rounds):
                await one_round(kafka.bootstrap, champion, 0.0, seconds, asking=False)
                await one_round(kafka.bootstrap, champion, 0.0 if asking else 0.01, seconds, asking=asking)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serving", action="store_true", help="beside the answers of a serving process")
    parser.add_argument(
        "--asking", action="store_true", help="a client that asks for explanations, instead of a sample"
    )
    kinds = ["logistic-regression", "network", "hoeffding-adaptive-tree"]
    parser.add_argument("--champions", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    assert len(NAMES) == 8  # the questions of serving_http
    print(f"load average {os.getloadavg()[0]:.1f}")
    if arguments.serving:
        work = beside_answers(arguments.champions, arguments.seconds, arguments.rounds, asking=arguments.asking)
        uvloop.run(work)
    else:
        by_itself()


if __name__ == "__main__":
    main()
