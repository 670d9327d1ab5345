"""The how-to on regressions does what it says: its model is learned, served, labelled, measured and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tailrace_testing import eventually
from tests.e2e.conftest import Running
from tests.e2e.test_tutorial import blocks

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "regression.md"
SECONDS = 120


def hours(script: Path, kind: str, first: int, last: int) -> str:
    """What the how-to's program prints."""
    command = [sys.executable, str(script), kind, str(first), str(last)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def page_of(tailrace: Running) -> dict[str, Any]:
    """What the console shows of the model."""
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{tailrace.port('monitoring')}/api/models/energy").json()
    return found


async def test_a_regression_goes_through_the_whole_loop(tailrace: Running, tmp_path: Path) -> None:
    """A reader of the how-to would be stuck in the middle of the loop with a model that predicts a number."""
    (spec, script, *_) = blocks(PAGE.read_text(encoding="utf-8"))
    (tmp_path / "energy.yaml").write_text(spec.text)
    program = tmp_path / "hours.py"
    program.write_text(script.text)
    assert tailrace.run("apply", str(tmp_path / "energy.yaml")).returncode == 0
    for kind in ("predictions", "labels"):
        sent = tailrace.run("send", kind, "-", text=hours(program, kind, 0, 500))
        assert sent.returncode == 0, sent.stderr

    def learned() -> bool:
        versions = [each for each in tailrace.json("models") if each["model"] == "energy" and each.get("mae")]
        return {each["role"] for each in versions} >= {"champion", "shadow"}

    await eventually(learned, SECONDS, 1)
    answers: dict[str, float] = {}
    url = f"http://127.0.0.1:{tailrace.port('serving')}"
    async with httpx.AsyncClient(base_url=url) as client:
        for line in hours(program, "predictions", 500, 800).splitlines():
            asked = json.loads(line)
            body = {name: asked[name] for name in ("prediction_id", "features", "time")}
            answer = await client.post("/v1/models/energy/predict", json=body)
            assert answer.status_code == 200, answer.text
            assert "probability" not in answer.json()
            answers[asked["prediction_id"]] = answer.json()["prediction"]
        outputs = (await client.get("/v2/models/energy")).json()["outputs"]
    assert {each["name"]: each["datatype"] for each in outputs} == {"prediction": "FP64", "prediction_id": "BYTES"}
    labels = hours(program, "labels", 500, 800)
    assert tailrace.run("send", "labels", "-", text=labels).returncode == 0
    truth = {each["prediction_id"]: each["label"] for each in map(json.loads, labels.splitlines())}
    mean_error = sum(abs(answers[name] - truth[name]) for name in truth) / len(truth)
    assert mean_error < 60

    def measured() -> bool:
        return (page_of(tailrace)["served"] or {}).get("examples") == len(truth)

    await eventually(measured, SECONDS, 0.5)
    page = page_of(tailrace)
    assert abs(page["served"]["metrics"]["mae"] - mean_error) < 1e-6
    cohorts = [each for each in page["cohorts"] if each["arm"] != "shadow"]
    assert sum(each["examples"] for each in cohorts) <= len(truth)
    assert all(each["accuracy"] is None and each["metrics"]["mae"] > 0 for each in cohorts)
    assert {each["group"] for each in page["groups"] if each["attribute"] == "at_home"} == {"yes", "no"}
    (compared,) = [arm["comparison"] for arm in page["arms"] if arm["comparison"]][:1]
    assert compared["examples"] >= 50
    assert compared["candidate_metrics"]["mae"] > 0
    assert compared["lower"] <= compared["mean_difference"] <= compared["upper"]
    assert [each for each in tailrace.json("dead-letters", "list") if each.get("model") == "energy"] == []
