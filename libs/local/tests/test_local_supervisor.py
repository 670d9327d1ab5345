"""The supervisor: services come up side by side, failures name themselves, and everything stops in order."""

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tailrace_local import Home, PortInUse, Process, ProcessId, StartFailed, Supervisor, down, free_port
from tailrace_local.process import wait_until

SERVICE = """
import http.server, os, signal, sys, time

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 200 if self.path == "/readyz" and os.environ.get("READY", "1") == "1" else 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"waiting for the broker")

    def log_message(self, *_):
        pass

def leave(*_):
    print("stopped", sys.argv[1], flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, leave)
print("started", sys.argv[1], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Ready).serve_forever()
"""


def service(name: str, port: int) -> list[str]:
    """The command line of a tiny service."""
    return [sys.executable, "-c", SERVICE, name, str(port)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A fresh home."""
    return Home(tmp_path / ".tailrace")


def test_services_come_up_and_go_down_with_the_supervisor(home: Home) -> None:
    """The demo would talk to services that are not there yet, or leave them behind."""
    told: list[tuple[str, float | None]] = []
    ports = [free_port(), free_port()]
    with Supervisor(home, report=lambda text, fraction: told.append((text, fraction))) as supervisor:
        started = [supervisor.start(f"service-{n}", service(str(n), port), port=port) for n, port in enumerate(ports)]
        supervisor.wait_ready(20.0)
        assert [(entry.name, entry.port) for entry in home.running()] == list(
            zip(["service-0", "service-1"], ports, strict=True)
        )
        assert supervisor.ended() == []
    assert ("Starting service-1", 1.0) in told
    assert [process.last_lines().split() for process in started] == [
        ["started", str(n), "stopped", str(n)] for n in (0, 1)
    ]
    assert home.noted() == []


def test_a_service_that_ends_early_is_named_with_its_last_words(home: Home) -> None:
    """A person would wait a minute and then learn nothing."""
    port = free_port()
    with Supervisor(home) as supervisor:
        supervisor.start("training", [sys.executable, "-c", "import sys; sys.exit('no such table')"], port=port)
        with pytest.raises(
            StartFailed, match=r"(?s)training ended before it was ready .*training.log:\n.*no such table"
        ):
            supervisor.wait_ready(20.0)
    assert home.running() == []


def test_a_service_that_is_never_ready_is_named_with_its_answer(home: Home) -> None:
    """A person would not learn what the service waits for."""
    port = free_port()
    with Supervisor(home) as supervisor:
        supervisor.start("slow", service("slow", port), settings={"READY": "0"}, port=port)
        with pytest.raises(
            StartFailed, match=r"slow is not ready in time: .*/readyz answers 503 waiting for the broker"
        ):
            supervisor.wait_ready(1.5)


def test_a_taken_port_is_said_at_once(home: Home) -> None:
    """The service would fail a minute later, and the other program's answers be taken for its own."""
    with socket.socket() as other, Supervisor(home) as supervisor:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"serving cannot listen on 127.0.0.1:{port}"):
            supervisor.start("serving", service("serving", port), port=port)


def test_a_service_that_dies_is_noticed(home: Home) -> None:
    """The demo would wait for ever for a service that is gone."""
    with Supervisor(home) as supervisor:
        process = supervisor.start("brief", [sys.executable, "-c", "pass"])
        assert wait_until(lambda: supervisor.ended() == [process], 10.0)


def test_detached_services_outlive_the_command_until_down(home: Home) -> None:
    """`tailrace up` would stop everything when it returns, or `down` would not find it."""
    port = free_port()
    with Supervisor(home, detached=True) as supervisor:
        process = supervisor.start("serving", service("serving", port), port=port)
        supervisor.wait_ready(20.0)
    assert process.alive()
    assert [entry.name for entry in down(home)] == ["serving"]
    assert not process.alive()
    assert process.last_lines().split() == ["started", "serving", "stopped", "serving"]


def test_a_failed_detached_start_leaves_nothing(home: Home) -> None:
    """After a failed `tailrace up` half of it would go on running."""
    port = free_port()
    started: list[Process] = []

    def up() -> None:
        with Supervisor(home, detached=True) as supervisor:
            started.append(supervisor.start("serving", service("serving", port), port=port))
            started.append(supervisor.start("training", ["/no/such/program"]))

    with pytest.raises(StartFailed):
        up()
    assert [process.alive() for process in started] == [False]
    assert home.running() == []


def test_a_killed_command_leaves_no_service(home: Home, tmp_path: Path) -> None:
    """A killed demo would leave its services behind."""
    code = f"""
        import sys, time
        from pathlib import Path
        from tailrace_local import Home, Supervisor
        supervisor = Supervisor(Home(Path({str(home.folder)!r})))
        supervisor.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
        Path({str(tmp_path / "started")!r}).touch()
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    assert wait_until((tmp_path / "started").exists, 20.0)
    (entry,) = home.running()
    child = ProcessId(entry.pid, entry.started)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not child.alive(), 10.0)
    assert home.running() == []


def test_servers_and_services_of_a_home(home: Home) -> None:
    """`tailrace up` would not bring up a broker and a database, or `down` not stop them."""
    with Supervisor(home) as supervisor:
        postgres = supervisor.start_postgres()
        kafka = supervisor.start_kafka()
        supervisor.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
        assert [(entry.name, entry.kind, entry.port) for entry in home.running()] == [
            ("postgres", "server", postgres.port),
            ("kafka", "server", kafka.port),
            ("sleeper", "service", None),
        ]
        stopped = [entry.process() for entry in home.running()]
    assert not any(process.alive() for process in stopped)
    assert (home.logs / "kafka.log").exists()
