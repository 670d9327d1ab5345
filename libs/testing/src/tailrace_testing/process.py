"""A process of a service, for tests that kill it: started, waited for, killed, frozen, and started again under its name.

Name, port and log stay however often it is started. What it writes goes to its log, which is appended to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from tailrace_local import free_port

_PREFIX = "TAILRACE_"


class Settings(Protocol):
    """A service's settings: a pydantic model."""

    def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]:
        """The values that were given."""
        ...


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that were given, as variables: what a process is started with to have the same ones, but for its port."""
    given = settings.model_dump(exclude_unset=True)
    return {f"{_PREFIX}{name.upper()}": str(value) for name, value in given.items() if name != "port"}


class ServiceProcess:
    """One process of a service."""

    def __init__(self, name: str, program: Sequence[str | Path], log: Path, **environment: str) -> None:
        """Describes it; nothing runs yet.

        Args:
            name: what people call it.
            program: the arguments of the Python interpreter: a file, or `-m` and a module.
            log: what it writes is appended here.
            environment: beside this process's own, less whatever there is of Tailrace in that.
        """
        self.name = name
        self.port = free_port()
        self.log = log
        self.starts = self.kills = self.gave_up = 0
        self._command = [sys.executable, *map(str, program)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        self._environment = {**inherited, f"{_PREFIX}PORT": str(self.port), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, more: Mapping[str, str] | None = None, *, log: Path | None = None) -> None:
        """Start it, this once with more variables, or with another log."""
        with (log or self.log).open("ab") as written:
            given = {**self._environment, **(more or {})}
            self._process = subprocess.Popen(  # noqa: S603 - a command of our own
                self._command, env=given, stdout=written, stderr=written
            )
        self.starts += 1

    @property
    def base(self) -> str:
        """Where it answers over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process as it was started last."""
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        return self._process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    @property
    def ended(self) -> int | None:
        """The exit code; None while it runs, or before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self.ended is None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def written(self) -> str:
        """What it has written, in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # ------------------------------------------------------------ what is done to it

    def kill(self) -> None:
        """End it as a power cut would; one that has ended, or never began, is left alone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self.kills += 1

    def freeze(self) -> None:
        """Let it stand still, as a machine that hangs would."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def tend(self) -> None:
        """What an orchestrator does: start it again when it has given up."""
        if self.ended is not None:
            self.gave_up += 1
            self.start()

    async def told_to_stop(self, seconds: float = 30) -> int:
        """Stop it in good order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.end(seconds)

    async def end(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended by itself. Raises subprocess.TimeoutExpired."""
        return await asyncio.to_thread(self.process.wait, seconds)

    # ------------------------------------------------------------ what it says

    async def get(self, path: str) -> tuple[int, str]:
        """What it answers; (0, "") while it does not listen."""
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(self.base + path, timeout=2)
            except httpx.HTTPError:
                return 0, ""
        return answer.status_code, answer.text

    async def ready(self) -> bool:
        """Whether it says so."""
        return (await self.get("/readyz"))[0] == httpx.codes.OK

    async def metric(self, line: str) -> float:
        """The value of the first metric whose line begins so; 0 where there is none."""
        _, text = await self.get("/metrics")
        return next((float(each.split()[-1]) for each in text.splitlines() if each.startswith(line)), 0.0)
