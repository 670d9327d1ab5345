"""W3C trace context through Kafka headers and HTTP, so that one inference can be followed over every hop.

Only propagation: the trace that came in goes out again, unchanged. With an OpenTelemetry SDK installed in the process,
the same calls carry its spans; without one, nothing is recorded and nothing is paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_NAMES = ("traceparent", "tracestate")


def trace_headers() -> tuple[tuple[str, bytes], ...]:
    """The headers that hand the present trace on; empty when none is being followed."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple((name, value.encode()) for name, value in carrier.items())


def trace_id() -> str | None:
    """The present trace's id in hexadecimal, or None."""
    present = trace.get_current_span().get_span_context()
    return format(present.trace_id, "032x") if present.is_valid else None


@contextmanager
def continued_from(headers: Iterable[tuple[str, bytes]]) -> Iterator[None]:
    """Follow the trace that these headers carry, if they carry one, while the block runs."""
    carrier = {name: value.decode("ascii", "replace") for name, value in headers if name in _NAMES}
    if "traceparent" not in carrier:
        yield
        return
    token = context.attach(_PROPAGATOR.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
