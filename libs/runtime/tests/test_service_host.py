"""The service host: what it says while it starts, what it does when a part fails, and how it stops."""

import asyncio
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI

from tailrace_runtime import health
from tailrace_runtime import service as host
from tailrace_runtime.consumer import ConsumerRole, Outcome
from tailrace_runtime.errors import ConfigurationFault
from tailrace_runtime.follower import Follower
from tailrace_runtime.front import App
from tailrace_runtime.health import Health, progress
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.service import BackgroundRole, Resource, Role, Service, ServiceFailed
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import create_all
from tailrace_runtime.tracing import trace_id
from tailrace_testing.broker import OwnBroker
from tailrace_testing.polling import eventually

Deployment = Callable[..., Awaitable[ServiceSettings]]
WORKER = Path(__file__).with_name("forwarding_worker.py")


async def until_stopped(stop: asyncio.Event) -> None:
    """A background role with nothing to do."""
    await stop.wait()


def service(
    settings: ServiceSettings,
    roles: Mapping[str, Role] | None = None,
    http: App | None = None,
    resources: Sequence[Resource] = (),
) -> Service:
    """A service for a test."""
    return Service("svc", settings, roles or {"idle": BackgroundRole("idle", until_stopped)}, http, resources)


@asynccontextmanager
async def running(host: Service) -> AsyncIterator[tuple[asyncio.Task[None], httpx.AsyncClient]]:
    """The service, running, and a client for its port."""
    stop = asyncio.Event()
    task = asyncio.create_task(host.run(stop))
    await eventually(lambda: host.port != 0 or task.done())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{host.port}") as client:
        try:
            yield task, client
        finally:
            stop.set()
            await asyncio.wait((task,))


async def status(client: httpx.AsyncClient, path: str) -> int:
    """The status of a GET; 0 while nobody listens."""
    try:
        return (await client.get(path)).status_code
    except httpx.HTTPError:
        return 0


async def test_a_service_that_runs_is_alive_and_ready_and_measured(deployment: Deployment) -> None:
    """An orchestrator would not send traffic, or would restart a healthy process."""
    settings = await deployment("predictions")
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    async def handle(records: Sequence[Record]) -> Outcome:
        del records
        return Outcome()

    roles: dict[str, Role] = {"consume": ConsumerRole("consume", {"predictions": handle})}
    async with running(service(settings, roles, app)) as (_, client):

        async def ready() -> bool:
            return await status(client, "/readyz") == 200

        await eventually(ready)
        assert (await client.get("/livez")).json() == {"live": True, "problems": {}}
        assert (await client.get("/hello")).json() == {"hello": "world"}
        metrics = (await client.get("/metrics")).text
        assert 'tailrace_ready{service="svc"} 1.0' in metrics
        assert "process_resident_memory_bytes" in metrics


async def test_a_request_carries_its_trace_into_the_service(deployment: Deployment) -> None:
    """What a client traces would end at the first service."""
    app = FastAPI()

    @app.get("/trace")
    async def trace() -> str | None:
        return trace_id()

    async with running(service(await deployment("predictions"), http=app)) as (_, client):

        async def opened() -> bool:
            return await status(client, "/trace") == 200

        await eventually(opened)
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        assert (await client.get("/trace", headers=headers)).json() == "0af7651916cd43dd8448eb211c80319c"
        assert (await client.get("/trace")).json() is None


class Slow:
    """A resource that is not there yet."""

    def __init__(self) -> None:
        self.there = asyncio.Event()
        self.stopped = False

    async def start(self) -> None:
        """Wait for it."""
        health.here().waiting("slow", "the slow thing is not there")
        await self.there.wait()
        health.here().ready("slow")

    async def stop(self) -> None:
        """Let go."""
        self.stopped = True


async def test_until_its_resources_are_there_a_service_is_alive_but_says_why_it_is_not_ready(
    deployment: Deployment,
) -> None:
    """Somebody who waits for a service would not know for what, or requests would fail with a traceback."""
    slow = Slow()
    host = service(await deployment("predictions"), http=FastAPI(), resources=[slow])
    async with running(host) as (_, client):

        async def told() -> bool:
            return "slow" in (await client.get("/readyz")).json()["waiting"]

        await eventually(told)
        assert await status(client, "/livez") == 200
        assert await status(client, "/readyz") == 503
        answer = await client.get("/v1/anything")
        assert answer.status_code == 503
        assert "the slow thing is not there" in answer.json()["error"]
        slow.there.set()

        async def opened() -> bool:
            return await status(client, "/v1/anything") == 404

        await eventually(opened)
    assert slow.stopped


async def test_a_broker_that_is_down_at_start_is_waited_for(settings: ServiceSettings) -> None:
    """A service that starts before Kafka would crash."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        async with running(service(settings.model_copy(update={"kafka_bootstrap": nowhere}))) as (task, client):

            async def told() -> bool:
                return f"Kafka at {nowhere} does not answer" in (await client.get("/readyz")).text

            await eventually(told)
            assert await status(client, "/livez") == 200
        assert task.done()


async def test_an_idle_service_whose_broker_goes_away_says_so_and_still_stops_at_once(
    broker_of_its_own: Callable[[], OwnBroker], settings: ServiceSettings
) -> None:
    """An outage would look like peace, and Ctrl-C would hang until the broker is back."""
    broker = broker_of_its_own()
    settings = settings.model_copy(update={"kafka_bootstrap": broker.bootstrap})
    await create_all(settings, ["predictions", "model-specs"])

    async def handle(_: Sequence[Record]) -> Outcome:
        return Outcome()

    follower = Follower(settings, "model-specs", lambda _event, _record: None)
    roles: dict[str, Role] = {"consume": ConsumerRole("consume", {"predictions": handle})}
    host, stop = service(settings, roles, resources=[follower]), asyncio.Event()
    running_service = asyncio.create_task(host.run(stop))
    await eventually(lambda: host.health.readiness()[0], seconds=40)
    await asyncio.to_thread(broker.kill)
    await eventually(lambda: "does not answer" in str(host.health.readiness()[1]), seconds=40)
    assert host.health.live()[0]
    stop.set()
    await asyncio.wait_for(running_service, 10)


async def test_a_failed_role_stops_the_service_and_is_named(deployment: Deployment) -> None:
    """Half a service would go on, looking healthy."""

    async def fails(_: asyncio.Event) -> None:
        raise ZeroDivisionError("a bug")

    slow = Slow()
    slow.there.set()
    roles: dict[str, Role] = {
        "good": BackgroundRole("good", until_stopped),
        "bad": BackgroundRole("bad", fails),
    }
    async with running(service(await deployment("predictions"), roles, resources=[slow])) as (task, _):
        with pytest.raises(ServiceFailed, match="svc: bad failed: a bug"):
            await task
    assert slow.stopped


async def test_a_batch_without_progress_is_named_by_livez(deployment: Deployment) -> None:
    """A stuck partition would stay stuck for ever."""
    settings = (await deployment("predictions")).model_copy(update={"stall_seconds": 0.3})
    moving, release = asyncio.Event(), asyncio.Event()

    async def stuck(_: Sequence[Record]) -> Outcome:
        while not moving.is_set():
            progress()
            await asyncio.sleep(0.01)
        await release.wait()
        return Outcome()

    producer = Producer(settings)
    await producer.start()
    await producer.send_all([Outgoing("predictions", b"x", b"k", 2)])
    await producer.stop()
    roles: dict[str, Role] = {"consume": ConsumerRole("consume", {"predictions": stuck})}
    host = service(settings, roles)
    async with running(host) as (_, client):

        async def batch_in_hand() -> bool:
            return bool(host.health._in_hand)

        await eventually(batch_in_hand)
        assert await status(client, "/livez") == 200
        moving.set()

        async def not_live() -> bool:
            return await status(client, "/livez") == 503

        await eventually(not_live)
        assert "predictions[2]@0" in (await client.get("/livez")).text
        release.set()

        async def live() -> bool:
            return await status(client, "/livez") == 200

        await eventually(live)


def test_progress_moves_the_watchdog() -> None:
    """A long training would be taken for a stuck process and killed."""
    now = 0.0
    watched = Health(stall_seconds=10, monotonic=lambda: now)
    with watched.in_hand("training of rain"):
        now = 9.0
        progress()
        now = 18.0
        assert watched.live()[0]
        now = 20.0
        assert watched.live() == (
            False,
            {"live": False, "problems": {"training of rain": "no progress for 11 s (limit 10 s)"}},
        )
    assert watched.live()[0]


async def test_only_the_chosen_roles_run(deployment: Deployment) -> None:
    """Roles could not be scaled apart."""
    settings = (await deployment("predictions")).model_copy(update={"roles": ("a",)})
    ran: list[str] = []

    def role(name: str) -> BackgroundRole:
        async def run(stop: asyncio.Event) -> None:
            ran.append(name)
            await stop.wait()

        return BackgroundRole(name, run)

    async with running(service(settings, {"a": role("a"), "b": role("b")})):
        await eventually(lambda: ran == ["a"])
    with pytest.raises(ConfigurationFault, match="svc has no role 'a': TAILRACE_ROLES may name c"):
        service(settings, {"c": role("c")})


def test_a_port_in_use_is_one_sentence_and_exit_code_2(settings: ServiceSettings) -> None:
    """A person would get a traceback, and an orchestrator the wrong exit code."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = _started(settings, TAILRACE_PORT=str(port))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"worker cannot listen on 127.0.0.1:{port}: Address already in use;"
        " stop what uses the port or set TAILRACE_PORT to a free one\n"
    )


def test_wrong_settings_are_one_sentence_and_exit_code_2(settings: ServiceSettings) -> None:
    """A typing error in the environment would be a page of traceback."""
    ended = _started(settings, TAILRACE_PORT="http", TAILRACE_LOG_FORMAT="xml")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "TAILRACE_PORT is 'http': input should be a valid integer" in ended.stderr
    assert "TAILRACE_LOG_FORMAT is 'xml': input should be 'json' or 'console'" in ended.stderr


def _started(settings: ServiceSettings, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, **environment}
    return subprocess.run([sys.executable, WORKER], env=given, capture_output=True, text=True, timeout=30, check=False)


async def test_what_is_freed_between_what_stays_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role under a steady load would grow for hours, and be killed for its memory by whoever runs it."""
    monkeypatch.setattr(host, "_SECONDS_BETWEEN_TIDIES", 0.01)
    process = psutil.Process()
    blocks = [bytes(1_000) for _ in range(100_000)]
    stays = blocks[::5_000]
    full = process.memory_full_info().uss
    del blocks
    task = asyncio.create_task(host._tidy())
    try:
        await eventually(lambda: full - process.memory_full_info().uss > 50_000_000)
    finally:
        task.cancel()
    assert len(stays) == 20


async def test_cycles_are_collected_although_little_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet service would keep what it has dropped for hours."""
    monkeypatch.setattr(host, "_SECONDS_BETWEEN_TIDIES", 0.01)

    class Knot:
        def __init__(self) -> None:
            self.itself = self

    gone = weakref.ref(Knot())
    task = asyncio.create_task(host._tidy())
    try:
        await eventually(lambda: gone() is None)
    finally:
        task.cancel()
