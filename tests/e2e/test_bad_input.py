"""What a person gets who makes a mistake: one sentence, no traceback, and nothing lost."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tailrace_testing import eventually
from tests.e2e.conftest import TAILRACE, Running, run

SPEC: dict[str, Any] = {
    "owner": "tests",
    "features": [
        {"name": "a", "type": "numerical", "limits": {"min": -5, "max": 5}},
        {"name": "c", "type": "categorical", "categories": ["x", "y"], "on_unseen": "reject"},
    ],
    "label": {"name": "truth"},
}


def applied(tailrace: Running, folder: Path, model: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    """`tailrace apply` of a small spec with these changes."""
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"model": model} | changes))
    return tailrace.run("apply", str(path))


def prediction(model: str, name: str, **changes: Any) -> dict[str, Any]:
    """A valid event with these changes."""
    features = {"a": 1.0, "c": "x"}
    return {"prediction_id": f"{model}-{name}", "model": model, "time": None, "features": features} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oener": "x"}, "oener: unknown field"),
        ({"owner": 7}, "owner: Input should be a valid string, found 7"),
        ({"features": [*SPEC["features"], SPEC["features"][0]]}, "feature named twice: a"),
        ({"label": {"name": "a"}}, "the label 'a' is among the features"),
    ],
)
def test_a_wrong_spec(tailrace: Running, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """A mistake in a spec would be applied, or end in a traceback."""
    done = applied(tailrace, tmp_path, "wrong", **changes)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


async def test_wrong_events_are_parked_with_a_sentence_and_can_come_back(tailrace: Running, tmp_path: Path) -> None:
    """One bad event would stop the stream, vanish, or be counted as good."""
    model = "parked"
    assert applied(tailrace, tmp_path, model).returncode == 0
    wrong = {
        "missing": ("missing-feature", prediction(model, "missing", features={"a": 1.0})),
        "extra": ("extra-feature", prediction(model, "extra", features={"a": 1.0, "c": "x", "z": 2})),
        "type": ("wrong-type", prediction(model, "type", features={"a": "high", "c": "x"})),
        "limits": ("out-of-limits", prediction(model, "limits", features={"a": 94.0, "c": "x"})),
        "unseen": ("unseen-category", prediction(model, "unseen", features={"a": 1.0, "c": "q"})),
        "time": ("time-out-of-range", prediction(model, "time", time="2016-01-01T00:00:00Z")),
        "model": ("unknown-model", prediction("nobody", "model")),
    }
    lines = [prediction(model, "good"), *(event for _, event in wrong.values())]
    done = tailrace.run("send", "predictions", "-", text="\n".join(map(json.dumps, lines)))
    assert done.returncode == 0, done.stderr

    async def parked() -> dict[str, str]:
        rows = tailrace.json("dead-letters", "list", "--topic", "prediction-events")
        codes = {row["code"]: row["reason"] for row in rows if row["model"] in {model, "nobody"}}
        assert set(codes) == {code for code, _ in wrong.values()}
        return codes

    reasons = await eventually(parked)
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert applied(tailrace, tmp_path, "nobody").returncode == 0
    filters = ("--code", "unknown-model", "--model", "nobody", "--by", "validate", "--since", "1h")
    assert tailrace.run("dead-letters", "replay", *filters, "--dry-run").stdout.startswith("would replay 1 record")
    assert tailrace.run("dead-letters", "replay", *filters, "--rate", "5").stdout.startswith("replayed 1 record")
    assert tailrace.run("dead-letters", "replay", *filters).stdout.startswith("replayed 0 records; left alone: 1")

    async def counted_once() -> bool:
        return [row["predictions"] for row in tailrace.json("coverage", "nobody")] == [1]

    assert await eventually(counted_once)
    (case,) = tailrace.json("dead-letters", "list", *filters)
    assert case["state"] == "replayed"
    assert tailrace.json("dead-letters", "show", case["record"])["replays"] == 1


async def test_a_file_of_nothing_but_mistakes_stops_nobody(tailrace: Running, tmp_path: Path) -> None:
    """One producer with a misspelt model name would stop ingestion for all models, for good."""
    lines = [prediction("misspelt", str(number), time="2026-05-04T00:00:00Z") for number in range(500)]
    assert tailrace.run("send", "predictions", "-", text="\n".join(map(json.dumps, lines))).returncode == 0

    async def all_parked() -> bool:
        return len(tailrace.json("dead-letters", "list", "--model", "misspelt")) == len(lines)

    assert await eventually(all_parked)
    assert applied(tailrace, tmp_path, "misspelt").returncode == 0
    states = {row["name"]: row["state"] for row in tailrace.json("status")}
    assert states["ingestion"] == "running"


def test_inference_mistakes(tailrace: Running) -> None:
    """A gateway would get a 500 with a traceback for its own mistake."""
    url = f"http://127.0.0.1:{tailrace.port('serving')}"
    answer = httpx.post(f"{url}/v2/models/nobody-knows/infer", json={"inputs": []})
    assert answer.status_code == 404
    assert "nobody-knows" in answer.json()["error"]


def test_too_large_a_body(tailrace: Running) -> None:
    """One client could fill the gateway's memory."""
    url = f"http://127.0.0.1:{tailrace.port('ingestion')}"
    big = httpx.post(f"{url}/v1/predictions", content=b"x" * 30_000_000)
    assert big.status_code == 413
    assert big.json()["error"]


def test_a_command_to_nobody(tailrace: Running) -> None:
    """A typing error in a model's name would look as if it had worked."""
    for arguments in (("promote", "nobody-knows", "1"), ("rollback", "nobody-knows"), ("train", "nobody-knows")):
        done = tailrace.run(*arguments, "--reason", "a try")
        assert done.returncode == 1
        assert "nobody-knows" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    """`up` would hang, or come up half."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        base = taken.getsockname()[1] - 1
        done = run(tmp_path / "home", "up", "--port", str(base))
    assert done.returncode == 1
    assert str(base + 1) in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_runs(tmp_path: Path) -> None:
    """A newcomer's first mistake would be answered with a stack trace of the Kafka client."""
    done = run(tmp_path / "home", "models")
    assert done.returncode == 1
    assert "tailrace up" in done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a file system of its own, made by unshare")
def test_a_disk_without_space(tmp_path: Path) -> None:
    """`up` would fail deep inside the broker."""
    script = f"mount -t tmpfs -o size=1m none {tmp_path} && exec env TAILRACE_HOME={tmp_path}/home {TAILRACE} up"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 1
    assert "MB" in done.stderr
    assert "Traceback" not in done.stderr
