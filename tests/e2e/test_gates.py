"""A candidate that is better and too slow is held at a gate that names itself, until nobody asks for the gate any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tailrace_testing import eventually
from tests.e2e.conftest import Running
from tests.e2e.rollbacks import Callers, done, network, slow

MODEL = "held-at-a-gate"
ROLLOUT = {"shadow_min_examples": 20, "canary_min_examples": 20, "max_examples": 100_000}
SPEC: dict[str, Any] = {
    "model": MODEL,
    "owner": "tests",
    "features": [
        {"name": "a", "type": "numerical", "limits": {"min": -5, "max": 5}},
        {"name": "c", "type": "categorical", "categories": ["x", "y"]},
    ],
    "label": {"name": "truth"},
}
GATES = {"latency": {"max_p99_ms": 20, "min_calls": 20}, "errors": {"max_error_rate": 0.1, "min_rows": 20}}


def apply(tailrace: Running, folder: Path, rollout: dict[str, Any]) -> None:
    """`tailrace apply` with this rollout."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC | {"rollout": rollout}))
    done(tailrace, "apply", str(folder / "spec.yaml"))


@pytest.mark.timeout(300)
async def test_a_slow_candidate_is_held_by_name_until_the_gate_is_gone(tailrace: Running, tmp_path: Path) -> None:
    """A better version that answers in a tenth of a second would be promoted, or held back and nobody could say why."""
    apply(tailrace, tmp_path, ROLLOUT | {"gates": GATES})
    (tmp_path / "wrong.onnx").write_bytes(network([-10, 0, 0], 0))
    (tmp_path / "slow.onnx").write_bytes(slow())
    async with httpx.AsyncClient(timeout=30) as client:
        callers = Callers(tailrace, MODEL, client)
        await asyncio.to_thread(done, tailrace, "import", MODEL, str(tmp_path / "wrong.onnx"))
        await callers.until(1)
        await asyncio.to_thread(done, tailrace, "import", MODEL, str(tmp_path / "slow.onnx"))

        async def version() -> dict[str, Any]:
            await callers.ask()
            found: dict[str, Any] = (await client.get(f"{callers.registry}/versions/2")).json()["version"]
            return found

        async def judged() -> bool:
            found: dict[str, str] = {gate["gate"]: gate["state"] for gate in (await version())["gates"]}
            return found == {"latency": "failed", "errors": "passed"}

        await eventually(judged, seconds=120)
        assert (await version())["stage"] == "shadow"
        shown = await asyncio.to_thread(tailrace.run, "models")
        assert "latency failed: its 99th percentile is" in shown.stdout
        entries = await asyncio.to_thread(tailrace.json, "audit", "list", MODEL)
        assert ("gate-failed", "version 2") in [(each["action"], each["subject"]) for each in entries]
        await asyncio.to_thread(apply, tailrace, tmp_path, ROLLOUT)

        async def promoted() -> bool:
            return bool((await version())["stage"] == "champion")

        await eventually(promoted, seconds=120)
