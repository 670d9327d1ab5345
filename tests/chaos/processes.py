"""Processes of the ingestion service, with the points at which they die or freeze."""

from __future__ import annotations

import os
from pathlib import Path

from tailrace_ingestion.settings import IngestionSettings
from tailrace_testing import ServiceProcess, environment_of
from tests.chaos.worker import FILE_BYTES, Point

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]


class Member(ServiceProcess):
    """One member of a role's group."""

    def __init__(self, settings: IngestionSettings, roles: str, instance: str, logs: Path) -> None:
        name = f"{roles or 'all'}-{instance}"
        given = {"PYTHONPATH": str(ROOT), "TAILRACE_ROLES": roles, "TAILRACE_INSTANCE": instance}
        super().__init__(name, [WORKER], logs / f"{name}.log", **environment_of(settings), **given)

    def start_at(self, point: Point) -> None:
        """Start it, to die or to freeze at this point."""
        self.start(point.environment())

    def start_with_full_disk(self, file_bytes: int) -> None:
        """Start it on a disk that is full at so many bytes: there is no room for a log either."""
        self.start({FILE_BYTES: str(file_bytes)}, log=Path(os.devnull))
