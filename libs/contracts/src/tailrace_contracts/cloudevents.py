"""CloudEvents 1.0 on Kafka: binary mode for what Tailrace writes, structured mode too for what producers may send.

Binary mode puts the attributes in `ce_` headers and the event itself in the value; structured mode puts an envelope
with a `data` member in the value. (CloudEvents Kafka protocol binding 1.0.2, sections 3.2 and 3.3.)
"""

from __future__ import annotations

import json
from datetime import datetime

from tailrace_contracts.events import Event, utc

Headers = tuple[tuple[str, bytes], ...]

TYPE_PREFIX = "tailrace."
STRUCTURED = b"application/cloudevents+json"


def headers(event: Event, *, event_id: str, source: str, now: datetime) -> Headers:
    """The headers of an event in binary mode. `source` names the writer, such as `/ingestion/validate`."""
    return attributes(event.type, event_id=event_id, source=source, now=now)


def attributes(event_type: str, *, event_id: str, source: str, now: datetime) -> Headers:
    """The same for an event of which only the type is at hand; every event's content is JSON."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", f"{TYPE_PREFIX}{event_type}".encode()),
        ("ce_source", source.encode()),
        ("ce_time", utc(now).encode()),
        ("content-type", Event.content_type.encode()),
    )


def is_structured(record_headers: Headers) -> bool:
    """Whether the headers announce an envelope in the value."""
    return any(name == "content-type" and value.startswith(STRUCTURED) for name, value in record_headers)


def unwrap(value: bytes) -> bytes:
    """The `data` of a structured envelope, as JSON bytes. Raises ValueError when there is none."""
    envelope = json.loads(value)
    if not isinstance(envelope, dict) or "data" not in envelope:
        msg = "a structured CloudEvent needs a `data` member"
        raise ValueError(msg)
    return json.dumps(envelope["data"], separators=(",", ":")).encode()
