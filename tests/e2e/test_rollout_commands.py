"""A person decides on the command line: each command does what it says, with a reason that is recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrace_testing import eventually
from tests.e2e.conftest import Running
from tests.e2e.rollbacks import network

MODEL = "by-hand"
SPEC = {
    "model": MODEL,
    "owner": "tests",
    "features": [
        {"name": "a", "type": "numerical", "limits": {"min": -5, "max": 5}},
        {"name": "c", "type": "categorical", "categories": ["x", "y"]},
    ],
    "label": {"name": "truth"},
}


def said(tailrace: Running, *arguments: str) -> str:
    """What `tailrace …` prints, which has to succeed."""
    done = tailrace.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def roles(tailrace: Running) -> dict[str, str]:
    """Each version with its role."""
    return {row["version"]: row["role"] for row in tailrace.json("models") if row["model"] == MODEL}


@pytest.mark.timeout(300)
async def test_a_person_decides_and_says_why(tailrace: Running, tmp_path: Path) -> None:
    """A command would be taken and not done, or nobody could read afterwards who wanted it, and why."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    said(tailrace, "apply", str(tmp_path / "spec.yaml"))
    for number in (1, 2, 3):
        (tmp_path / f"{number}.onnx").write_bytes(network([10.0 * number, 0, 0], 0))
        said(tailrace, "import", MODEL, str(tmp_path / f"{number}.onnx"))
    why = ("--reason", "because of the review")
    assert "version 3 of by-hand is called reviewed" in said(tailrace, "alias", MODEL, "reviewed", "latest", *why)
    assert "version 3 is the champion" in said(tailrace, "promote", MODEL, "reviewed", *why)
    assert "version 1 is the champion of by-hand again" in said(tailrace, "rollback", MODEL, *why)
    assert "nothing of by-hand is promoted" in said(tailrace, "pause", MODEL, *why)
    assert "promoted automatically again" in said(tailrace, "resume", MODEL, *why)
    (tmp_path / "4.onnx").write_bytes(network([4.0, 0, 0], 0))
    said(tailrace, "import", MODEL, str(tmp_path / "4.onnx"))
    assert "version 4 of by-hand is rejected" in said(tailrace, "reject", MODEL, "shadow", *why)
    assert "is called reviewed no more" in said(tailrace, "unalias", MODEL, "reviewed", *why)

    async def settled() -> bool:
        return roles(tailrace).items() >= {"1": "champion", "3": "rolled-back", "4": "rejected"}.items()

    await eventually(settled, seconds=20)
    entries = [each for each in tailrace.json("audit", "list", MODEL) if each["actor"] != "registry"]
    asked = {"set-alias", "promote", "rollback", "pause", "resume", "reject", "unset-alias"}
    assert asked <= {each["action"] for each in entries}
    assert "rolled-back" in said(tailrace, "lineage", MODEL, "3")
    assert tailrace.json("lineage", MODEL, "champion")["version"] == 1
    exported_by_day(tailrace, tmp_path)


def exported_by_day(tailrace: Running, folder: Path) -> None:
    """The export has the entries from the first moment on and before the last one, and no others."""
    today = datetime.now(UTC).date()
    days = [str(today + timedelta(days=each)) for each in (-1, 1, 2)]
    file = folder / "audit.jsonl"
    said(tailrace, "audit", "export", MODEL, "--from", days[0], "--to", days[1], "--output", str(file))
    assert "because of the review" in file.read_text()
    assert said(tailrace, "audit", "verify", str(file)).startswith("intact: ")
    for span in (("--from", days[1]), ("--to", days[0]), ("--from", days[1], "--to", days[2])):
        nothing = tailrace.run("audit", "export", MODEL, *span)
        assert nothing.returncode == 1
        assert "no audit entry of a model by-hand in that time" in nothing.stderr


@pytest.mark.parametrize(
    "command", [["promote", "m", "1"], ["reject", "m", "1"], ["rollback", "m"], ["pause", "m"], ["resume", "m"]]
)
def test_without_a_reason_nothing_is_asked(tailrace: Running, command: list[str]) -> None:
    """The audit log would have decisions that nobody can explain."""
    for reason in ([], ["--reason", " "]):
        done: Any = tailrace.run(*command, *reason)
        assert done.returncode == 2
        assert "--reason" in done.stderr
