"""The aggregation on Faust: partitions, two tables with changelogs and their recovery; our code does the rest.

Faust is kept to what it is good at. It gets bytes and gives bytes: decoding, poison and publication are ours. It runs
in the service's own event loop. Its agent takes partials one by one and acknowledges none of them; about once a second
`_settle` publishes the windows that are due; once the changelog has the tables' writes as well, the partials are
acknowledged. What Faust would let pass (an error in the agent, a crash of its own) ends the role, loudly.

Settings are those that survived trials: a short session with a static member id (a killed worker's partitions are
free after ten seconds), no leader and no topics of Faust's own (the changelogs are created here, compacted), tables in
memory (they hold open windows only, and the changelog brings them back), no web server, no exactly-once mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from tailrace_contracts.catalogue import topics
from tailrace_runtime import health
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import Parked
from tailrace_runtime.deadletters import dead_letter
from tailrace_runtime.errors import ConfigurationFault, DeliveryFailed, PoisonEvent, TailraceError
from tailrace_runtime.kafka import UNREACHABLE, connection, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

ROLE = "aggregate"
TABLES = ("partials", "models")
SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 2.0
COMMIT_SECONDS = 1.0
STOP_SECONDS = 10.0
_MOST_UNSETTLED = 2_000
_BATCH_BYTES = 256 * 1024


Take = Callable[[Record, Any], None]
"""Takes one record in, and writes the tables that it is handed. Raises PoisonEvent."""


class Aggregation(Protocol):
    """What is done with the partials that were taken in."""

    def rebuild(self, partials: Any, states: Any, partitions: set[int]) -> None:
        """Begin anew from the tables."""
        ...

    def due(self) -> list[Outgoing]:
        """What is to be published now."""
        ...


class _Taken(NamedTuple):
    """Partials that were taken in together, and the table writes that they led to."""

    events: list[Any]
    writes: list[asyncio.Future[Any]]


class AggregationFailed(TailraceError):  # noqa: N818  # it says what happened
    """Faust stopped, or the agent did."""


class FaustAggregation:
    """The role `aggregate`: `run` works until it is told to stop. Implements the tables that the aggregation writes."""

    def __init__(
        self,
        settings: ServiceSettings,
        aggregation: Aggregation,
        topic: str,
        take: Take,
        *,
        publisher: Publisher,
        metrics: Metrics,
        settle_seconds: float,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._aggregation = aggregation
        self._topic = topic
        self._take_in = take
        self._publisher = publisher
        self._metrics = metrics
        self._settle_seconds = settle_seconds
        self._clock = clock or SystemClock()
        self._app: Any = None
        self._tables: dict[str, Any] = {}
        self._writes: list[asyncio.Future[Any]] = []
        self._unsettled: list[Any] = []
        self._letters: list[Outgoing] = []
        self._published: deque[_Taken] = deque()
        self._stale = True
        self._hand = asyncio.Lock()
        self._failure: asyncio.Future[BaseException] | None = None

    # ------------------------------------------------------------ from start to stop

    async def run(self, stop: asyncio.Event) -> None:
        """Aggregate until `stop` is set. Raises AggregationFailed when Faust or the agent fails."""
        part = f"role {ROLE}"
        health.here().waiting(part, "starting")
        await wait_for(self._settings, [self._topic, "feature-statistics"], part=part)
        await until_available(part, unreachable(self._settings), self._create_changelogs, UNREACHABLE)
        self._failure = asyncio.get_running_loop().create_future()
        self._app = self._built()
        stopper = asyncio.create_task(stop.wait(), name="stop")
        parts = [
            asyncio.create_task(self._serve(part), name="faust"),
            asyncio.create_task(self._settle_for_ever(), name="settle"),
        ]
        try:
            done, _ = await asyncio.wait([stopper, *parts], return_when=asyncio.FIRST_COMPLETED)
            self._raise_failure(stop, done)
        finally:
            for task in (stopper, *parts):
                task.cancel()
            await asyncio.gather(stopper, *parts, return_exceptions=True)
            await self._stopped(stop)

    async def _serve(self, part: str) -> None:
        """Start Faust, and return when it or the agent has failed."""
        await self._app.start()
        self._app.producer.buffer.max_messages = _MOST_UNSETTLED  # `_settle` waits for what lies in it
        health.here().ready(part)
        log.info("aggregation started", group=self._app.conf.id)
        crashed = asyncio.ensure_future(self._app._crashed.wait())  # noqa: SLF001
        try:
            await asyncio.wait([crashed, self._of_agent()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            crashed.cancel()
        raise AggregationFailed(repr(self._reason()))

    def _reason(self) -> BaseException | None:
        if self._of_agent().done():
            return self._of_agent().result()
        reason: BaseException | None = self._app.crash_reason
        return reason

    def _of_agent(self) -> asyncio.Future[BaseException]:
        if self._failure is None:
            raise AggregationFailed("the aggregation has not been started")
        return self._failure

    def _raise_failure(self, stop: asyncio.Event, done: set[asyncio.Task[Any]]) -> None:
        if stop.is_set():
            return
        for task in done:
            error = task.exception()
            health.here().stopped(f"role {ROLE}", repr(error))
            raise AggregationFailed(f"role {ROLE} stopped: {error!r}") from error

    async def _stopped(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            with suppress(DeliveryFailed):
                await self._settle()
            writes = [write for taken in self._published for write in taken.writes]
            if writes:
                await asyncio.wait(writes, timeout=STOP_SECONDS / 2)
            self._acknowledge()
        stopping = asyncio.create_task(self._app.stop())
        _, late = await asyncio.wait({stopping}, timeout=STOP_SECONDS)
        if late:
            log.warning("Faust did not stop in time", seconds=STOP_SECONDS)

    # ------------------------------------------------------------ the Faust application

    @property
    def group(self) -> str:
        """The consumer group, which the changelogs are named for too."""
        return f"{self._settings.topic_prefix}ingestion-{ROLE}"

    def changelog(self, table: str) -> str:
        """The changelog topic of a table, as the broker calls it."""
        return f"{self.group}-{table}-changelog"

    def _built(self) -> Any:
        import faust

        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(logging.WARNING)
        app = faust.App(
            self.group,
            broker=f"kafka://{self._settings.kafka_bootstrap.replace(',', ';kafka://')}",
            **_credentials(self._settings),
            autodiscover=False,
            datadir=str(self._folder()),
            store="memory://",
            key_serializer="raw",
            value_serializer="raw",
            processing_guarantee="at_least_once",
            broker_client_id=f"ingestion-{ROLE}-{self._settings.instance}",
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=HEARTBEAT_SECONDS,
            broker_commit_interval=COMMIT_SECONDS,
            consumer_group_instance_id=f"ingestion-{ROLE}-{self._settings.instance}",
            consumer_auto_offset_reset="earliest",
            producer_acks=-1,
            producer_max_batch_size=_BATCH_BYTES,
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_replication_factor=self._settings.replication_factor,
            table_standby_replicas=0,
            web_enabled=False,
            logging_config=None,
            loghandlers=[],
            worker_redirect_stdouts=False,
        )
        partials = app.topic(
            self._settings.topic(self._topic), key_type=bytes, value_type=bytes, value_serializer="raw"
        )
        for name in TABLES:
            self._tables[name] = self._kept_table(app, name)
        app.agent(partials, name=ROLE, concurrency=1)(self._agent)
        app.on_partitions_assigned.connect(self._note_assignment, weak=False)
        app.on_rebalance_complete.connect(self._note_recovery, weak=False)
        return app

    def _folder(self) -> Path:
        """Faust wants a folder, although its tables are in memory."""
        folder = self._settings.state_dir / ROLE / self._settings.instance
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationFault(f"{folder} cannot be made ({error.strerror}); set TAILRACE_STATE_DIR") from error
        return folder

    def _kept_table(self, app: Any, name: str) -> Any:
        """A table that remembers what it sends to its changelog, so that it can be waited for."""
        table = app.Table(
            name, key_type=bytes, value_type=bytes, partitions=topics()[self._topic].partitions, default=None
        )
        send = table.send_changelog

        def remembered(*args: Any, **options: Any) -> Any:
            sent = send(*args, **options)
            self._writes.append(sent)
            return sent

        table.send_changelog = remembered
        return table

    async def _create_changelogs(self) -> None:
        admin = AIOKafkaAdminClient(**connection(self._settings))
        try:
            await admin.start()
            (found,) = await admin.describe_topics([self._settings.topic(self._topic)])
            response = await admin.create_topics(
                [
                    NewTopic(
                        name=self.changelog(table),
                        num_partitions=len(found["partitions"]),
                        replication_factor=self._settings.replication_factor,
                        topic_configs={"cleanup.policy": "compact"},
                    )
                    for table in TABLES
                ]
            )
        finally:
            await admin.close()
        for name, code, *_ in response.topic_errors:
            error = for_code(code)
            if error.errno != 0 and error is not TopicAlreadyExistsError:
                raise error(f"changelog topic {name} could not be created")

    async def _note_assignment(self, _app: Any, assigned: Any, **_: Any) -> None:
        """Nothing in memory counts until the tables are recovered; what was not acknowledged comes again."""
        log.info("partials assigned", partitions=sorted({each.partition for each in assigned}))
        self._stale = True
        self._unsettled.clear()
        self._published.clear()

    async def _note_recovery(self, _app: Any, **_: Any) -> None:
        self._rebuild()

    # ------------------------------------------------------------ partials

    async def _agent(self, stream: Any) -> None:
        """Take partials in, one by one. Faust would log an error and go on, so it is told to the role first."""
        try:
            async for event in stream.noack().events():
                if self._stale:
                    self._rebuild()
                self._take(event)
                self._unsettled.append(event)
                if len(self._unsettled) >= _MOST_UNSETTLED:
                    await self._settle()
        except Exception as error:
            if not self._of_agent().done():
                self._of_agent().set_result(error)
            raise

    def _rebuild(self) -> None:
        topic = self._settings.topic(self._topic)
        partitions = {each.partition for each in self._app.consumer.assignment() if each.topic == topic}
        models = [(key.decode(), value) for key, value in self._tables["models"].items() if value]
        partials = [value for value in self._tables["partials"].values() if value]
        self._aggregation.rebuild(partials, models, partitions)
        self._stale = False

    def _take(self, event: Any) -> None:
        message = event.message
        record = Record(
            self._topic,
            message.partition,
            message.offset,
            int(message.timestamp * 1000),
            message.key,
            message.value,
            tuple(dict(message.headers or ()).items()),
        )
        outcome = "done"
        try:
            self._take_in(record, self)
        except PoisonEvent as poison:
            parked = Parked(record, poison.code, poison.reason, poison.model)
            letter = dead_letter(parked, service="ingestion", role=ROLE, attempts=1, now=self._clock.now())
            self._letters.append(letter)
            self._metrics.count("tailrace_dead_letters_total", role=ROLE, topic=self._topic, code=poison.code)
            outcome = "parked"
        self._metrics.count("tailrace_events_total", role=ROLE, topic=self._topic, outcome=outcome)

    def keep_partial(self, key: str, value: bytes | None) -> None:
        """Store a partial in its table; None forgets it."""
        if value is None:
            self._tables["partials"].pop(key.encode(), None)
        else:
            self._tables["partials"][key.encode()] = value

    def keep_model(self, model: str, value: bytes) -> None:
        """Store a model's state in its table."""
        self._tables["models"][model.encode()] = value

    # ------------------------------------------------------------ settling

    async def _settle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settle_seconds)
            with health.here().in_hand(f"role {ROLE} settles"):
                await self._settle()
            if not self._stale:
                self._report_lag()

    async def _settle(self) -> None:
        """Publish what is due; acknowledge partials whose windows are published and whose table writes are safe."""
        async with self._hand:
            if self._stale or self._app is None:
                return
            taken = _Taken(self._unsettled, self._writes)
            self._unsettled, self._writes = [], []
            letters, self._letters = self._letters, []
            await self._publisher.send_all([*letters, *self._aggregation.due()])
            self._published.append(taken)
            self._acknowledge()

    def _acknowledge(self) -> None:
        while self._published and all(write.done() for write in self._published[0].writes):
            taken = self._published.popleft()
            for write in taken.writes:
                write.result()
            for event in taken.events:
                event.ack()

    def _report_lag(self) -> None:
        topic = self._settings.topic(self._topic)
        consumer = self._app.consumer
        for each in consumer.assignment():
            if each.topic != topic:
                continue
            lag = (consumer.highwater(each) or 0) - (consumer._read_offset.get(each) or -1) - 1  # noqa: SLF001
            labels = {"role": ROLE, "topic": self._topic, "partition": str(each.partition)}
            self._metrics.gauge("tailrace_consumer_lag", max(lag, 0), **labels)


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
