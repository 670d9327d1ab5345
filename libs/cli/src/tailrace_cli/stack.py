"""Everything on one machine: a broker, a database, a folder as object store, and the five services as processes.

`bring_up` starts what is missing and waits until all is ready. Services get their settings through the environment:
each its own port and state folder, and those with a database their own schema, role and password in it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tailrace_cli.connection import CommandError
from tailrace_local import Home, Report, Supervisor, down, free_port
from tailrace_local.ports import port_is_free
from tailrace_runtime.database import provision
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all

SERVICES = ("ingestion", "training", "registry", "serving", "monitoring")
WITH_DATABASE = ("registry", "monitoring")
BASE_PORT = 8100
KAFKA_PORT = 9092
READY_SECONDS = 120.0


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
        supervisor = Supervisor(home, detached=detached, report=report)
        try:
            _start(supervisor, home, report, base_port)
        except BaseException:
            supervisor.stop()
            raise
    return supervisor


def _start(supervisor: Supervisor, home: Home, report: Report, base_port: int | None) -> None:
    with ThreadPoolExecutor(2) as pool:
        kafka_starts = pool.submit(supervisor.start_kafka, _wanted_port(KAFKA_PORT, asked=False))
        postgres_starts = pool.submit(supervisor.start_postgres)
        kafka, postgres = kafka_starts.result(), postgres_starts.result()
    report("Creating topics and schemas", None)
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap)
    asyncio.run(create_all(settings))
    urls = asyncio.run(_provision(home, postgres.admin_url))
    report("Creating topics and schemas", 1.0)
    for number, service in enumerate(SERVICES, start=1):
        port = _wanted_port((base_port or BASE_PORT) + number, asked=base_port is not None)
        supervisor.start(
            service,
            [sys.executable, "-m", f"tailrace_{service}.main"],
            settings=_settings(home, service, port, kafka.bootstrap, urls),
            port=port,
        )
    supervisor.wait_ready(READY_SECONDS)


def _wanted_port(port: int, *, asked: bool) -> int:
    """The port that was asked for, or the usual one where it is free, or any free one."""
    return port if asked or port_is_free(port) else free_port()


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
