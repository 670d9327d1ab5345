"""The registry, built from its settings.

Two roles: `decide` reads every topic in one group and writes its decisions into the books; `relay` publishes what stands
in the books' outbox. Both may run in any number of processes: rows are locked, and the relay keeps the order of each key.
Before either begins, books that are empty or outdated are rebuilt from the topics (`adapters.rebuild`).
The HTTP API is there in every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailrace_contracts.events import BooksWritten
from tailrace_registry.adapters.kafka_commands import KafkaCommands
from tailrace_registry.adapters.postgres import PostgresBooks, PostgresShelf
from tailrace_registry.adapters.rebuild import Rebuild
from tailrace_registry.adapters.rows import topics_out
from tailrace_registry.adapters.tokens import TokenFile
from tailrace_registry.command_routes import Desk
from tailrace_registry.consumers import Handlers, answering, deciding, newest_of_each_run
from tailrace_registry.http import create_api
from tailrace_registry.ports import Books
from tailrace_registry.settings import RegistrySettings
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import BatchHandler, ConsumerRole
from tailrace_runtime.database import Database
from tailrace_runtime.outbox import Relay
from tailrace_runtime.producer import Producer
from tailrace_runtime.service import BackgroundRole, Role, Service

Routes = Mapping[str, Handlers]
"""For each topic in, what handles its events."""

_KINDS = {"registry-commands": answering, "revision-trained": newest_of_each_run}


def batch_handlers(routes: Routes, books: Books, clock: Clock) -> dict[str, BatchHandler]:
    """The routes, ready for a consumer role."""
    return {topic: _KINDS.get(topic, deciding)(handlers, books, clock) for topic, handlers in routes.items()}


def create_service(
    routes: Routes,
    out: Sequence[str],
    commands_out: str,
    *,
    settings: RegistrySettings | None = None,
    database: Database | None = None,
    producer: Producer | None = None,
    clock: Clock | None = None,
) -> Service:
    """The registry, from the topics in and out, and the one that commands over HTTP go to. Settings come from the environment, unless they are given."""
    settings = settings or RegistrySettings()
    database = database or Database(settings.database_url, "tailrace_registry")
    producer = producer or Producer(settings, client_id=f"registry-{settings.instance}")
    clock = clock or SystemClock()
    topics = topics_out(out)
    relay = Relay(database, producer, first=topics[BooksWritten])
    books = PostgresBooks(database, topics)
    group = f"{settings.topic_prefix}registry-decide"
    rebuild = Rebuild(settings, database, out=topics, inputs=tuple(routes), group=group, clock=clock)
    roles: dict[str, Role] = {
        "decide": ConsumerRole("decide", batch_handlers(routes, books, clock)),
        "relay": BackgroundRole("relay", relay.run),
    }
    tokens = TokenFile(settings.commands_token_file) if settings.commands_token_file else None
    desk = Desk(KafkaCommands(producer, commands_out, settings.command_seconds), clock, tokens)
    api = create_api(PostgresShelf(database), desk)
    service = Service(
        "registry", settings, roles, http=api, resources=[database, rebuild], producer=producer, clock=clock
    )
    relay.bind(service.metrics)
    return service
