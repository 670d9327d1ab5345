"""Which files of the archive are merged next, and which are left over: a decision on names and sizes alone.

Files of one log are merged in the order of their offsets, where they touch or overlap; a gap (records that were lost
before they could be archived) is never bridged, so that a file's name goes on saying the truth. A file of the target
size is left alone. Smaller ones are merged when together they reach it, and before that as in a log-structured tree: a
file joins those after it once they weigh half as much as it does. So a record is rewritten about log2(target / first
file) times, and the number of files below the target grows with the logarithm of the target, not with time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tailrace_contracts.ranges import LogRange


class Stored(NamedTuple):
    """A file of the archive."""

    run: LogRange
    size_bytes: int


def left_over(files: Sequence[Stored]) -> list[LogRange]:
    """Files whose whole run lies in another file: parts that were merged and not removed yet."""
    ordered = sorted(files, key=lambda file: (file.run.from_offset, -file.run.through_offset))
    through, found = -1, []
    for file in ordered:
        if file.run.through_offset <= through:
            found.append(file.run)
        through = max(through, file.run.through_offset)
    return found


def next_merge(files: Sequence[Stored], target_bytes: int, at_least: int) -> list[LogRange]:
    """The files to merge into one, in the order of their offsets; empty when all is well. None may be left over."""
    for chain in _chains(files, target_bytes):
        totals = list(itertools.accumulate(file.size_bytes for file in chain))
        full = next((count for count, total in enumerate(totals, 1) if total >= target_bytes), 0)
        chosen = chain[:full] if full > 1 else _light_end(chain)
        if len(chosen) >= (2 if full > 1 else at_least):
            return [file.run for file in chosen]
    return []


def _chains(files: Sequence[Stored], target_bytes: int) -> Iterator[list[Stored]]:
    """Neighbours without a gap, all below the target."""
    chain: list[Stored] = []
    for file in sorted(files, key=lambda file: file.run.from_offset):
        small = file.size_bytes < target_bytes
        if chain and (not small or file.run.from_offset > chain[-1].run.through_offset + 1):
            yield chain
            chain = []
        if small:
            chain.append(file)
    if chain:
        yield chain


def _light_end(chain: Sequence[Stored]) -> Sequence[Stored]:
    """The newest files, back to the first that weighs more than twice what comes after it."""
    after = chain[-1].size_bytes
    for position in range(len(chain) - 2, -1, -1):
        if chain[position].size_bytes > 2 * after:
            return chain[position + 1 :]
        after += chain[position].size_bytes
    return chain
