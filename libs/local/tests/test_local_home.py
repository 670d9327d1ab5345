"""The `.tailrace` folder: its key, and the note of what runs."""

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tailrace_local import Home, LocalError, down
from tailrace_local.home import noted
from tailrace_local.process import Process, start


def sleeper(folder: Path, name: str = "sleeper", *, detached: bool = True) -> Process:
    """A process that would run for minutes."""
    return start(name, [sys.executable, "-c", "import time; time.sleep(600)"], log=folder / "log", detached=detached)


def test_the_home_is_the_setting_or_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data would land where nobody looks for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAILRACE_HOME", raising=False)
    assert Home.chosen().folder == tmp_path.resolve() / ".tailrace"
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path / "else"))
    assert Home.chosen().folder == tmp_path.resolve() / "else"


def test_prepare_makes_the_folders_and_can_be_repeated(tmp_path: Path) -> None:
    """A second `up` would fail, or the services would find no folder for their state."""
    home = Home(tmp_path / ".tailrace")
    home.prepare(1)
    key = home.signing_key()
    home.prepare(1)
    assert home.signing_key() == key
    assert all(path.is_dir() for path in (home.kafka, home.postgres, home.objects, home.state, home.logs))
    assert (home.folder / ".gitignore").read_text() == "*\n"


def test_the_signing_key_is_secret_and_made_once(tmp_path: Path) -> None:
    """Another user could sign a checkpoint, or two first commands would each sign with a key of their own."""
    home = Home(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: home.signing_key(), range(8)))
    assert len(keys) == 1
    assert len(bytes.fromhex(keys.pop())) == 32
    assert stat.S_IMODE(home.signing_key_file.stat().st_mode) == 0o600
    assert [path.name for path in home.signing_key_file.parent.iterdir()] == ["signing.key"]


def test_down_stops_what_another_command_started(tmp_path: Path) -> None:
    """`tailrace down` would leave services behind, or stop the servers first."""
    home = Home(tmp_path)
    server, service = sleeper(tmp_path, "server"), sleeper(tmp_path, "service")
    home.note([noted(server, "server", 9092), noted(service, "service", None)])
    assert [(entry.name, entry.port) for entry in home.running()] == [("server", 9092), ("service", None)]
    assert [entry.name for entry in down(home)] == ["server", "service"]
    assert not server.alive()
    assert not service.alive()
    assert home.noted() == []
    assert not home.run_file.exists()


def test_down_leaves_a_process_alone_that_only_has_the_same_number(tmp_path: Path) -> None:
    """After a reboot `tailrace down` would kill somebody else's program."""
    home = Home(tmp_path)
    bystander = sleeper(tmp_path)
    try:
        home.note([replace(noted(bystander, "service", None), started=bystander.id.started - 3600.0)])
        assert home.running() == []
        assert down(home) == []
        assert bystander.alive()
    finally:
        bystander.kill()


def test_down_without_anything_running_is_fine(tmp_path: Path) -> None:
    """A second `tailrace down` would fail."""
    assert down(Home(tmp_path)) == []


def test_a_broken_note_is_one_sentence(tmp_path: Path) -> None:
    """A half-edited run.json would end in a traceback."""
    home = Home(tmp_path)
    home.run_file.write_text('{"processes": [{"pid": 1}]}')
    with pytest.raises(LocalError, match=r"run.json is not a note of running processes .* delete the file$"):
        home.running()


def test_one_command_at_a_time_starts_things(tmp_path: Path) -> None:
    """Two `tailrace up` at once would start two brokers on one folder."""
    home = Home(tmp_path)
    inside: list[str] = []

    def enter(name: str) -> None:
        with home.starting():
            inside.append(f"{name} in")
            inside.append(f"{name} out")

    with ThreadPoolExecutor(2) as pool:
        with home.starting():
            waiting = pool.submit(enter, "second")
            inside.append("first in")
            inside.append("first out")
        waiting.result(10)
    assert inside == ["first in", "first out", "second in", "second out"]
