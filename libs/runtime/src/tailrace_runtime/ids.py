"""Identifiers that sort by the time of their making (UUID version 7, RFC 9562 section 5.7)."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A new identifier: 48 bits of Unix milliseconds, then random bits; as text it sorts by time.

    >>> new_id()[14]
    '7'
    """
    return at(time.time_ns() // 1_000_000, os.urandom(10))


def at(unix_ms: int, randomness: bytes) -> str:
    """The identifier of this millisecond with these 80 random bits (6 of them give way to version and variant).

    >>> at(0, bytes(10))
    '00000000-0000-7000-8000-000000000000'
    """
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(randomness, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
