"""What is checked before anything starts: ports and room for data."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace_local import NoSpace, PortInUse, free_port
from tailrace_local.disk import require_space
from tailrace_local.ports import HOST, claim_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_port_in_use_is_one_sentence(taken: int) -> None:
    """A person would get a stack trace from inside a server."""
    with pytest.raises(
        PortInUse, match=rf"^serving cannot listen on 127.0.0.1:{taken} because .* choose another port$"
    ):
        claim_port("serving", taken)


def test_a_port_that_somebody_takes_on_all_addresses_is_in_use() -> None:
    """A server would start beside another one and get none of its traffic."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        with pytest.raises(PortInUse):
            claim_port("serving", server.getsockname()[1])


def test_a_free_port_can_be_claimed() -> None:
    """Nothing could be started on a port of one's choice."""
    port = free_port()
    assert claim_port("serving", port) == port


def test_missing_disk_space_is_one_sentence(tmp_path: Path) -> None:
    """A full disk would show as a broken broker, minutes later."""
    with pytest.raises(NoSpace, match=r"needs 99999999999 MB of free disk space and its file system has \d+ MB left; "):
        require_space(tmp_path, 99_999_999_999)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """A wrong TAILRACE_HOME would end in a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(NoSpace, match=r"file/home cannot be written \(.+\); .*TAILRACE_HOME"):
        require_space(tmp_path / "file" / "home", 1)


def test_a_folder_with_space_is_made(tmp_path: Path) -> None:
    """The first run in a new folder would fail."""
    require_space(tmp_path / "new" / "home", 1)
    assert list((tmp_path / "new" / "home").iterdir()) == []
