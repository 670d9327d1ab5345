"""How the service is put together.

Started in this order, and stopped in the reverse: producer, measuring, capture, the three followers, the loader, and then the
routes open and the roles run. So a stop first ends the requests, then the loading, then flushes what is captured, then
the producer. Of the two roles, `http` is the server itself, which every process has; `requests` is a consumer group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole, DeadLetterLimit, Outcome
from tailrace_runtime.follower import Follower
from tailrace_runtime.ids import new_id
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record
from tailrace_runtime.service import BackgroundRole, Service
from tailrace_serving.adapters.artefacts import StoredArtefacts
from tailrace_serving.adapters.kafka import PredictionTopic
from tailrace_serving.adapters.ledger import FileLedger, NoLedger
from tailrace_serving.adapters.replies import RecentReplies
from tailrace_serving.answering import Front, Limits
from tailrace_serving.capture import Capture
from tailrace_serving.consumers import Loader, Routes
from tailrace_serving.domain.arms import Table
from tailrace_serving.domain.buffer import CaptureBuffer
from tailrace_serving.explanations import Explanations
from tailrace_serving.handlers import Desk
from tailrace_serving.http import application
from tailrace_serving.measuring import Measuring
from tailrace_serving.metrics import INSTRUMENTS
from tailrace_serving.ports import Artefacts, EventLog, Ledger, Meter
from tailrace_serving.requests import Requests
from tailrace_serving.settings import ServingSettings
from tailrace_serving.shelf import Shelf, WhileRoom

log = structlog.get_logger(__name__)

RequestRoutes = Mapping[str, Callable[[Requests, Sequence[Record]], Awaitable[Outcome]]]
"""The topic of requests, and what answers them."""

MAX_REQUESTS = 200
"""Of all partitions in one poll."""


def create_service(
    topics_in: Routes,
    requests_in: RequestRoutes,
    topic_out: str,
    measurements_out: str,
    settings: ServingSettings | None = None,
    *,
    artefacts: Artefacts | None = None,
    clock: Clock | None = None,
) -> Service:
    """The service, ready to run."""
    settings = settings or ServingSettings()
    metrics = Metrics("serving", INSTRUMENTS, process=True)
    producer = Producer(settings, client_id=f"serving-{settings.instance}", metrics=metrics)
    table = Table()
    shelf = Shelf(artefacts or stored_artefacts(settings), settings.max_loaded_bytes, metrics)
    explanations = explanations_of(settings, shelf, metrics)
    capture = capture_of(settings, PredictionTopic(producer, topic_out), metrics, explanations, ledger_of(settings))
    loader = Loader(
        topics_in, table, shelf, metrics, retry_seconds=settings.artefact_retry_seconds, at_start=WhileRoom(shelf)
    )
    followers = [Follower(settings, topic, loader.on_event, metrics=metrics) for topic in topics_in]
    clock = clock or SystemClock()
    measuring = measuring_of(settings, table, producer, measurements_out, clock)
    desk = Desk(clock, new_id, metrics)
    front = Front(table, loader.waiting, capture, desk, limits_of(settings), explanations)
    return Service(
        "serving",
        settings,
        {
            "http": BackgroundRole("http", _until_stopped),
            "requests": requests_role(
                settings,
                requests_in,
                topic_out,
                table=table,
                desk=desk,
                producer=producer,
                explanations=explanations,
            ),
        },
        application(front),
        [measuring, capture, *followers, loader],
        producer=producer,
        metrics=metrics,
    )


async def _until_stopped(stop: asyncio.Event) -> None:
    """The work of HTTP is done by the service's server."""
    await stop.wait()


def requests_role(
    settings: ServingSettings,
    routes: RequestRoutes,
    topic_out: str,
    *,
    table: Table,
    desk: Desk,
    producer: Producer,
    explanations: Explanations,
) -> ConsumerRole:
    """The role that answers requests on a topic. A caller's bad requests stop nobody else's (ADR 18)."""
    ((topic, handle),) = routes.items()
    requests = Requests(
        table,
        desk,
        producer,
        RecentReplies(settings, topic, 2 * MAX_REQUESTS),
        reply_topics=settings.reply_topics,
        topic_out=topic_out,
        max_rows=settings.max_rows,
        max_explained_rows=settings.max_explained_rows,
        explanations=explanations,
        remembered_bytes=settings.remembered_reply_bytes,
    )
    return ConsumerRole(
        "requests",
        {topic: partial(handle, requests)},
        requests,
        max_records=MAX_REQUESTS,
        min_fetch_bytes=1,
        dead_letter_limit=DeadLetterLimit(share=1.0),
    )


def limits_of(settings: ServingSettings) -> Limits:
    """What one request may have, as this deployment says."""
    return Limits(
        settings.max_body_bytes,
        settings.max_rows,
        settings.max_requests,
        settings.request_seconds,
        settings.max_explained_rows,
        settings.max_explaining,
    )


def explanations_of(settings: ServingSettings, artefacts: Artefacts, meter: Meter) -> Explanations:
    """What explains answers, with this deployment's bounds."""
    return Explanations(
        artefacts,
        meter,
        max_mixed_rows=settings.max_mixed_rows,
        live_seconds=settings.explanation_seconds,
    )


def capture_of(
    settings: ServingSettings, events: EventLog, meter: Meter, explanations: Explanations, ledger: Ledger | None = None
) -> Capture:
    """The way from answers to events, with this deployment's bounds."""
    return Capture(
        events,
        meter,
        CaptureBuffer(settings.capture_max_events, settings.capture_max_bytes),
        ledger or NoLedger(),
        max_pending=settings.max_pending_rows,
        linger_seconds=settings.capture_linger_seconds,
        retry_seconds=settings.capture_retry_seconds,
        acknowledge_seconds=settings.acknowledge_seconds,
        flush_seconds=settings.capture_flush_seconds,
        explanations=explanations,
        max_waiting_explanations=settings.max_waiting_explanations,
    )


def measuring_of(settings: ServingSettings, table: Table, producer: Producer, topic: str, clock: Clock) -> Measuring:
    """What tells how versions answer, under a name that no other life of this process has."""
    process = f"{settings.instance[:80]}-{new_id()}"
    return Measuring(table, producer, topic, clock, process=process, every_seconds=settings.measure_seconds)


def ledger_of(settings: ServingSettings) -> Ledger:
    """The ledger in this process's folder; none where nothing can be written, as in a container without a volume."""
    try:
        return FileLedger(settings.state_dir / f"capture-{settings.instance}.ledger")
    except OSError as error:
        log.warning("without a ledger: what this process holds when it is killed is not counted", reason=str(error))
        return NoLedger()


def stored_artefacts(settings: ServingSettings) -> StoredArtefacts:
    """Artefacts out of the deployment's object store. Raises ConfigurationFault without a usable signing key."""
    return StoredArtefacts(
        ObjectStore.from_url(settings.object_store), settings.signing_key(), settings.in_line_seconds
    )
