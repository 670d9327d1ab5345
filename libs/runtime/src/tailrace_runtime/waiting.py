"""Waiting for what is not there yet: a broker, a database, a topic. With a word about it every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tailrace_runtime import health

log = structlog.get_logger(__name__)
T = TypeVar("T")

LOG_EVERY_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


async def until_available(
    part: str, reason: str, attempt: Callable[[], Awaitable[T]], errors: tuple[type[BaseException], ...]
) -> T:
    """What `attempt` returns, once it no longer raises one of `errors`.

    Meanwhile `/readyz` gives `reason`, and the log says it every few seconds.
    """
    report, pause, told = health.here(), _FIRST_PAUSE_SECONDS, -LOG_EVERY_SECONDS
    while True:
        try:
            result = await attempt()
        except errors as error:
            why = f"{reason}: {error}".rstrip(": ")
            report.waiting(part, why)
            if time.monotonic() - told >= LOG_EVERY_SECONDS:
                log.warning("waiting", part=part, reason=why)
                told = time.monotonic()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            report.ready(part)
            return result
