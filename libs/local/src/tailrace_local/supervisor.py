"""Runs the servers and the services of one home and stops them again.

    with Supervisor(home) as supervisor:              # or Supervisor(home, detached=True), to let them live on
        kafka = supervisor.start_kafka()
        supervisor.start("serving", [sys.executable, "-m", "tailrace_serving.main"], settings={...}, port=8104)
        supervisor.wait_ready()

`start` does not wait, so the services come up side by side; `wait_ready` waits for all of them and fails as soon as one
has ended. In the foreground everything dies with this process, even when it is killed. Detached, everything lives on
and is stopped by `home.down`; only a failed start is cleaned up. What runs is in run.json either way.
"""

import http.client
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tailrace_local import process
from tailrace_local.errors import StartFailed
from tailrace_local.home import Home, Kind, noted, stop_in_order
from tailrace_local.kafka import EmbeddedKafka
from tailrace_local.ports import HOST, claim_port
from tailrace_local.postgres import EmbeddedPostgres
from tailrace_local.process import Process
from tailrace_local.progress import Report, silent


@dataclass(frozen=True)
class _Started:
    kind: Kind
    process: Process
    port: int | None


class Supervisor:
    """What one command has started in a home."""

    def __init__(self, home: Home, *, detached: bool = False, report: Report = silent) -> None:
        """Prepares the home; nothing runs yet.

        Raises:
            NoSpace: the home cannot be written or has too little space left.
        """
        self.home = home
        self._detached = detached
        self._report = report
        self._started: list[_Started] = []
        home.prepare()

    def start_kafka(self, port: int | None = None) -> EmbeddedKafka:
        """Starts the broker and waits until it serves."""
        log = self.home.logs / "kafka.log"
        kafka = EmbeddedKafka(self.home.kafka, port=port, detached=self._detached, log=log, report=self._report)
        kafka.start()
        self._note("server", kafka.process, kafka.port)
        return kafka

    def start_postgres(self, port: int | None = None) -> EmbeddedPostgres:
        """Starts the database server and waits until it serves."""
        log = self.home.logs / "postgres.log"
        server = EmbeddedPostgres(self.home.postgres, port=port, detached=self._detached, log=log, report=self._report)
        server.start()
        self._note("server", server.process, server.port)
        return server

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        grace_seconds: float = 10.0,
    ) -> Process:
        """Starts a service and does not wait for it.

        Args:
            name: of the process, its log file and its errors.
            command: the program and its arguments.
            settings: environment variables beside those of this process.
            port: of 127.0.0.1 where it will serve `/readyz`; None: it is ready once it runs.
            grace_seconds: how long it may take to stop.

        Raises:
            PortInUse: another process listens on that port.
            StartFailed: the program cannot be started.
        """
        if port is not None:
            claim_port(name, port)
        started = process.start(
            name,
            command,
            log=self.home.logs / f"{name}.log",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(settings or {})},
            detached=self._detached,
            grace_seconds=grace_seconds,
        )
        self._note("service", started, port)
        return started

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Waits until every service started so far answers 200 to `/readyz`.

        Raises:
            StartFailed: one ended, or was not ready in time; the message names it and has its last log lines.
        """
        deadline = time.monotonic() + seconds
        for started in self._started:
            if started.kind == "service" and started.port is not None:
                self._report(f"Starting {started.process.name}", None)
                wait_ready(started.process, started.port, deadline)
                self._report(f"Starting {started.process.name}", 1.0)

    def ended(self) -> list[Process]:
        """Those that are no longer running, though nobody stopped them here."""
        return [started.process for started in self._started if not started.process.alive()]

    def stop(self) -> None:
        """Stops everything, services first, then the servers, and forgets it."""
        stop_in_order([(started.kind, started.process) for started in self._started])
        mine = {(started.process.id.pid, started.process.id.started) for started in self._started}
        self.home.note([entry for entry in self.home.running() if (entry.pid, entry.started) not in mine])
        self._started = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._detached:
            self.stop()

    def _note(self, kind: Kind, started: Process | None, port: int | None) -> None:
        if started is None:
            return
        self._started.append(_Started(kind, started, port))
        self.home.note([*self.home.running(), noted(started, kind, port)])


def wait_ready(started: Process, port: int, deadline: float, every_seconds: float = 0.1) -> None:
    """Waits until the process answers 200 to `/readyz`; `deadline` is in seconds of the monotonic clock.

    Raises:
        StartFailed: it ended, or was not ready in time.
    """
    while (answer := ask_ready(port)) != "":
        if not started.alive():
            raise StartFailed(
                f"{started.name} ended before it was ready (exit code {started.exit_code()}); "
                f"the end of {started.log}:\n{started.last_lines()}"
            )
        if time.monotonic() >= deadline:
            raise StartFailed(
                f"{started.name} is not ready in time: http://{HOST}:{port}/readyz {answer}; "
                f"the end of {started.log}:\n{started.last_lines()}"
            )
        time.sleep(every_seconds)


def ask_ready(port: int) -> str:
    """Empty when the service on this port of 127.0.0.1 is ready, else what it answered instead."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({error})"
    finally:
        connection.close()
    return "" if response.status == http.client.OK else f"answers {response.status} {body}"
