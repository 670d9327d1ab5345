"""One whole Tailrace for the end-to-end tests: brought up as `tailrace up` does it, in a folder and on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tailrace_cli import stack
from tailrace_local import Home, silent

TAILRACE = str(Path(sys.executable).with_name("tailrace"))


@dataclass(frozen=True)
class Running:
    """A running Tailrace and its command line."""

    home: Home

    def port(self, name: str) -> int:
        """Where a process of it listens."""
        return next(entry.port or 0 for entry in self.home.running() if entry.name == name)

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """`tailrace …` against it."""
        return run(self.home.folder, *arguments, text=text)

    def json(self, *arguments: str) -> Any:
        """What `tailrace … --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def environment(home: Path) -> dict[str, str]:
    """This process's environment, with nothing in it that points to another Tailrace."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    cache = {"TAILRACE_CACHE": os.environ["TAILRACE_CACHE"]} if "TAILRACE_CACHE" in os.environ else {}
    return own | cache | {"TAILRACE_HOME": str(home), "COLUMNS": "200"}


def run(home: Path, *arguments: str, text: str | None = None, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """`tailrace …` with this home."""
    return subprocess.run(
        [TAILRACE, *arguments],
        env=environment(home),
        input=text,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="session")
def tailrace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running Tailrace, shared by the session; every test uses model names of its own."""
    home = Home(tmp_path_factory.mktemp("tailrace") / "home")
    with stack.bring_up(home, detached=False, report=silent):
        yield Running(home)
