"""Everything on one machine: a broker, a database, a folder as object store, and the five services as processes.

`bring_up` starts what is missing and waits until all is ready. Services get their settings through the environment:
each its own port and state folder, and those with a database their own schema, role and password in it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tailrace_cli.connection import CommandError
from tailrace_local import Home, PortInUse, Report, StartFailed, Supervisor, down, free_port
from tailrace_local.ports import port_is_free
from tailrace_runtime.database import provision
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all

SERVICES = ("ingestion", "training", "registry", "serving", "monitoring")
WITH_DATABASE = ("registry", "monitoring")
BASE_PORT = 8100
KAFKA_PORT = 9092
READY_SECONDS = 120.0
PORT_TAKEN = "Address already in use"


def is_up(home: Home) -> bool:
    """Whether the broker, the database and every service run in this home."""
    return {entry.name for entry in home.running()} >= {"kafka", "postgres", *SERVICES}


def bring_up(home: Home, *, detached: bool, report: Report, base_port: int | None = None) -> Supervisor:
    """Start everything in `home` and wait until it is ready; what is left of an earlier, broken start is stopped first.

    Services listen on `base_port` + 1 to + 5 (default: 8101 to 8105, or free ports where one is taken).
    Raises LocalError (no space, port in use, a process that does not start), each in one sentence.
    """
    with home.starting():
        down(home)
        try:
            return _attempt(home, Ports(base_port), detached=detached, report=report)
        except (PortInUse, StartFailed) as error:  # somebody took a usual port between the look and the start
            if base_port is not None or not (isinstance(error, PortInUse) or PORT_TAKEN in str(error)):
                raise
        return _attempt(home, Ports(None, usual=False), detached=detached, report=report)


@dataclass(frozen=True)
class Ports:
    """Where things listen: on ports that were asked for, on the usual ones where they are free, or on any free ones."""

    base: int | None
    usual: bool = True

    def of_service(self, number: int) -> int:
        """The port of the service with this number."""
        return self.base + number if self.base is not None else self._free(BASE_PORT + number)

    def of_kafka(self) -> int:
        """The broker's port."""
        return self._free(KAFKA_PORT)

    def _free(self, port: int) -> int:
        return port if self.usual and port_is_free(port) else free_port()


def _attempt(home: Home, ports: Ports, *, detached: bool, report: Report) -> Supervisor:
    supervisor = Supervisor(home, detached=detached, report=report)
    try:
        _start(supervisor, home, ports, report)
    except BaseException:
        supervisor.stop()
        raise
    return supervisor


def _start(supervisor: Supervisor, home: Home, ports: Ports, report: Report) -> None:
    with ThreadPoolExecutor(2) as pool:
        kafka_starts = pool.submit(supervisor.start_kafka, ports.of_kafka())
        postgres_starts = pool.submit(supervisor.start_postgres)
        kafka, postgres = kafka_starts.result(), postgres_starts.result()
    report("Creating topics and schemas", None)
    asyncio.run(create_all(KafkaSettings(kafka_bootstrap=kafka.bootstrap)))
    urls = asyncio.run(_provision(home, postgres.admin_url))
    report("Creating topics and schemas", 1.0)
    for number, service in enumerate(SERVICES, start=1):
        port = ports.of_service(number)
        supervisor.start(
            service,
            [sys.executable, "-m", f"tailrace_{service}.main"],
            settings=_settings(home, service, port, kafka.bootstrap, urls),
            port=port,
        )
    supervisor.wait_ready(READY_SECONDS)


def _settings(home: Home, service: str, port: int, bootstrap: str, urls: dict[str, str]) -> dict[str, str]:
    settings = {
        "TAILRACE_KAFKA_BOOTSTRAP": bootstrap,
        "TAILRACE_TOPIC_PREFIX": "",
        "TAILRACE_REPLICATION_FACTOR": "1",
        "TAILRACE_OBJECT_STORE": home.objects.as_uri(),
        "TAILRACE_SIGNING_KEY_FILE": str(home.signing_key_file),
        "TAILRACE_STATE_DIR": str(home.state / service),
        "TAILRACE_HOST": "127.0.0.1",
        "TAILRACE_PORT": str(port),
        "TAILRACE_ROLES": "",
        "TAILRACE_INSTANCE": "local",
    }
    return settings | ({"TAILRACE_DATABASE_URL": urls[service]} if service in urls else {})


async def _provision(home: Home, admin_url: str) -> dict[str, str]:
    return {
        service: await provision(admin_url, service, password(home.folder / "secrets" / f"{service}.password"))
        for service in WITH_DATABASE
    }


def password(path: Path) -> str:
    """The password in a file that only its owner reads; made on first use."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text().strip()


def take_down(home: Home) -> list[str]:
    """Stop everything that runs in this home; returns the names. Raises CommandError when nothing runs."""
    with home.starting():
        stopped = [entry.name for entry in down(home)]
    if not stopped:
        msg = f"nothing runs in {home.folder}"
        raise CommandError(msg)
    return stopped
