"""The `.tailrace` folder: where a local Tailrace keeps its data, its secrets and the note of what is running.

    .tailrace/
      kafka/  postgres/  objects/  state/   data of the servers, the object store, the services
      logs/                                 one file for each process
      secrets/signing.key                   signs learner checkpoints; made once, mode 0600
      run.json                              what runs: ports, process ids and their start times

The note is what lets one command stop what another has started. A process in it is named by its id and its start time,
so a number that the system has given to another program since is left alone.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tailrace_local.disk import require_space
from tailrace_local.errors import LocalError
from tailrace_local.lock import locked
from tailrace_local.process import Process, ProcessId, stop_together

Kind = Literal["server", "service"]


@dataclass(frozen=True)
class Running:
    """One started process, as noted in run.json; services are stopped before the servers that they use."""

    name: str
    kind: Kind
    pid: int
    started: float
    log: str
    stop_signal: int
    grace_seconds: float
    port: int | None = None

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return ProcessId(self.pid, self.started).alive()

    def process(self) -> Process:
        """A handle to stop it by."""
        return Process(
            name=self.name,
            id=ProcessId(self.pid, self.started),
            log=Path(self.log),
            stop_signal=self.stop_signal,
            grace_seconds=self.grace_seconds,
        )


def noted(process: Process, kind: Kind, port: int | None) -> Running:
    """The note for a process."""
    return Running(
        name=process.name,
        kind=kind,
        pid=process.id.pid,
        started=process.id.started,
        log=str(process.log),
        stop_signal=int(process.stop_signal),
        grace_seconds=process.grace_seconds,
        port=port,
    )


@dataclass(frozen=True)
class Home:
    """A `.tailrace` folder; `Home.chosen()` is the one that this process should use."""

    folder: Path

    @staticmethod
    def chosen() -> "Home":
        """The folder in TAILRACE_HOME, else `.tailrace` in the working folder."""
        return Home(Path(os.environ.get("TAILRACE_HOME") or ".tailrace").resolve())

    @property
    def kafka(self) -> Path:
        """The broker's data."""
        return self.folder / "kafka"

    @property
    def postgres(self) -> Path:
        """The database's data."""
        return self.folder / "postgres"

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.folder / "objects"

    @property
    def state(self) -> Path:
        """The services' local state."""
        return self.folder / "state"

    @property
    def logs(self) -> Path:
        """One log file for each process."""
        return self.folder / "logs"

    @property
    def signing_key_file(self) -> Path:
        """The key that signs artefacts with executable state."""
        return self.folder / "secrets" / "signing.key"

    @property
    def run_file(self) -> Path:
        """The note of what is running."""
        return self.folder / "run.json"

    def prepare(self, min_free_megabytes: int = 500) -> None:
        """Makes the folders and the signing key.

        Raises:
            NoSpace: the folder cannot be written, or its file system has too little space left.
        """
        require_space(self.folder, min_free_megabytes)
        for folder in (self.kafka, self.postgres, self.objects, self.state, self.logs):
            folder.mkdir(exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n")
        self.signing_key()

    def signing_key(self) -> str:
        """The signing key, 32 random bytes in hexadecimal; made on first use, whole or not at all."""
        path = self.signing_key_file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-") as new:  # mode 0600 by definition
                new.write(secrets.token_hex(32) + "\n")
                new.flush()
                with suppress(FileExistsError):  # another process was faster: its key counts
                    path.hardlink_to(new.name)
        return path.read_text().strip()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Lets one command at a time start or stop things here; the others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            yield

    def noted(self) -> list[Running]:
        """Everything in run.json, ended or not, in the order of its start.

        Raises:
            LocalError: the file is not what this program writes.
        """
        try:
            return [Running(**entry) for entry in json.loads(self.run_file.read_text())["processes"]]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise LocalError(
                f"{self.run_file} is not a note of running processes ({error}); "
                f"stop what is still running by hand and delete the file"
            ) from error

    def running(self) -> list[Running]:
        """What was started here and still runs, in the order of its start."""
        return [entry for entry in self.noted() if entry.alive()]

    def note(self, processes: Sequence[Running]) -> None:
        """Replaces run.json in one step; without processes it is removed."""
        if not processes:
            self.run_file.unlink(missing_ok=True)
            return
        new = self.run_file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"processes": [asdict(entry) for entry in processes]}, indent=1) + "\n")
        new.replace(self.run_file)


def down(home: Home) -> list[Running]:
    """Stops what runs from this home, services first, then the servers; returns what was running."""
    running = home.running()
    stop_in_order([(entry.kind, entry.process()) for entry in running])
    home.note([])
    return running


def stop_in_order(processes: Sequence[tuple[Kind, Process]]) -> None:
    """Stops all services at once, then all servers at once."""
    for kind in ("service", "server"):
        stop_together([process for its_kind, process in reversed(processes) if its_kind == kind])
