"""Distinct counts: HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007), kept in numpy arrays.

datasketches' own sketches take one value at a time from Python; here a whole column is hashed and counted in a few
vector operations. 1,024 registers of one byte each: the register's number is the hash's first 10 bits, and it keeps the
largest position of the first 1 among the other 54. Merging is a maximum, so any split of the values gives the very same
registers. The estimate is Ertl's improved one (2017, "New cardinality estimation algorithms for HyperLogLog sketches",
section 2, algorithm 6), which needs no tables and no switch between ranges.

In text: the registers, deflated, in base64; a few dozen characters for a few values, about 800 for millions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tailrace_statistics.sketches import SketchInvalid

BITS = 10
REGISTERS = 1 << BITS
DISTINCT_ERROR = 1.04 / math.sqrt(REGISTERS)
"""The estimate's standard error, relative to the truth: 3.25 %."""

_REST = 64 - BITS
Hashes = npt.NDArray[np.uint64]
Registers = npt.NDArray[np.uint8]


def empty() -> Registers:
    """Registers that have seen nothing."""
    return np.zeros(REGISTERS, np.uint8)


def hashed(numbers: npt.NDArray[np.float64]) -> Hashes:
    """A hash of each number's bits (the finalizer of splitmix64, Steele, Lea, Flood 2014); 0.0 and -0.0 are one value."""
    return mixed((numbers + 0.0).view(np.uint64))


def mixed(bits: Hashes) -> Hashes:
    """The finalizer of splitmix64 on each 64-bit word."""
    found = bits + np.uint64(0x9E3779B97F4A7C15)
    shifted = found >> np.uint64(30)
    found ^= shifted
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= np.right_shift(found, np.uint64(27), out=shifted)
    found *= np.uint64(0x94D049BB133111EB)
    found ^= np.right_shift(found, np.uint64(31), out=shifted)
    return found


def hashed_words(words: Iterable[str]) -> Hashes:
    """A hash of each word."""
    digests = b"".join(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, np.uint64)


def fold(registers: Registers, hashes: Hashes) -> None:
    """Count these values, in place.

    Only those are looked at whose first 1 comes later than the lowest register's: no other can raise a register. Of a
    long column that is one in hundreds.
    """
    lowest = int(registers.min())
    if lowest:
        hashes = hashes[hashes << np.uint64(BITS) < np.uint64(1 << (64 - lowest))]
    places = (hashes >> np.uint64(_REST)).astype(np.int64)
    rest = hashes << np.uint64(BITS)
    # The exponent of a float64 tells the highest bit; the low bits are cut so that rounding cannot carry into it.
    highest = np.frexp((rest & ~np.uint64(0x7FF)).astype(np.float64))[1]
    ranks = np.where(rest >> np.uint64(11), 65 - highest, _REST + 1)
    np.maximum.at(registers, places, ranks.astype(np.uint8))


def estimate(registers: Registers) -> float:
    """How many different values were counted, give or take `DISTINCT_ERROR` of it."""
    counts = np.bincount(registers, minlength=_REST + 2).tolist()
    if counts[0] == REGISTERS:
        return 0.0
    z = REGISTERS * _tau(1 - counts[_REST + 1] / REGISTERS)
    for count in counts[_REST:0:-1]:
        z = 0.5 * (z + count)
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return REGISTERS * REGISTERS / (2 * math.log(2)) / z


def _sigma(x: float) -> float:
    y, z = 1.0, x
    while True:
        x *= x
        before, z = z, z + x * y
        y += y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in {0.0, 1.0}:
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        y *= 0.5
        before, z = z, z - (1 - x) ** 2 * y
        if z == before:
            return z / 3


def to_text(registers: Registers) -> str:
    """The registers in text; the empty string when they have seen nothing."""
    if not registers.any():
        return ""
    return base64.b64encode(zlib.compress(registers.tobytes(), 1)).decode("ascii")


def from_text(text: str) -> Registers:
    """The registers out of text. Raises SketchInvalid."""
    if not text:
        return empty()
    try:
        reader = zlib.decompressobj()
        found = np.frombuffer(reader.decompress(binascii.a2b_base64(text), REGISTERS + 1), np.uint8).copy()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise SketchInvalid(f"distinct: not a distinct count in base64 ({error}); summarise the column again") from None
    if len(found) != REGISTERS or found.max(initial=0) > _REST + 1:
        raise SketchInvalid("distinct: not a distinct count of 1024 registers; summarise the column again")
    return found
