"""Processes of the ingestion service, which can be killed, frozen, thawed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import httpx
import psutil

from tailrace_ingestion.settings import IngestionSettings
from tests.chaos.worker import FILE_BYTES, Point

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]


class Member:
    """One member of a role's group: a process under a name that stays, however often it is started."""

    def __init__(self, settings: IngestionSettings, roles: str, instance: str, logs: Path) -> None:
        self.name = f"{roles or 'all'}-{instance}"
        self.port = free_port()
        self.log = logs / f"{self.name}.log"
        self.starts = self.kills = self.gave_up = 0
        self._environment = environment(settings, roles, instance, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, point: Point | None = None, *, file_bytes: int | None = None) -> None:
        """Start the process, with a point at which it dies or freezes, or with a disk that is full at so many bytes.

        A full disk has no room for a log either.
        """
        given = self._environment | (point.environment() if point else {})
        if file_bytes is not None:
            given[FILE_BYTES] = str(file_bytes)
        with (self.log if file_bytes is None else Path(os.devnull)).open("ab") as log:
            self._process = launched(given, log)
        self.starts += 1

    @property
    def pid(self) -> int:
        """The process's number."""
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self.ended is None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self.kills += 1

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def tend(self) -> None:
        """What an orchestrator does: start it again when it has given up."""
        if self._process is not None and self.ended is not None:
            self.gave_up += 1
            self.start()

    async def get(self, path: str) -> tuple[int, str]:
        """What a probe answers; (0, "") while the process does not listen."""
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=2)
            except httpx.HTTPError:
                return 0, ""
        return answer.status_code, answer.text

    async def ready(self) -> bool:
        """Whether it says so."""
        return (await self.get("/readyz"))[0] == 200

    async def metric(self, line: str) -> float:
        """The value of the first metric whose line begins so; 0 where there is none."""
        _, text = await self.get("/metrics")
        return next((float(each.split()[-1]) for each in text.splitlines() if each.startswith(line)), 0.0)

    async def told_to_stop(self, seconds: float = 30) -> int:
        """Stop it in good order; its exit code."""
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, seconds)


def environment(settings: IngestionSettings, roles: str, instance: str, port: int) -> dict[str, str]:
    """The settings as a process gets them."""
    given = {name: value for name, value in settings.model_dump(exclude_unset=True).items() if name != "port"}
    return {
        **os.environ,
        **{f"TAILRACE_{name.upper()}": str(value) for name, value in given.items()},
        "PYTHONPATH": str(ROOT),
        "TAILRACE_PORT": str(port),
        "TAILRACE_ROLES": roles,
        "TAILRACE_INSTANCE": instance,
    }


def launched(given: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The worker, started."""
    return subprocess.Popen([sys.executable, str(WORKER)], env=given, stdout=log, stderr=log)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
