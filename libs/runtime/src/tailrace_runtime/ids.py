"""Identifiers that sort by the time of their making (UUID version 7, RFC 9562 section 5.7)."""

from __future__ import annotations

import os
import time

_VARIANT = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}
"""The first digit of the fourth group: its two highest bits are 10."""


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
    time_digits, digits = f"{unix_ms:012x}", randomness.hex()
    return f"{time_digits[:8]}-{time_digits[8:]}-7{digits[1:4]}-{_VARIANT[digits[4]]}{digits[5:8]}-{digits[8:]}"
