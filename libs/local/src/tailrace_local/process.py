"""Child processes that end when they should, and whose process id is never mistaken for another's.

`start` runs a program through `tailrace_local.launch`: guarded, so that it dies with this process, or detached, so that
it outlives it. A process is named by its id together with its start time: ids are used again, the pair is not.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tailrace_local import launch
from tailrace_local.errors import FolderInUse, StartFailed

_LOG_LIMIT_BYTES = 5_000_000
_SAME_START_SECONDS = 2.0  # the clock that start times are counted from may be corrected while a process runs


@dataclass(frozen=True)
class ProcessId:
    """One process for ever: its id and when it started, in seconds since 1970."""

    pid: int
    started: float

    @staticmethod
    def of(pid: int) -> "ProcessId | None":
        """The process that has this id now, or None."""
        try:
            return ProcessId(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether this very process still runs (an ended one that nobody has waited for does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_START_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def signal(self, number: int) -> None:
        """Signals this very process; one that is gone is fine. A kill goes to its whole process group."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)


@dataclass(frozen=True)
class RunAs:
    """Another user for a child process, and whether it must be allowed into folders closed to that user."""

    uid: int
    gid: int
    enter_any_folder: bool = False


@dataclass
class Process:
    """A running program and its log; made by `start`."""

    name: str
    id: ProcessId
    log: Path
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 10.0
    log_offset: int = 0
    guard: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def alive(self) -> bool:
        """Whether the program still runs."""
        return self.id.alive() if self.guard is None else self.guard.poll() is None

    def exit_code(self) -> int | None:
        """The exit code, 128 + n after signal n; None while it runs and for a detached program."""
        return None if self.guard is None else self.guard.poll()

    def wait(self, seconds: float) -> bool:
        """Waits for the program's end; False when it still runs after that time."""
        return wait_until(lambda: not self.alive(), seconds)

    def stop(self) -> None:
        """Asks the program to end, and kills it when it has not done so within its grace."""
        self.ask_to_end()
        self.end()

    def ask_to_end(self) -> None:
        """Asks the program to end and does not wait."""
        if self.guard is None:
            self.id.signal(self.stop_signal)
        else:
            self._tell_guard(b"T")

    def end(self) -> None:
        """Waits for its grace, then kills what is left; returns when the program is gone."""
        if self.guard is None:
            if not self.wait(self.grace_seconds):
                self.kill()
        elif not self._guard_ended(self.grace_seconds + 2.0):
            self.kill()
        self._forget_guard()

    def kill(self) -> None:
        """Ends the program at once, without a chance to save anything."""
        self._tell_guard(b"K")
        self.id.signal(signal.SIGKILL)  # itself too, in case the guard is slow or gone
        if self.guard is not None and not self._guard_ended(5.0):
            self.guard.kill()
            self.guard.wait()
        wait_until(lambda: not self.id.alive(), 5.0)
        self._forget_guard()

    def last_lines(self, count: int = 15) -> str:
        """The end of what the program has written to its log since it started."""
        with self.log.open("rb") as file:
            file.seek(max(self.log_offset, self.log.stat().st_size - 20_000))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-count:])

    def _tell_guard(self, word: bytes) -> None:
        if self.guard is not None and self.guard.stdin is not None and not self.guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.guard.stdin.write(word)
                self.guard.stdin.flush()

    def _guard_ended(self, seconds: float) -> bool:
        if self.guard is None:
            return True
        try:
            self.guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _forget_guard(self) -> None:
        if self.guard is not None and self.guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.guard.stdin.close()


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    detached: bool = False,
    stop_signal: int = signal.SIGTERM,
    grace_seconds: float = 10.0,
    lock: Path | None = None,
    run_as: RunAs | None = None,
) -> Process:
    """Starts a program whose output goes to `log`.

    Args:
        name: what people call it, in errors.
        command: the program and its arguments; no shell is involved.
        log: appended to; a log over 5 MB is first moved to `<log>.1`.
        env: the program's whole environment; None: that of this process.
        cwd: its working folder; None: that of this process.
        detached: False: it dies with this process, however that ends; True: it lives on until it is stopped.
        stop_signal: what asks it to end (PostgreSQL wants SIGINT).
        grace_seconds: how long it may take to end before it is killed.
        lock: a file that the program keeps locked while it or a child of it lives.
        run_as: another user, when this process is root.

    Raises:
        FolderInUse: another program holds the lock.
        StartFailed: the program cannot be started at all.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    report_read, report_write = os.pipe()
    spec = {
        "command": [str(word) for word in command],
        "report_fd": report_write,
        "parent": os.getpid(),
        "guarded": not detached,
        "stop_signal": int(stop_signal),
        "grace_seconds": grace_seconds,
        "lock": None if lock is None else str(lock),
        "user": None if run_as is None else [run_as.uid, run_as.gid],
        "enter_any_folder": run_as is not None and run_as.enter_any_folder,
    }
    with os.fdopen(report_read, "rb") as report, log.open("ab") as output:
        offset = output.tell()
        try:
            guard = subprocess.Popen(  # noqa: S603 - the commands are ours
                [sys.executable, "-I", "-S", launch.__file__, json.dumps(spec)],
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=[report_write],
                start_new_session=True,
            )
        finally:
            os.close(report_write)
        said, _, problem = report.read().decode(errors="replace").partition("\n")
    process_id = ProcessId.of(int(said)) if said.isdigit() else None
    if detached:
        guard.wait()
    if problem or not said.isdigit():
        _close(guard)
        if said == "locked" and lock is not None:
            raise FolderInUse(f"{lock.parent} is in use by another running {name}; stop that one or use another folder")
        raise StartFailed(f"{name} could not be started: {problem or said or 'see ' + str(log)}")
    return Process(
        name=name,
        id=process_id or ProcessId(int(said), time.time()),  # it may have ended already
        log=log,
        stop_signal=stop_signal,
        grace_seconds=grace_seconds,
        log_offset=offset,
        guard=None if detached else guard,
    )


def stop_together(processes: Sequence[Process]) -> None:
    """Stops several programs at once: all are asked first, then waited for, so that it takes as long as the slowest."""
    for process in processes:
        process.ask_to_end()
    for process in processes:
        process.end()


def wait_until(check: Callable[[], bool], seconds: float, every_seconds: float = 0.02) -> bool:
    """Asks `check` until it says yes (True) or the time is over (False)."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_seconds)
    return True


def _close(guard: "subprocess.Popen[bytes]") -> None:
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait()
