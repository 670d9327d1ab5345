"""Kafka, PostgreSQL and the services on one machine, without a container engine.

`EmbeddedKafka` and `EmbeddedPostgres` are real servers in a folder; `Home` is the `.tailrace` folder; `Supervisor` runs
the servers and the services of a home; `down` stops what another command has left running there.
"""

from tailrace_local.errors import FolderInUse, LocalError, NoSpace, PortInUse, StartFailed
from tailrace_local.home import Home, Running, down
from tailrace_local.kafka import EmbeddedKafka
from tailrace_local.ports import free_port
from tailrace_local.postgres import EmbeddedPostgres
from tailrace_local.process import Process, ProcessId
from tailrace_local.progress import Report, shown, silent
from tailrace_local.supervisor import Supervisor

__all__ = [
    "EmbeddedKafka",
    "EmbeddedPostgres",
    "FolderInUse",
    "Home",
    "LocalError",
    "NoSpace",
    "PortInUse",
    "Process",
    "ProcessId",
    "Report",
    "Running",
    "StartFailed",
    "Supervisor",
    "down",
    "free_port",
    "shown",
    "silent",
]
