"""What is written in one turn of the event loop goes out as one."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock, create_autospec

import pytest

from tailrace_runtime.transport import HELD_BYTES, Gathered


@pytest.fixture
def wire() -> Mock:
    """A transport that remembers what it is given."""
    made: Mock = create_autospec(asyncio.Transport, instance=True)
    made.is_closing.return_value = False
    return made


def written(wire: Mock) -> list[bytes]:
    """What the kernel would be given, call by call."""
    return [bytes(each.args[0]) for each in wire.write.call_args_list]


async def test_head_and_body_are_one_write(wire: Mock) -> None:
    """Every answer would cost two system calls, and wake its client twice."""
    gathered = Gathered(wire, asyncio.get_running_loop())
    gathered.write(b"head ")
    gathered.write(bytearray(b"body"))
    assert written(wire) == []
    await asyncio.sleep(0)
    assert written(wire) == [b"head body"]
    gathered.write(b"next")
    await asyncio.sleep(0)
    assert written(wire) == [b"head body", b"next"]


async def test_much_is_written_at_once(wire: Mock) -> None:
    """A long answer would be held whole, and its client's slowness be noticed by nobody."""
    gathered = Gathered(wire, asyncio.get_running_loop())
    gathered.write(b"head ")
    gathered.write(bytes(HELD_BYTES))
    assert written(wire) == [b"head " + bytes(HELD_BYTES)]
    await asyncio.sleep(0)
    assert len(written(wire)) == 1


async def test_closing_sends_first(wire: Mock) -> None:
    """An answer that closes its connection would never arrive."""
    gathered = Gathered(wire, asyncio.get_running_loop())
    gathered.write(b"last")
    gathered.close()
    assert [name for name, *_ in wire.method_calls if name != "is_closing"] == ["write", "close"]
    await asyncio.sleep(0)
    assert written(wire) == [b"last"]


async def test_after_the_end_nothing_is_written(wire: Mock) -> None:
    """A client that has gone away would fill the log with warnings about a closed transport."""
    gathered = Gathered(wire, asyncio.get_running_loop())
    gathered.write(b"lost")
    wire.is_closing.return_value = True
    await asyncio.sleep(0)
    assert written(wire) == []
    gathered.abort()
    assert wire.abort.called


async def test_everything_else_is_the_transport_s_own(wire: Mock) -> None:
    """Back pressure and addresses would get lost behind it."""
    gathered = Gathered(wire, asyncio.get_running_loop())
    gathered.pause_reading()
    gathered.resume_reading()
    assert wire.pause_reading.called
    assert wire.resume_reading.called
    wire.get_extra_info.return_value = "somebody"
    assert gathered.get_extra_info("peername", 1) == "somebody"
    wire.get_extra_info.assert_called_with("peername", 1)
