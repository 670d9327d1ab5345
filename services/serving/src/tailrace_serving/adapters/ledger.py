"""How many answers of each model are on their way to the broker, in a file that outlives the process.

A process that is killed cannot count what it held. So it writes two numbers for each model into a file that is mapped into
memory: answers taken, and answers settled (acknowledged by the broker, or counted as lost). That costs no system call; the
pages belong to the operating system, which keeps them when the process dies. The next process of the same name finds the
difference, and counts it as lost. At most one batch too much is counted: what the broker had acknowledged in the very moment.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

MODELS = 1_024
"""Models that have a line of their own; those beyond share the last one, under an empty name."""

_NAME_BYTES = 112
_LINE_BYTES = _NAME_BYTES + 16
_WORDS = _LINE_BYTES // 8


class FileLedger:
    """The file `path`, locked for one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file and take what an earlier process left in it. Raises OSError, also where another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._map = mmap.mmap(_locked(path, MODELS * _LINE_BYTES), MODELS * _LINE_BYTES)
        self._words = memoryview(self._map).cast("q")
        self._lines: dict[str, int] = {}
        self.left: Mapping[str, int] = self._open_accounts()
        self._map[:] = bytes(len(self._map))

    def take(self, model: str, count: int) -> None:
        """So many answers are to be captured."""
        self._words[self._line(model) + _NAME_BYTES // 8] += count

    def settle(self, model: str, count: int) -> None:
        """So many of them are acknowledged, or counted as lost."""
        self._words[self._line(model) + _NAME_BYTES // 8 + 1] += count

    def _line(self, model: str) -> int:
        line = self._lines.get(model)
        return self._new_line(model) if line is None else line

    def _new_line(self, model: str) -> int:
        number = min(len(self._lines), MODELS - 1)
        name = model.encode()
        if number < MODELS - 1 and len(name) <= _NAME_BYTES:
            self._map[number * _LINE_BYTES : number * _LINE_BYTES + len(name)] = name
        self._lines[model] = number * _WORDS
        return self._lines[model]

    def _open_accounts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for number in range(MODELS):
            start = number * _LINE_BYTES
            taken, settled = self._words[number * _WORDS + _WORDS - 2 : (number + 1) * _WORDS]
            if taken > settled:
                found[self._map[start : start + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")] = taken - settled
        return found


def _locked(path: Path, size: int) -> int:
    """A descriptor of the file, which holds its lock for as long as the process lives."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _fill(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _fill(descriptor: int, size: int) -> None:
    """Bring the file to its size with written bytes: a mapped hole that finds the disk full kills the process (SIGBUS)."""
    held = os.pread(descriptor, size, 0).ljust(size, b"\0")
    if os.pwrite(descriptor, held, 0) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class NoLedger:
    """Where there is no disk to write to: what a killed process held is not counted."""

    left: Mapping[str, int] = {}

    def take(self, model: str, count: int) -> None:
        """Nothing."""

    def settle(self, model: str, count: int) -> None:
        """Nothing."""
