"""The service host: starts the parts of a service in order, runs its roles, and stops everything in good order.

Starting: bind the port and answer probes; connect the producer; start the resources, in order (each may wait for what
is not there yet); open the service's own routes; run the chosen roles, each in a task of its own.

Stopping (SIGTERM, SIGINT, or a part that failed): not ready any more; roles finish the batch in hand and commit; the
HTTP server finishes its requests; resources stop in reverse order; the producer flushes. A role or a supervised
resource that fails stops the service with one clear log line and exit code 1: the orchestrator starts it again. What a
library then leaves behind, a task that swallows its cancellation, is cut off after some seconds: a process always ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import structlog
import uvloop
from pydantic import ValidationError

from tailrace_runtime import logs
from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole
from tailrace_runtime.errors import ConfigurationFault, TailraceError
from tailrace_runtime.front import App, Front, bound, server
from tailrace_runtime.health import Health, installed
from tailrace_runtime.loop import ConsumeLoop
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import SOURCE
from tailrace_runtime.settings import ServiceSettings

_ALLOCATIONS_BETWEEN_COLLECTIONS = 50_000
_SECONDS_BETWEEN_TIDIES = 30.0
_CUT_OFF_SECONDS = 5.0
log = structlog.get_logger(__name__)

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


@dataclass(slots=True)
class BackgroundRole:
    """A role that is not a consumer group: `run` works until the event is set, then returns."""

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]


Role = ConsumerRole | BackgroundRole


class Resource(Protocol):
    """Something that roles and routes need: started before them, stopped after them."""

    async def start(self) -> None:
        """Return when it can be used."""
        ...

    async def stop(self) -> None:
        """Let go of it."""
        ...


@runtime_checkable
class Supervised(Protocol):
    """A resource with work of its own in the background, such as a follower: its failure is the service's."""

    async def wait(self) -> None:
        """Return when it has been stopped; raise what made it fail."""
        ...


class ServiceFailed(TailraceError):  # noqa: N818  # it says what happened
    """A part of the service failed, and the service has stopped."""


class Service:
    """One service: its roles, its routes and what they need."""

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        roles: Mapping[str, Role],
        http: App | None = None,
        resources: Sequence[Resource] = (),
        *,
        producer: Producer | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.metrics = metrics or Metrics(name, process=True)
        self.producer = producer or Producer(settings, client_id=f"{name}-{settings.instance}")
        self.health = Health(settings.stall_seconds)
        self.health.waiting("service", "not started")
        self.port = settings.port
        self._clock = clock or SystemClock()
        self._roles = _chosen(name, roles, settings.roles)
        self._resources = tuple(resources)
        self._front = Front(name, http, self.health, self.metrics)
        self._server = server(self._front, settings.shutdown_seconds / 2)
        for part in (self.producer, *self._resources):
            bind = getattr(part, "bind", None)
            if bind is not None:
                bind(self.metrics)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Run until `stop` is set (without one: until SIGTERM or SIGINT), then stop in good order.

        Raises:
            ConfigurationFault: the service cannot start here.
            ServiceFailed: a role or a resource failed.
        """
        SOURCE.set(f"/{self.name}")
        if stop is None:
            stop = asyncio.Event()
            _stop_on_signals(stop)
        with installed(self.health):
            self.health.waiting("service", "starting")
            listener = bound(self.settings.host, self.settings.port, self.name)
            self.port = listener.getsockname()[1]
            await self._run(stop, listener)

    async def _run(self, stop: asyncio.Event, listener: socket.socket) -> None:
        web = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        tidier = asyncio.create_task(_tidy(), name="tidier")
        log.info("listening", host=self.settings.host, port=self.port, roles=list(self._roles))
        started: list[Resource] = []
        roles_stop = asyncio.Event()
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            if await _unless(stop, self._start(started)):
                tasks = self._launch(roles_stop, started)
                self._front.open = True
                self.health.ready("service")
                await self._until_over(stop, {**tasks, "http": web})
        finally:
            self.health.waiting("service", "stopping")
            self._front.draining = True
            await self._drain(roles_stop, tasks, drain=stop.is_set())
            self._server.should_exit = True
            tidier.cancel()
            await asyncio.gather(web, tidier, return_exceptions=True)
            listener.close()
            for resource in reversed(started):
                await resource.stop()
            log.info("stopped")

    async def _start(self, started: list[Resource]) -> None:
        for resource in (self.producer, *self._resources):
            started.append(resource)
            await resource.start()

    def _launch(self, stop: asyncio.Event, started: Sequence[Resource]) -> dict[str, asyncio.Task[None]]:
        for role in self._roles.values():
            if isinstance(role, ConsumerRole):
                self.health.waiting(f"role {role.name}", "starting")
        tasks = {
            name: asyncio.create_task(self._running(role, stop), name=f"role {name}")
            for name, role in self._roles.items()
        }
        for index, resource in enumerate(started):
            if isinstance(resource, Supervised):
                name = f"{type(resource).__name__} {index}"
                tasks[name] = asyncio.create_task(resource.wait(), name=name)
        return tasks

    async def _running(self, role: Role, stop: asyncio.Event) -> None:
        SOURCE.set(f"/{self.name}/{role.name}")
        if isinstance(role, ConsumerRole):
            loop = ConsumeLoop(
                role,
                service=self.name,
                settings=self.settings,
                producer=self.producer,
                metrics=self.metrics,
                clock=self._clock,
            )
            await loop.run(stop)
        else:
            await role.run(stop)

    async def _until_over(self, stop: asyncio.Event, tasks: Mapping[str, asyncio.Task[None]]) -> None:
        stopper = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopper, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopper.cancel()
        if stop.is_set():
            return
        for name, task in tasks.items():
            if task.done():
                self._fail(name, task)

    def _fail(self, name: str, task: asyncio.Task[None]) -> NoReturn:
        error = None if task.cancelled() else task.exception()
        why = "it ended by itself" if error is None else str(error) or repr(error)
        self.health.stopped(name, why)
        details = None if error is None or isinstance(error, TailraceError) else error
        log.error("service stops because a part of it failed", part=name, why=why, exc_info=details)
        raise ServiceFailed(f"{self.name}: {name} failed: {why}") from error

    async def _drain(self, stop: asyncio.Event, tasks: Mapping[str, asyncio.Task[None]], *, drain: bool) -> None:
        """Let roles finish what they have in hand, for `shutdown_seconds` at most."""
        if drain and tasks:
            await asyncio.sleep(self.settings.drain_seconds)
        stop.set()
        roles = [tasks[name] for name in self._roles if name in tasks]
        if roles:
            _, late = await asyncio.wait(roles, timeout=self.settings.shutdown_seconds)
            for task in late:
                log.warning("role cancelled: it did not stop in time", task=task.get_name())
                task.cancel()
        watchers = [task for name, task in tasks.items() if name not in self._roles]
        for task in watchers:
            task.cancel()
        await asyncio.gather(*roles, *watchers, return_exceptions=True)


def _chosen(service: str, roles: Mapping[str, Role], names: Sequence[str]) -> dict[str, Role]:
    """The roles that the settings name; all of them when they name none."""
    unknown = [name for name in names if name not in roles]
    if unknown:
        raise ConfigurationFault(
            f"{service} has no role {unknown[0]!r}: TAILRACE_ROLES may name {', '.join(roles) or 'none'}"
        )
    return {name: role for name, role in roles.items() if not names or name in names}


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Do the work; give it up when `stop` is set first. Whether it was done."""
    task = asyncio.ensure_future(work)
    stopper = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopper), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        stopper.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def main(create: Callable[[], Service]) -> NoReturn:
    """Build the service, run it, and exit: 0 when told to stop, 1 when a part failed, 2 when the settings are wrong."""
    try:
        service = create()
        logs.configure(service.settings, service.name)
        collect_seldom()
        uvloop.run(_until_cut_off(service))
    except ValidationError as error:
        _exit(settings_sentence(error), EXIT_CONFIGURATION)
    except ConfigurationFault as error:
        _exit(str(error), EXIT_CONFIGURATION)
    except TailraceError as error:
        _exit(str(error), EXIT_FAILED)
    sys.exit(0)


async def _until_cut_off(service: Service) -> None:
    """Run the service. Once it is over, the loop has `_CUT_OFF_SECONDS` to close; then the process ends without it."""
    code = EXIT_FAILED
    try:
        await service.run()
        code = 0
    finally:
        cut = threading.Timer(_CUT_OFF_SECONDS, os._exit, (code,))
        cut.daemon = True
        cut.start()


def collect_seldom() -> None:
    """Let Python's cycle collector leave alone what is there at the start, and come by seldom.

    Batches are thousands of short-lived lists and tuples without cycles. At the default of 700 allocations the collector
    looks at all of them again and again, for a third of the time that a batch takes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 20)


async def _tidy() -> None:
    """Now and then give back what is free.

    A quiet service reaches the collector's threshold in hours, and keeps its cycles till then. And glibc keeps what was
    freed in the middle of its arenas: under a steady load of batches a role grew by a tenth in three minutes, for hours,
    with a third of it free.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries than glibc give back by themselves
    while True:
        await asyncio.sleep(_SECONDS_BETWEEN_TIDIES)
        gc.collect(1)
        if trim is not None:
            await asyncio.to_thread(trim, 0)


def _exit(sentence: str, code: int) -> NoReturn:
    sys.stderr.write(sentence + "\n")
    sys.exit(code)


def settings_sentence(error: ValidationError) -> str:
    """What is wrong with the settings, in one sentence."""
    faults = []
    for each in error.errors():
        name = "TAILRACE_" + "_".join(str(part) for part in each["loc"]).upper()
        found = "is not set" if each["type"] == "missing" else f"is {each['input']!r}"
        faults.append(f"{name} {found}: {each['msg'][:1].lower()}{each['msg'][1:]}")
    return f"the settings are not usable: {'; '.join(faults)}"
