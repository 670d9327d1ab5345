"""The ingestion service, built from its settings.

Roles share one producer and one set of specs, and nothing else; each may run in a process of its own, in any number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tailrace_ingestion.adapters.faust_role import FaustAggregation
from tailrace_ingestion.adapters.grouped import GroupedPublisher
from tailrace_ingestion.adapters.parquet import merge
from tailrace_ingestion.adapters.rocksdb import RocksStores
from tailrace_ingestion.adapters.specs import FollowedSpecs, compiled
from tailrace_ingestion.adapters.topics import GroupOffsets, KafkaEffects, KafkaPartials
from tailrace_ingestion.consumers import Aggregating, Archiving, Compacting, Joining, SpecEffects, Validating
from tailrace_ingestion.http import PublicEvent, create_api
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.archive import to_parquet
from tailrace_runtime.clock import SystemClock
from tailrace_runtime.consumer import BatchHandler, ConsumerRole, DeadLetterLimit, RoleState
from tailrace_runtime.highwater import REACH
from tailrace_runtime.log import read_kept
from tailrace_runtime.metrics import Instrument, Metrics
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.service import BackgroundRole, Role, Service

SERVICE = "ingestion"
MAX_RECORDS = 8_000
"""Of all partitions in one poll: large enough that a backlog does not wait for acknowledgements, 0.1 s of work."""

MAX_FETCH_BYTES = 4 * 1024 * 1024
"""Of each partition that `validate` reads ahead."""

Paths = Mapping[str, tuple[PublicEvent, str]]
Routes = Mapping[str, Mapping[str, Callable[..., Any]]]

INSTRUMENTS = (
    Instrument(
        "tailrace_late_events",
        "gauge",
        "Valid events too late for their window: `late` of the windows that are kept, until these are forgotten.",
        ("model",),
    ),
    Instrument(
        "tailrace_partials_too_late_total",
        "counter",
        "Partials of a source that was silent until its window was forgotten.",
    ),
    Instrument("tailrace_open_windows", "gauge", "Windows of source partitions that this process folds."),
    Instrument(
        "tailrace_join_records",
        "gauge",
        "Of the partitions joined here, since their beginning; waiting_* is what waits now.",
        ("model", "outcome"),
    ),
    Instrument("tailrace_archived_total", "counter", "Records written to the archive.", ("topic",)),
    Instrument("tailrace_archive_merged_total", "counter", "Files of the archive merged into larger ones.", ("topic",)),
    Instrument("tailrace_archive_damaged_total", "counter", "Merges that met a file that cannot be read.", ("topic",)),
)
"""What ingestion reports beside the runtime's metrics."""


def create_service(paths: Paths, routes: Routes, settings: IngestionSettings | None = None) -> Service:
    """The service with the roles that its settings name."""
    settings = settings or IngestionSettings()
    metrics = Metrics(SERVICE, INSTRUMENTS, process=True)
    producer = Producer(settings, client_id=f"{SERVICE}-{settings.instance}")
    specs = FollowedSpecs(settings, settings.spec_refresh_seconds)
    build = _Roles(settings, metrics, producer, specs)
    roles: dict[str, Role] = {"gateway": BackgroundRole("gateway", _until_stopped)}
    roles |= {name: getattr(build, name)(topics) for name, topics in routes.items()}
    has_gateway = not settings.roles or "gateway" in settings.roles
    api = create_api(GroupedPublisher(producer), settings, paths) if has_gateway else None
    return Service(SERVICE, settings, roles, api, [specs], producer=producer, metrics=metrics)


async def _until_stopped(stop: asyncio.Event) -> None:
    """The gateway's work is done by the HTTP server."""
    await stop.wait()


class _Roles:
    """Wires each role: state, handlers, adapters."""

    def __init__(self, settings: IngestionSettings, metrics: Metrics, producer: Producer, specs: FollowedSpecs) -> None:
        self._settings, self._metrics, self._producer, self._specs = settings, metrics, producer, specs

    def validate(self, topics: Mapping[str, Callable[..., Any]]) -> Role:
        settings = self._settings
        effects = SpecEffects(self._specs, compiled, KafkaEffects(settings), self._producer, SystemClock())
        state = Validating(effects, KafkaPartials(settings), self._metrics, settings.max_waiting_rows)
        role = _consumer("validate", topics, state, settings.partial_seconds)
        role.overlap, role.max_fetch_bytes = True, MAX_FETCH_BYTES
        role.dead_letter_limit = DeadLetterLimit(share=settings.invalid_share_limit)  # ADR 18
        return role

    def join(self, topics: Mapping[str, Callable[..., Any]]) -> Role:
        settings = self._settings
        stores = RocksStores(settings.state_dir / "join" / settings.instance)
        offsets = GroupOffsets(settings, f"{settings.topic_prefix}{SERVICE}-join")
        state = Joining(
            self._specs,
            stores,
            offsets,
            self._producer,
            self._metrics,
            clock=SystemClock(),
            coverage_seconds=settings.coverage_seconds,
        )
        role = _consumer("join", topics, state, 1.0)
        role.max_records, role.commit_seconds = REACH, 0  # what is published and not committed stays within it
        return role

    def archive(self, topics: Mapping[str, Callable[..., Any]]) -> Role:
        settings = self._settings
        objects = ObjectStore.from_url(settings.object_store)
        compacting = Compacting(
            objects,
            partial(merge, objects),
            self._metrics,
            target_bytes=settings.archive_target_bytes,
            at_least=settings.archive_merge_files,
        )
        state = Archiving(
            objects,
            to_parquet,
            self._metrics,
            compacting,
            max_bytes=settings.archive_max_bytes,
            max_seconds=settings.archive_seconds,
        )
        return _consumer("archive", topics, state, 1.0)

    def aggregate(self, topics: Mapping[str, Callable[..., Any]]) -> Role:
        settings = self._settings
        state = Aggregating(
            self._specs,
            metrics=self._metrics,
            window_seconds=settings.window_seconds,
            idle_source_seconds=settings.idle_source_seconds,
            gone_source_seconds=settings.gone_source_seconds,
        )
        ((topic, handler),) = topics.items()
        faust = FaustAggregation(
            settings,
            state,
            topic,
            partial(handler, state),
            publisher=self._producer,
            metrics=self._metrics,
            settle_seconds=settings.window_seconds,
            read=partial(read_kept, settings),
        )
        return BackgroundRole("aggregate", faust.run)


def _consumer(
    name: str, topics: Mapping[str, Callable[..., Any]], state: RoleState, tick_seconds: float
) -> ConsumerRole:
    """A consumer group whose handlers are methods of its state."""
    handlers: dict[str, BatchHandler] = {topic: partial(handler, state) for topic, handler in topics.items()}
    return ConsumerRole(name, handlers, state, tick_seconds, max_records=MAX_RECORDS)
