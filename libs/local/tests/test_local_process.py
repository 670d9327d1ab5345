"""Child processes: they end when they are told to, and when whoever wanted them is gone."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tailrace_local import FolderInUse, ProcessId, StartFailed
from tailrace_local.process import Process, start, stop_together, wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """What a test starts; ended afterwards, whatever happened."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.kill()


def python(code: str) -> list[str]:
    """A command line that runs this code."""
    return [sys.executable, "-c", code]


def says(process: Process, word: str) -> bool:
    """Whether the program has written this word within some seconds."""
    return wait_until(lambda: word in process.last_lines(), 10.0)


def test_output_goes_to_the_log_and_the_exit_code_is_kept(tmp_path: Path) -> None:
    """A person would look for a service's last words, and why it ended, in vain."""
    process = start("talker", python("import sys; print('said'); sys.exit(7)"), log=tmp_path / "talker.log")
    assert process.wait(10.0)
    assert (process.exit_code(), process.last_lines()) == (7, "said")
    process.stop()


def test_last_lines_are_those_of_this_run(tmp_path: Path) -> None:
    """An error would show the log of yesterday's run as its reason."""
    for word in ("yesterday", "today"):
        process = start("talker", python(f"print('{word}')"), log=tmp_path / "talker.log")
        process.wait(10.0)
        process.stop()
    assert process.last_lines() == "today"
    assert (tmp_path / "talker.log").read_text().split() == ["yesterday", "today"]


def test_a_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    """A machine that runs Tailrace every day would fill its disk with logs."""
    log = tmp_path / "talker.log"
    log.write_bytes(b"x" * 5_000_001)
    process = start("talker", python("print('new')"), log=log)
    process.wait(10.0)
    process.stop()
    assert log.read_text() == "new\n"
    assert (tmp_path / "talker.log.1").stat().st_size == 5_000_001


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A person would see a traceback instead of what is missing."""
    with pytest.raises(StartFailed, match=r"ghost could not be started: /no/such/program: No such file"):
        start("ghost", ["/no/such/program"], log=tmp_path / "ghost.log")
    with pytest.raises(StartFailed, match="No such file"):
        start("ghost", ["/no/such/program"], log=tmp_path / "ghost.log", detached=True)


def test_a_program_gets_its_environment_and_folder(tmp_path: Path) -> None:
    """A service would run with the wrong settings."""
    code = "import os; print(os.environ['SETTING'], os.getcwd())"
    process = start("talker", python(code), log=tmp_path / "log", env={"SETTING": "on"}, cwd=tmp_path)
    process.wait(10.0)
    process.stop()
    assert process.last_lines() == f"on {tmp_path.resolve()}"


@pytest.mark.parametrize("detached", [False, True])
def test_a_program_that_ignores_the_request_is_killed_after_its_grace(
    tmp_path: Path, started: list[Process], detached: bool
) -> None:
    """A hanging service would keep `tailrace down` and Ctrl-C from ending."""
    process = start("stubborn", python(STUBBORN), log=tmp_path / "log", grace_seconds=0.3, detached=detached)
    started.append(process)
    assert says(process, "on")
    process.stop()
    assert not process.alive()
    assert not process.id.alive()


@pytest.mark.parametrize("detached", [False, True])
def test_a_stopped_program_may_finish_its_work(tmp_path: Path, started: list[Process], detached: bool) -> None:
    """A service would lose what it had not yet committed."""
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
        print("on", flush=True)
        time.sleep(600)
    """
    process = start("careful", python(textwrap.dedent(code)), log=tmp_path / "log", detached=detached)
    started.append(process)
    assert says(process, "on")
    process.stop()
    assert process.last_lines().split() == ["on", "saved"]


def test_several_programs_stop_side_by_side(tmp_path: Path, started: list[Process]) -> None:
    """Five slow services would take five times as long to stop as one."""
    code = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.5), sys.exit(0))); print('on', flush=True); time.sleep(600)"
    started += [start(f"slow {n}", python(code), log=tmp_path / f"{n}.log") for n in range(3)]
    assert all(says(process, "on") for process in started)
    stop_together(started)
    assert [process.exit_code() for process in started] == [0, 0, 0]


def test_a_program_is_ended_with_its_children(tmp_path: Path) -> None:
    """A service's worker processes would go on using memory after it has ended."""
    process = start("family", python(FAMILY), log=tmp_path / "log")
    assert wait_until(lambda: process.last_lines().isdigit(), 10.0)
    child = ProcessId.of(int(process.last_lines()))
    assert child is not None
    process.kill()
    assert wait_until(lambda: not child.alive(), 5.0)


def start_in_a_parent(tmp_path: Path, *, detached: bool) -> "tuple[subprocess.Popen[bytes], ProcessId]":
    """A parent process that has started a program; both run."""
    code = f"""
        import sys, time
        from pathlib import Path
        from tailrace_local.process import start
        child = start("child", [sys.executable, "-c", "import time; time.sleep(600)"],
                      log=Path({str(tmp_path / "child.log")!r}), detached={detached})
        Path({str(tmp_path / "new")!r}).write_text(str(child.id.pid))
        Path({str(tmp_path / "new")!r}).rename({str(tmp_path / "pid")!r})
        time.sleep(600)
    """
    parent = subprocess.Popen(python(textwrap.dedent(code)))
    assert wait_until((tmp_path / "pid").exists, 20.0)
    child = ProcessId.of(int((tmp_path / "pid").read_text()))
    assert child is not None
    return parent, child


def test_a_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    """After a crash of the demo its services would go on running, unseen."""
    parent, child = start_in_a_parent(tmp_path, detached=False)
    guard = psutil.Process(child.pid).parent()
    assert guard is not None
    guard_id = ProcessId.of(guard.pid)
    assert guard_id is not None
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not child.alive() and not guard_id.alive(), 10.0)


def test_a_detached_program_outlives_its_parent(tmp_path: Path) -> None:
    """`tailrace up` would end together with the terminal that it was typed in."""
    parent, child = start_in_a_parent(tmp_path, detached=True)
    parent.kill()
    parent.wait()
    assert child.alive()
    assert os.getsid(child.pid) == child.pid
    child.signal(signal.SIGKILL)
    assert wait_until(lambda: not child.alive(), 5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_killed_guard_takes_its_program_along(tmp_path: Path, started: list[Process]) -> None:
    """A memory shortage that kills the guard would leave its service behind."""
    process = start("sleeper", python("import time; time.sleep(600)"), log=tmp_path / "log")
    started.append(process)
    assert process.guard is not None
    process.guard.kill()
    assert wait_until(lambda: not process.id.alive(), 5.0)


def test_a_process_id_that_was_used_again_is_left_alone(tmp_path: Path, started: list[Process]) -> None:
    """`tailrace down` after a reboot would kill somebody else's program."""
    process = start("bystander", python("import time; time.sleep(600)"), log=tmp_path / "log")
    started.append(process)
    mistaken = ProcessId(process.id.pid, process.id.started - 3600.0)
    mistaken.signal(signal.SIGKILL)
    assert not mistaken.alive()
    assert process.alive()


def test_a_lock_is_held_while_the_program_or_a_child_of_it_lives(tmp_path: Path, started: list[Process]) -> None:
    """A second server would be let onto the data that the first one is still writing."""
    lock = tmp_path / ".running"
    first = start("family", python(FAMILY), log=tmp_path / "log", lock=lock)
    started.append(first)
    with pytest.raises(FolderInUse, match=f"{tmp_path} is in use by another running family"):
        start("family", python(FAMILY), log=tmp_path / "log2", lock=lock, detached=True)
    first.kill()
    started.append(start("family", python(FAMILY), log=tmp_path / "log2", lock=lock, detached=True))
