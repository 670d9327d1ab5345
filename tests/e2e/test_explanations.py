"""The how-to on explanations does what it says: a decision is explained, recorded, and explained later as it was."""

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

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "explanations.md"
SECONDS = 120
ASKED = {"features": {"income": 2000, "debt": 1500, "housing": "rent"}, "prediction_id": "asked-1"}


def people(script: Path, kind: str) -> str:
    """What the how-to's program prints."""
    return subprocess.run(
        [sys.executable, str(script), kind, "0", "500"], capture_output=True, text=True, check=True
    ).stdout


async def test_a_decision_is_explained_later_as_it_was(tailrace: Running, tmp_path: Path) -> None:
    """An auditor who follows the how-to would not find why a decision was taken, or would find something else."""
    spec, script, _, query = blocks(PAGE.read_text(encoding="utf-8"))
    (tmp_path / "loans.yaml").write_text(spec.text)
    (tmp_path / "people.py").write_text(script.text)
    assert tailrace.run("apply", str(tmp_path / "loans.yaml")).returncode == 0
    for kind in ("predictions", "labels"):
        sent = tailrace.run("send", kind, "-", text=people(tmp_path / "people.py", kind))
        assert sent.returncode == 0, sent.stderr
    url = f"http://127.0.0.1:{tailrace.port('serving')}"
    async with httpx.AsyncClient(base_url=url) as client:
        told: dict[str, Any] = {}

        async def explained() -> bool:
            answer = await client.post("/v1/models/loans/explain", json=ASKED | {"record": False})
            told.update(answer.json())
            return answer.status_code == 200 and told["version"] >= 1

        await eventually(explained, SECONDS, 0.5)
        told = (await client.post("/v1/models/loans/explain", json=ASKED)).json()
        live = (await client.post("/v1/models/loans/predict", json=ASKED | {"prediction_id": "live-1"})).json()
    explanation = told["explanation"]
    assert (explanation["method"], explanation["scale"]) == ("linear-exact", "log-odds")
    assert all(value > 0 for value in explanation["contributions"].values())
    total = explanation["base_value"] + sum(explanation["contributions"].values())
    assert abs(total - explanation["output"]) < 1e-9

    recorded: dict[str, Any] = {}

    def found(prediction_id: str) -> bool:
        done = tailrace.run("explanation", prediction_id, "--json")
        recorded[prediction_id] = json.loads(done.stdout) if done.returncode == 0 else None
        return done.returncode == 0

    await eventually(lambda: found("asked-1"), SECONDS, 1)
    await eventually(lambda: found("live-1"), SECONDS, 1)
    assert recorded["asked-1"]["explanation"] == explanation
    assert recorded["live-1"]["served"]["probability"] == live["probability"]
    assert set(recorded["live-1"]["explanation"]["contributions"]) == {"income", "debt", "housing"}
    shown = tailrace.run("explanation", "asked-1")
    assert "exact, against 100 reference rows" in shown.stdout
    assert not shown.stderr
    first, *others = (line.split()[0] for line in shown.stdout.splitlines()[3:])
    assert (first, set(others)) == ("debt", {"income", "housing"})

    def archived() -> bool:
        command = [sys.executable, "-c", query.text]
        done = subprocess.run(command, cwd=tailrace.home.objects.parent, capture_output=True, text=True, check=False)
        return "2 explained, most often by debt" in done.stdout

    await eventually(archived, SECONDS, 2)
