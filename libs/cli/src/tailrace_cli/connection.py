"""Where the commands find Tailrace: the settings say so, or the note of what runs in the home does.

`TAILRACE_KAFKA_BOOTSTRAP`, `TAILRACE_TOPIC_PREFIX`, `TAILRACE_SERVING_URL`, `TAILRACE_MONITORING_URL` and
`TAILRACE_OBJECT_STORE` point elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tailrace_local import Home
from tailrace_runtime.settings import KafkaSettings

T = TypeVar("T")


class CommandError(Exception):
    """What a person should read when a command cannot do its work: one sentence. The exit status is 1."""


@dataclass(frozen=True)
class Connection:
    """A running Tailrace, as the commands see it."""

    bootstrap: str
    topic_prefix: str
    serving_url: str
    monitoring_url: str
    object_store: str

    @property
    def kafka(self) -> KafkaSettings:
        """The same for the Kafka clients."""
        return KafkaSettings(kafka_bootstrap=self.bootstrap, topic_prefix=self.topic_prefix)


def connect(home: Home) -> Connection:
    """The Tailrace that the settings name, else the one that runs in `home`. Raises CommandError when there is none."""
    ports = {entry.name: entry.port for entry in home.running()}
    bootstrap = os.environ.get("TAILRACE_KAFKA_BOOTSTRAP") or (
        f"127.0.0.1:{ports['kafka']}" if "kafka" in ports else ""
    )
    if not bootstrap:
        msg = (
            f"nothing runs in {home.folder}; start it with `tailrace up`, "
            "or set TAILRACE_KAFKA_BOOTSTRAP to a broker that serves a Tailrace elsewhere"
        )
        raise CommandError(msg)
    return Connection(
        bootstrap=bootstrap,
        topic_prefix=os.environ.get("TAILRACE_TOPIC_PREFIX", ""),
        serving_url=os.environ.get("TAILRACE_SERVING_URL") or f"http://127.0.0.1:{ports.get('serving') or 8104}",
        monitoring_url=os.environ.get("TAILRACE_MONITORING_URL")
        or f"http://127.0.0.1:{ports.get('monitoring') or 8105}",
        object_store=os.environ.get("TAILRACE_OBJECT_STORE") or home.objects.as_uri(),
    )


def run(work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """What this work gives with the Tailrace that the commands mean. Raises CommandError when there is none."""
    return asyncio.run(work(connect(Home.chosen())))
