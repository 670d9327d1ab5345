"""The tutorial does what it says: its files are written, its commands run, in order, against a running Tailrace."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tailrace_testing import eventually
from tests.e2e.conftest import TAILRACE, Running, environment

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
NOT_HERE = ("tailrace up", "tailrace down")
SECONDS = 90


class Block(NamedTuple):
    """A fenced block, with the file that the text before it names."""

    language: str
    text: str
    file: str


def blocks(page: str) -> list[Block]:
    """The page's bash, python and yaml blocks, in order."""
    found = re.finditer(r"^```(bash|python|yaml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], named_before(page, each.start())) for each in found]


def named_before(page: str, position: int) -> str:
    """The last file of the folder `delivery` that is named before this position."""
    names = re.findall(r"`(delivery/\w+\.\w+)`", page[:position])
    return names[-1] if names else ""


def with_ports(text: str, tailrace: Running) -> str:
    """The same text for a Tailrace on other ports."""
    for usual, name in (("9092", "kafka"), ("8103", "registry"), ("8104", "serving")):
        text = text.replace(f":{usual}", f":{tailrace.port(name)}")
    return text


def commands(folder: Path, tailrace: Running) -> dict[str, str]:
    """An environment in which `uv run` finds this virtual environment's tailrace and python."""
    return environment(tailrace.home.folder) | {"PATH": path_with_uv(folder)}


def path_with_uv(folder: Path) -> str:
    """Where programs are found, among them a `uv run` that runs what this virtual environment has."""
    stand_in = folder / "bin" / "uv"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    stand_in.chmod(0o755)
    return os.pathsep.join([str(stand_in.parent), str(Path(TAILRACE).parent), os.environ["PATH"]])


def typed(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What comes of typing this in a shell that stops at the first mistake."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


async def ready(tailrace: Running, command: str, *, lived: bool) -> None:
    """Wait for what a reader waits for before typing this command; `lived` once the change has been lived through."""
    registry = f"http://127.0.0.1:{tailrace.port('registry')}/v1/models/delivery"

    def serving() -> bool:
        champion = httpx.get(registry).json().get("champion")
        return champion is not None and (champion != 1 or not lived)

    async def parked() -> None:
        assert tailrace.json("dead-letters", "list", "--model", "delivery")

    if command.startswith("uv run tailrace models"):
        await eventually(serving, seconds=SECONDS)
    if command.startswith("uv run tailrace dead-letters"):
        await eventually(parked, seconds=SECONDS)


@pytest.mark.timeout(300)
async def test_the_tutorial_works(tailrace: Running, tmp_path: Path) -> None:
    """A newcomer would be stuck in the middle of the tutorial."""
    (tmp_path / "delivery").mkdir()
    env, said = commands(tmp_path, tailrace), ""
    for block in blocks(TUTORIAL.read_text(encoding="utf-8")):
        text = with_ports(block.text, tailrace)
        if block.language != "bash":
            (tmp_path / block.file).write_text(text)
            continue
        script = "\n".join(line for line in text.splitlines() if not line.endswith(NOT_HERE))
        await ready(tailrace, script, lived="2000 parcels" in said)
        done = await asyncio.to_thread(typed, script, tmp_path, env)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert '"error"' not in done.stdout, f"{script}\n{done.stdout}"
        said += done.stdout
    for words in ("sent 400 predictions", '"prediction_id":"my-first"', "2000 parcels", "would replay 1 record"):
        assert words in said
    assert re.search(r"unseen-category +delivery", said)
