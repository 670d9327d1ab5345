"""Monitoring, built from its settings.

Two roles. `watch` reads examples, windows and announcements in one group and writes what it finds into PostgreSQL; the
outbox's relay runs beside it. `console` serves the page from PostgreSQL. Both may run in any number of processes: a
model's watch is locked while it observes, and one relay at a time publishes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import Event
from tailrace_monitoring.adapters.gazette import FollowedGazette
from tailrace_monitoring.adapters.postgres_page import PostgresNotebook, PostgresPage
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.adapters.prometheus import INSTRUMENTS, PrometheusMeter
from tailrace_monitoring.adapters.references import StoredReferences
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.adapters.sklearn_learners import foretell, tell_apart
from tailrace_monitoring.consumers import WatchRole
from tailrace_monitoring.domain.state import Tools
from tailrace_monitoring.handlers import Watchers
from tailrace_monitoring.http import create_app
from tailrace_monitoring.settings import MonitoringSettings
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole, Outcome
from tailrace_runtime.database import Database
from tailrace_runtime.ids import new_id
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.outbox import Relay
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record
from tailrace_runtime.service import BackgroundRole, Resource, Role, Service
from tailrace_statistics.columns import merge

SERVICE = "monitoring"
TICK_SECONDS = 0.5

TopicsIn = Mapping[str, Callable[[WatchRole, Sequence[Record]], Awaitable[Outcome]]]
TopicsOut = dict[type[Event], str]


def topics_out(*names: str) -> TopicsOut:
    """Which event goes to which of these topics, as the catalogue says."""
    return {event: name for name in names for event in topics()[name].event_types}


def create_service(
    topics_in: TopicsIn,
    topics_out: TopicsOut,
    settings: MonitoringSettings | None = None,
    *,
    clock: Clock | None = None,
    new_id: Callable[[], str] = new_id,
) -> Service:
    """The service, ready to run. Raises ConfigurationFault, or pydantic.ValidationError for wrong settings."""
    settings = settings or MonitoringSettings()
    clock = clock or SystemClock()
    database = Database(settings.database_url, "tailrace_monitoring")
    metrics = Metrics(SERVICE, INSTRUMENTS, process=True)
    producer = Producer(settings, client_id=f"{SERVICE}-{settings.instance}")
    gazette = FollowedGazette(settings)
    watching = not settings.roles or "watch" in settings.roles
    resources: list[Resource] = [database]
    if watching:
        resources += [*gazette.followers, Relay(database, producer)]
    watch = WatchRole(
        Watchers(
            gazette=gazette,
            store=PostgresWatches(database, Tools(detector, merge, new_id), topics_out),
            references=StoredReferences(ObjectStore.from_url(settings.object_store)),
            meter=PrometheusMeter(metrics),
            clock=clock,
            tell_apart=tell_apart,
            foretell=foretell,
        ),
        PostgresNotebook(database),
    )
    roles: dict[str, Role] = {
        "watch": _consumer(watch, topics_in),
        "console": BackgroundRole("console", _until),
    }
    http = create_app(PostgresPage(database)) if not settings.roles or "console" in settings.roles else None
    return Service(SERVICE, settings, roles, http, resources, producer=producer, metrics=metrics, clock=clock)


def _consumer(watch: WatchRole, topics_in: TopicsIn) -> ConsumerRole:
    routes = {topic: _bound(handler, watch) for topic, handler in topics_in.items()}
    return ConsumerRole("watch", routes, state=watch, tick_seconds=TICK_SECONDS)


async def _until(stop: asyncio.Event) -> None:
    """The console's work is done by the HTTP server; the role lasts as long as the service."""
    await stop.wait()


def _bound(
    handler: Callable[[WatchRole, Sequence[Record]], Awaitable[Outcome]], watch: WatchRole
) -> Callable[[Sequence[Record]], Awaitable[Outcome]]:
    async def handle(records: Sequence[Record]) -> Outcome:
        return await handler(watch, records)

    return handle
