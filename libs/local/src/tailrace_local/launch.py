"""Starts one program and sees to it that it does not outlive whoever wanted it.

`tailrace_local.process` runs this file as a script (`python -I -S launch.py JSON`), so it uses nothing but the standard
library and costs about 20 ms and 8 MB. Two ways:

- guarded: this process forks, the child becomes the program, and the guard waits for three things at once: the
  program's end, a word on its standard input (`T` terminate, `K` kill), and the end of that input. The input is a pipe
  whose only writer is the parent: when the parent is gone, however it went, the pipe closes and the guard terminates
  the program, and kills it after the grace. On Linux the program is also bound to its guard by a parent-death signal,
  so killing the guard takes the program along.
- detached: the program becomes a process of its own, in its own session, and nobody watches it.

A program may come with a lock file, which it holds by an inherited file descriptor for as long as it or any child of it
lives; while another program holds that lock, it is not started.

Before the program starts, the guard may drop root for another user (PostgreSQL refuses to run as root). Where that user
cannot enter the folders on the way to the program or its data, it keeps one Linux capability, CAP_DAC_OVERRIDE, to do so.

What happened is reported on one pipe: the program's process id and a reason when it could not be started, or `locked`.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(spec: dict[str, Any]) -> int:
    """Starts the program that `spec` describes; returns the exit code of this process.

    The fields of `spec`: `command`, `report_fd`, `parent`, `guarded`, `stop_signal`, `grace_seconds`, `lock` (a path or
    null), `user` (uid and gid, or null) and `enter_any_folder`.
    """
    os.set_inheritable(spec["report_fd"], False)  # noqa: FBT003 - the function takes it by position only
    if spec["lock"] is not None and not hold(spec["lock"]):
        os.write(spec["report_fd"], b"locked\n")
        return 1
    return guard(spec) if spec["guarded"] else detach(spec)


def hold(path: str, seconds: float = 2.0) -> bool:
    """Takes the lock for this process and all that come from it; False while another still has it after that time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - the function takes it by position only
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def detach(spec: dict[str, Any]) -> int:
    """Forks the program off as nobody's child and reports its process id."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        become(spec)
    os.write(spec["report_fd"], f"{pid}\n".encode())
    return 0


def guard(spec: dict[str, Any]) -> int:
    """Forks the program, watches it and its parent, and mirrors its exit code (128 + n after signal n)."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked: list[int] = []
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    guard_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        become(spec, die_with=guard_pid)
    os.write(spec["report_fd"], f"{pid}\n".encode())
    os.close(spec["report_fd"])
    return watch(spec, pid, wake_read, asked)


def watch(spec: dict[str, Any], pid: int, wake: int, asked: list[int]) -> int:
    """Waits for the program's end; ends it when told to, or when the parent is gone."""
    control = [sys.stdin.fileno()]
    kill_at, ending = float("inf"), False
    while True:
        ready, _, _ = select.select([*control, wake], [], [], min(1.0, max(0.0, kill_at - time.monotonic())))
        if wake in ready:
            os.read(wake, 4096)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            send(pid, signal.SIGKILL)  # whatever is left of its process group
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        words = os.read(control[0], 64) if control and control[0] in ready else None
        gone = words == b"" or os.getppid() != spec["parent"]
        if words == b"":
            control = []
        if (gone or asked or (words and b"T" in words)) and not ending:
            ending = True
            send(pid, spec["stop_signal"])
            kill_at = time.monotonic() + spec["grace_seconds"]
        if (words and b"K" in words) or time.monotonic() >= kill_at:
            send(pid, signal.SIGKILL)
            kill_at = time.monotonic() + 1.0  # it will be gone by then; if not, once more


def send(pid: int, number: int) -> None:
    """Signals a process; a process that is gone is fine. A kill goes to its whole group."""
    try:
        if number == signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # macOS answers EPERM for a group that holds only ended processes


def become(spec: dict[str, Any], die_with: int | None = None) -> NoReturn:
    """Turns the forked child into the program; reports why when that fails."""
    try:
        if spec["user"] is not None:
            become_user(*spec["user"], enter_any_folder=spec["enter_any_folder"])
        if die_with is not None and _LINUX:
            libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != die_with:
                os._exit(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvp(spec["command"][0], spec["command"])  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        os.write(spec["report_fd"], f"{spec['command'][0]}: {error.strerror or error}".encode())
        os._exit(127)


def become_user(uid: int, gid: int, *, enter_any_folder: bool) -> None:
    """Drops root for another user, for good; may keep the right to enter folders closed to that user (Linux only)."""
    if enter_any_folder:
        libc().prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if enter_any_folder:
        keep_folder_access()


def keep_folder_access() -> None:
    """Lets the program that is about to start pass permission checks on files; raises OSError where that is denied."""
    mask = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if libc().capset(header, data) or libc().prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot keep the right to enter folders closed to the user that it runs as")


def libc() -> ctypes.CDLL:
    """The C library, for calls that Python does not offer."""
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
