"""Logs: one JSON object a line on standard error, from structlog and from the libraries alike.

While a broker is away, its client says so ten times a second. Such repetitions are held back: the same message of a
library comes once in five seconds, with the number of those held back.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.tracing import trace_id

_DAMPENED = ("aiokafka",)
_DAMPENED_SECONDS = 5.0
_QUIET = ("aiokafka", "uvicorn", "asyncio", "httpx", "httpcore")


def configure(settings: ServiceSettings, service: str) -> None:
    """Send every log line of this process through one renderer, with the service's name and the present trace."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _origin(service, settings.instance),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(settings)],
        )
    )
    handler.addFilter(Dampened(_DAMPENED))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class Dampened(logging.Filter):
    """Lets the same message of these libraries through once in a while only."""

    def __init__(self, names: tuple[str, ...], monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._names = names
        self._monotonic = monotonic
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is to be written."""
        if not record.name.startswith(self._names):
            return True
        key, now = (record.name, str(record.msg)), self._monotonic()
        last, held = self._seen.get(key, (-_DAMPENED_SECONDS, 0))
        if now - last < _DAMPENED_SECONDS:
            self._seen[key] = (last, held + 1)
            return False
        self._seen[key] = (now, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held} more like it)", None
        return True


def _rendering(settings: ServiceSettings) -> list[Any]:
    if settings.log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _origin(service: str, instance: str) -> Any:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        event.setdefault("instance", instance)
        trace = trace_id()
        if trace is not None:
            event.setdefault("trace_id", trace)
        return event

    return add
