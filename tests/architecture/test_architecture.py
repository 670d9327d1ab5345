"""The rules of the house as tests: boundaries, types, style, pins."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent for path in (*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")))
SERVICES = [member for member in MEMBERS if member.parent.name == "services"]


def run(*command: str) -> None:
    """Run a check in the repository's root; its output is the failure's message."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_boundaries_hold() -> None:
    """A service that imports another can no longer be deployed, scaled or replaced by itself."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_style() -> None:
    """The code would drift into as many styles as it has authors."""
    run("ruff", "check", ".")


def test_format() -> None:
    """Changes would drown in differences of layout."""
    run("ruff", "format", "--check", ".")


@pytest.mark.timeout(600)
def test_types() -> None:
    """A call with wrong arguments would show itself at three in the morning."""
    run("mypy", "libs", "services", "tests")


def test_pins_are_what_a_fresh_resolution_gives() -> None:
    """Two machines would run two different sets of packages."""
    run_script = ROOT / "tests" / "architecture" / "pins.py"
    done = subprocess.run(
        [sys.executable, run_script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_member_declares_what_it_imports_from_the_workspace(member: Path) -> None:
    """A member that is installed alone would fail at its first import."""
    project = tomllib.loads((member / "pyproject.toml").read_text())
    declared = {each.split("[")[0].split(">")[0].strip() for each in project["project"]["dependencies"]}
    own = project["project"]["name"]
    imported = {
        word.split(".")[0].replace("_", "-")
        for source in (member / "src").rglob("*.py")
        for line in source.read_text().splitlines()
        if line.lstrip().startswith(("from tailrace_", "import tailrace_"))
        for word in [line.split()[1]]
    }
    assert imported - {own} <= declared


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_main_fits_on_a_screen(service: Path) -> None:
    """A newcomer could not see in twenty lines what a service reads, does and writes."""
    main = service / "src" / f"tailrace_{service.name}" / "main.py"
    code = [line for line in main.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 20


def test_the_serving_service_needs_no_torch() -> None:
    """The serving image would be five gigabytes larger."""
    seen: set[str] = set()
    todo = ["tailrace-serving"]
    by_name = {tomllib.loads((member / "pyproject.toml").read_text())["project"]["name"]: member for member in MEMBERS}
    while todo:
        name = todo.pop()
        if name in seen or name not in by_name:
            seen.add(name)
            continue
        seen.add(name)
        project = tomllib.loads((by_name[name] / "pyproject.toml").read_text())["project"]
        todo += [each.split("[")[0].split(">")[0].strip() for each in project["dependencies"]]
    assert "torch" not in seen
