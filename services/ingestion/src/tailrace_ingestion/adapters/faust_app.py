"""The Faust application of the aggregation: its settings, its two tables and their changelog topics.

Settings are those that survived trials: a short session with a static member id (a killed worker's partitions are
free after ten seconds), no leader and no topics of Faust's own (the changelogs are created here, compacted), tables in
memory (they hold open windows only, and the changelog brings them back), no web server, no exactly-once mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from tailrace_contracts.catalogue import topics
from tailrace_runtime.errors import ConfigurationFault
from tailrace_runtime.kafka import connection
from tailrace_runtime.settings import ServiceSettings

ROLE = "aggregate"
TABLES = ("partials", "models")
SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 2.0
COMMIT_SECONDS = 1.0
THREAD_STOP_SECONDS = 5.0
BUFFERED_MESSAGES = 4_000
_BATCH_BYTES = 256 * 1024


class Hooks(NamedTuple):
    """What Faust calls: the agent with its stream, the assignment, the end of a recovery, each write to a changelog."""

    agent: Callable[[Any], Awaitable[None]]
    assigned: Callable[..., Awaitable[None]]
    recovered: Callable[..., Awaitable[None]]
    written: Callable[[asyncio.Future[Any]], None]


class Application(NamedTuple):
    """Faust's application and its tables by name."""

    app: Any
    tables: dict[str, Any]


def group_of(settings: ServiceSettings) -> str:
    """The consumer group, which the changelogs are named for too."""
    return f"{settings.topic_prefix}ingestion-{ROLE}"


def changelogs(settings: ServiceSettings) -> tuple[str, ...]:
    """The changelog topics of the tables, as the broker calls them."""
    return tuple(f"{group_of(settings)}-{table}-changelog" for table in TABLES)


async def create_changelogs(settings: ServiceSettings, source: str) -> None:
    """Create the changelog topics, with as many partitions as the source has, unless they are there."""
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
        (found,) = await admin.describe_topics([settings.topic(source)])
        response = await admin.create_topics(
            [
                NewTopic(
                    name=name,
                    num_partitions=len(found["partitions"]),
                    replication_factor=settings.replication_factor,
                    topic_configs={"cleanup.policy": "compact"},
                )
                for name in changelogs(settings)
            ]
        )
    finally:
        await admin.close()
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if error.errno != 0 and error is not TopicAlreadyExistsError:
            raise error(f"changelog topic {name} could not be created")


def build(settings: ServiceSettings, source: str, hooks: Hooks) -> Application:
    """The application, not started. Faust is imported here: it takes a second and 30 MB, in this role only."""
    import faust

    for name in ("faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    member = f"ingestion-{ROLE}-{settings.instance}"
    app = faust.App(
        group_of(settings),
        broker=f"kafka://{settings.kafka_bootstrap.replace(',', ';kafka://')}",
        **_credentials(settings),
        autodiscover=False,
        datadir=str(_folder(settings)),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        broker_client_id=member,
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=HEARTBEAT_SECONDS,
        broker_commit_interval=COMMIT_SECONDS,
        consumer_group_instance_id=member,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_max_batch_size=_BATCH_BYTES,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_replication_factor=settings.replication_factor,
        table_standby_replicas=0,
        web_enabled=False,
        logging_config=None,
        loghandlers=[],
        worker_redirect_stdouts=False,
    )
    tables = {name: _watched_table(app, name, source, hooks.written) for name in TABLES}
    stream = app.topic(settings.topic(source), key_type=bytes, value_type=bytes, value_serializer="raw")
    app.agent(stream, name=ROLE, concurrency=1)(hooks.agent)
    app.on_partitions_assigned.connect(hooks.assigned, weak=False)
    app.on_rebalance_complete.connect(hooks.recovered, weak=False)
    app.producer.buffer.max_messages = BUFFERED_MESSAGES
    app.consumer._thread.Worker = _thread_class()  # noqa: SLF001
    return Application(app, tables)


def _watched_table(app: Any, name: str, source: str, written: Callable[[asyncio.Future[Any]], None]) -> Any:
    """A table that tells what it sends to its changelog, so that it can be waited for."""
    table = app.Table(name, key_type=bytes, value_type=bytes, partitions=topics()[source].partitions)
    send = table.send_changelog

    def watched(*args: Any, **options: Any) -> Any:
        sent = send(*args, **options)
        written(sent)
        return sent

    table.send_changelog = watched
    return table


def _thread_class() -> type:
    """Faust's consumer has a thread of its own: one that keeps neither the event loop nor the process from ending."""
    from mode.threads import WorkerThread

    class Thread(WorkerThread):  # type: ignore[misc]  # mode is untyped here
        """A thread that is waited for, but not for ever."""

        def __init__(self, service: Any, **options: Any) -> None:
            super().__init__(service, **options)
            self.daemon = True

        def stop(self) -> None:
            """Wait for the thread's end for a while."""
            self.join(THREAD_STOP_SECONDS)

    return Thread


def _folder(settings: ServiceSettings) -> Path:
    """Faust wants a folder, although its tables are in memory."""
    folder = settings.state_dir / ROLE / settings.instance
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationFault(f"{folder} cannot be made ({error.strerror}); set TAILRACE_STATE_DIR") from error
    return folder


def _credentials(settings: ServiceSettings) -> Mapping[str, Any]:
    """The broker credentials in Faust's words."""
    import faust

    arguments = connection(settings)
    context = arguments.get("ssl_context")
    if "sasl_mechanism" in arguments:
        return {
            "broker_credentials": faust.SASLCredentials(
                username=arguments["sasl_plain_username"],
                password=arguments["sasl_plain_password"],
                mechanism=arguments["sasl_mechanism"],
                ssl_context=context,
            )
        }
    return {} if context is None else {"broker_credentials": faust.SSLCredentials(context)}
