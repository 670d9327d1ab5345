"""The loop but for training, as processes: ingestion, serving, registry and monitoring between a Kafka and a PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tailrace_runtime.database import provision
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all
from tailrace_testing import ServiceProcess, environment_of, eventually
from tests.chaos.processes import ROOT, WORKER
from tests.chaos.worker import Point

STRUCK = ("serving", "registry", "monitoring")
"""The services that are killed; ingestion has a scenario of its own."""

READY_SECONDS = 120
_PASSWORD = "a-password"  # noqa: S105 - of a database that lives as long as the run
_KEY = b"a signing key for chaos, 32 bytes\n"


@dataclass(slots=True)
class Fleet:
    """One process of each service, and what they stand on."""

    settings: KafkaSettings
    admin_url: str
    folder: Path
    processes: dict[str, ServiceProcess] = field(default_factory=dict)

    async def begin(self) -> None:
        """Create topics and schemas, and start everything."""
        await create_all(self.settings)
        (self.folder / "signing.key").write_bytes(_KEY)
        for service in ("ingestion", *STRUCK):
            self.processes[service] = ServiceProcess(
                service, [WORKER, service], self.folder / f"{service}.log", **await self._environment(service)
            )
            self.processes[service].start()
        for process in self.processes.values():
            await eventually(process.ready, seconds=READY_SECONDS)

    async def _environment(self, service: str) -> Mapping[str, str]:
        """What a process of the service is started with."""
        database = {"TAILRACE_DATABASE_URL": await provision(self.admin_url, service, _PASSWORD)}
        return {
            **environment_of(self.settings),
            "PYTHONPATH": str(ROOT),
            "TAILRACE_OBJECT_STORE": self.objects_url,
            "TAILRACE_SIGNING_KEY_FILE": str(self.folder / "signing.key"),
            "TAILRACE_STATE_DIR": str(self.folder / "state" / service),
            "TAILRACE_ARTEFACT_RETRY_SECONDS": "1",
            **(database if service in {"registry", "monitoring"} else {}),
        }

    @property
    def objects_url(self) -> str:
        """The object store that all share."""
        return (self.folder / "objects").as_uri()

    @property
    def objects(self) -> ObjectStore:
        """The object store."""
        return ObjectStore.from_url(self.objects_url)

    def producer(self) -> Producer:
        """A producer of the world outside."""
        return Producer(self.settings, client_id="world")

    async def strike_at(self, service: str, point: Point) -> None:
        """Start the service again, to die at this point."""
        process = self.processes[service]
        process.kill()
        process.start(point.environment())

    async def begin_again(self, service: str) -> None:
        """Start it, and wait until it is ready."""
        process = self.processes[service]
        process.start()
        await eventually(process.ready, seconds=READY_SECONDS)

    async def lose_database(self, service: str) -> None:
        """Kill it, and leave it an empty database."""
        self.processes[service].kill()
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(f"drop schema {service} cascade")
        finally:
            await connection.close()
        await provision(self.admin_url, service, _PASSWORD)

    def clean_up(self) -> None:
        """Leave nothing running."""
        for process in self.processes.values():
            process.kill()
