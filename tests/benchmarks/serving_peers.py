"""Requests a second and latency beside MLServer, BentoML and a FastAPI route: one run, one machine, one model, one client.

    uv run python -m tests.benchmarks.serving_peers --bootstrap 127.0.0.1:9092 [--seconds 10] [--rounds 2]

The model is one logistic regression with eight features: as an ONNX graph for Tailrace, FastAPI and BentoML, with the
same weights as scikit-learn's class for MLServer, whose sklearn runtime takes nothing else. The client is `wrk` with 16
connections, which counts errors. Every server is one process, held to the machine's first core; client and broker have
the others. Tailrace captures every answer on Kafka, and the run ends when all of them are there; the peers capture
nothing. Peers are installed into environments of their own by `uv run --isolated`; they are no dependencies.

CPU is that of the server's processes, so that `per CPU second` tells more than `per second` does on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import numpy as np
import onnx
import psutil
import uvloop
from onnx import TensorProto, helper, numpy_helper

from services.serving.tests.test_serving_live import Site, until_ready
from tailrace_local import free_port
from tailrace_models import ONNX
from tailrace_serving import testing
from tests.benchmarks.serving_http import NAMES, eight_features

CONNECTIONS = 16
WEIGHTS = [0.5, -0.25, 0.125, 1.0, -1.0, 0.75, 0.3, -0.6]
ROW = [0.5] * 8
TENSORS = {"inputs": [{"name": name, "datatype": "FP64", "shape": [1], "data": [0.5]} for name in NAMES]}
MATRIX = {"inputs": [{"name": "predict", "datatype": "FP64", "shape": [1, 8], "data": ROW}]}
FEATURES = dict(zip(NAMES, ROW, strict=True))

FASTAPI = """
import numpy as np, onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

class Row(BaseModel):
    x0: float; x1: float; x2: float; x3: float; x4: float; x5: float; x6: float; x7: float

class Answer(BaseModel):
    prediction: int
    probability: float

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
app = FastAPI()

@app.post("/predict")
async def predict(row: Row) -> Answer:
    features = np.array([[row.x0, row.x1, row.x2, row.x3, row.x4, row.x5, row.x6, row.x7]], dtype=np.float32)
    probability = float(session.run(["probability"], {"features": features})[0][0, 0])
    return Answer(prediction=int(probability > 0.5), probability=probability)
"""

BENTO = """
import bentoml, numpy as np, onnxruntime
from pydantic import BaseModel

class Row(BaseModel):
    x0: float; x1: float; x2: float; x3: float; x4: float; x5: float; x6: float; x7: float

class Answer(BaseModel):
    prediction: int
    probability: float

@bentoml.service(workers=1, metrics={"enabled": False}, traffic={"timeout": 30})
class Rain:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, row: Row) -> Answer:
        features = np.array([[row.x0, row.x1, row.x2, row.x3, row.x4, row.x5, row.x6, row.x7]], dtype=np.float32)
        probability = float(self.session.run(["probability"], {"features": features})[0][0, 0])
        return Answer(prediction=int(probability > 0.5), probability=probability)
"""

SKLEARN = f"""
import joblib, numpy as np
from sklearn.linear_model import LogisticRegression
model = LogisticRegression()
model.classes_, model.n_features_in_ = np.array([0, 1]), 8
model.coef_, model.intercept_ = np.array([{WEIGHTS}]), np.array([0.0])
joblib.dump(model, "model.joblib")
"""


class Measured(NamedTuple):
    """What one round came to."""

    name: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    per_cpu_second: float
    megabytes: float


def logistic(number: int = 0) -> bytes:
    """The model as an ONNX graph; with another number, a model that differs a little."""
    weights = numpy_helper.from_array((np.array(WEIGHTS, dtype=np.float32) + number / 1000).reshape(8, 1), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 8])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def tree(pid: int) -> list[psutil.Process]:
    """A process and what it has started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu(pid: int) -> float:
    """CPU seconds of a process and what it has started."""
    return sum(sum(each.cpu_times()[:2]) for each in tree(pid))


def megabytes(pid: int) -> float:
    """Resident memory of a process and what it has started, shared pages once."""
    return sum(each.memory_full_info().pss for each in tree(pid)) / 2**20


def pinned(side: Literal["server", "client"]) -> list[str]:  # which side
    """The command that holds the next one to the first core, or to all others."""
    cores = os.cpu_count() or 1
    where = "0" if side == "server" else f"1-{cores - 1}" if cores > 1 else "0"
    return ["taskset", "-c", where] if shutil.which("taskset") else []


@asynccontextmanager
async def process(folder: Path, *command: str, environment: dict[str, str] | None = None) -> AsyncIterator[int]:
    """A server on the first core, with its process id."""
    with (folder / "log").open("wb") as log:
        made = await asyncio.create_subprocess_exec(
            *pinned("server"), *command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=log, stderr=log
        )
    try:
        yield made.pid
    finally:
        for each in reversed(tree(made.pid)):
            each.terminate()
        await made.wait()


async def answers(url: str, body: Any, seconds: float = 120) -> None:
    """Wait until the server answers the question."""
    async with httpx.AsyncClient() as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                answer = await client.post(url, json=body, timeout=5)
                if answer.status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


async def wrk(name: str, url: str, body: Any, pid: int, seconds: float) -> Measured:
    """One round of load."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False) as script:
        text = json.dumps(body).replace("\\", "\\\\").replace("'", "\\'")
        script.write(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{text}'\n")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", script.name, url]
    before = cpu(pid)
    made = await asyncio.create_subprocess_exec(*pinned("client"), *command, stdout=asyncio.subprocess.PIPE)
    output = (await made.communicate())[0].decode()
    spent = cpu(pid) - before
    os.unlink(script.name)  # noqa: PTH108  # one small file between two measurements
    found = re.search(r"(\d+) requests in ([\d.]+)(s|m)", output)
    if not found:
        raise SystemExit(f"wrk measured nothing: {output}")
    requests, took = int(found[1]), float(found[2]) * {"s": 1, "m": 60}[found[3]]
    wrong = sum(map(int, re.findall(r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)", output)))
    return Measured(
        name, requests / took, _ms(output, "50%"), _ms(output, "99%"), wrong, requests / spent, megabytes(pid)
    )


def _ms(output: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s)", output)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")


def isolated(*packages: str) -> list[str]:
    """The command that runs the next one in an environment of its own."""
    withs = [word for package in packages for word in ("--with", package)]
    return ["uv", "run", "-q", "--isolated", "--no-project", "--python", "3.11", *withs]


@asynccontextmanager
async def tailrace(folder: Path, bootstrap: str) -> AsyncIterator[tuple[int, str]]:
    """Serving with the model as champion."""
    prefix = f"peers-{os.getpid()}-{time.time_ns()}-"
    async with Site(bootstrap, prefix, folder) as site:
        await site._follower.stop()
        claim = await site.artefact(logistic(), ONNX)
        await site.publish(testing.applied(eight_features()), testing.versioned(1, claim), testing.deployed(1))
        port = free_port()
        environment = {**site.environment(port), "TAILRACE_LOG_LEVEL": "warning"}
        async with process(folder, sys.executable, "-m", "tailrace_serving.main", environment=environment) as pid:
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base) as client:
                await until_ready(client)
                yield pid, base
                await captured(client)


async def captured(client: httpx.AsyncClient) -> None:
    """Wait until every answer is on the topic; print how many, and how many were lost."""

    def total(text: str, name: str) -> int:
        return int(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{")))

    answered, taken, lost = 1, 0, 0
    until = time.monotonic() + 60
    while answered != taken + lost and time.monotonic() < until:
        await asyncio.sleep(0.1)
        text = (await client.get("/metrics")).text
        answered, taken = total(text, "tailrace_inferences_total"), total(text, "tailrace_captured_total")
        lost = total(text, "tailrace_capture_lost_total")
    print(f"tailrace: {answered} answered = {taken} on the topic + {lost} lost")


async def measure(arguments: argparse.Namespace, folder: Path) -> list[Measured]:
    """One round over every server."""
    (folder / "model.onnx").write_bytes(logistic())
    (folder / "route.py").write_text(FASTAPI)
    (folder / "service.py").write_text(BENTO)
    seconds, rows = arguments.seconds, []
    site = folder / "site"
    site.mkdir()
    async with tailrace(site, arguments.bootstrap) as (pid, base):
        for name, url, body in (
            ("Tailrace, tensors", f"{base}/v2/models/rain/infer", TENSORS),
            ("Tailrace, plain form", f"{base}/v1/models/rain/predict", {"features": FEATURES}),
        ):
            await wrk("warm", url, body, pid, 1)
            rows.append(await wrk(name, url, body, pid, seconds))
    port = free_port()
    server = ["uvicorn", "route:app", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    environment = isolated("fastapi", "uvicorn[standard]", "onnxruntime", "numpy")
    async with process(folder, *environment, *server) as pid:
        rows.append(await peer("FastAPI with pydantic", f"http://127.0.0.1:{port}/predict", FEATURES, pid, seconds))
    if "mlserver" in arguments.peers:
        rows.append(await mlserver(folder, seconds))
    if "bentoml" in arguments.peers:
        port = free_port()
        serve = ["bentoml", "serve", "service:Rain", "--port", str(port)]
        quiet = {"BENTOML_DO_NOT_TRACK": "True"}
        async with process(folder, *isolated("bentoml", "onnxruntime", "numpy"), *serve, environment=quiet) as pid:
            url = f"http://127.0.0.1:{port}/predict"
            rows.append(await peer("BentoML", url, {"row": FEATURES}, pid, seconds))
    return rows


async def mlserver(folder: Path, seconds: float) -> Measured:
    """MLServer with its sklearn runtime in the server's own process."""
    port = free_port()
    environment = isolated("mlserver", "mlserver-sklearn")
    made = await asyncio.create_subprocess_exec(*environment, "python", "-c", SKLEARN, cwd=folder)
    await made.wait()
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "debug": False, "host": "127.0.0.1"}))
    model = {"name": "rain", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
    (folder / "model-settings.json").write_text(json.dumps(model))
    async with process(folder, *environment, "mlserver", "start", ".") as pid:
        return await peer("MLServer (sklearn)", f"http://127.0.0.1:{port}/v2/models/rain/infer", MATRIX, pid, seconds)


async def peer(name: str, url: str, body: Any, pid: int, seconds: float) -> Measured:
    """A peer, once it answers and is warm."""
    await answers(url, body)
    await wrk("warm", url, body, pid, 1)
    return await wrk(name, url, body, pid, seconds)


async def measured(arguments: argparse.Namespace) -> None:
    """All rounds."""
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    for number in range(1, arguments.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for each in await measure(arguments, Path(folder)):
                print(
                    f"round {number} {each.name:24s} {each.requests_per_second:7.0f} requests/s,"
                    f" p50 {each.p50_ms:6.2f} ms, p99 {each.p99_ms:7.2f} ms, {each.errors} errors,"
                    f" {each.per_cpu_second:6.0f} per CPU second, {each.megabytes:4.0f} MB",
                    flush=True,
                )
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="*", default=["mlserver", "bentoml"])
    uvloop.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
