"""The plugin from outside: whole test runs in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tailrace_local import ProcessId, free_port
from tailrace_local.process import wait_until

SQL_TEST = """
def test_it(postgres):
    assert postgres.admin_url.startswith("postgresql://")
"""
WAITING_TEST = """
import time
from pathlib import Path

def test_it(SERVERS):
    Path("started").touch()
    time.sleep(100)
"""
TOOL_TEST = """
from tailrace_testing import require_tool

def test_it():
    require_tool("no-such-program")
"""


class Engine(BaseHTTPRequestHandler):
    """A Docker engine that answers, has no images and cannot pull any."""

    def do_GET(self) -> None:
        """Tells its version; knows no image."""
        found = self.path.endswith("/version")
        self.answer(200 if found else 404, {"ApiVersion": "1.44"} if found else {"message": "No such image"})

    def do_POST(self) -> None:
        """Refuses to pull."""
        self.answer(500, {"message": "registry unreachable"})

    def answer(self, status: int, content: Mapping[str, str]) -> None:
        """Sends JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def engine() -> Iterator[str]:
    """The address of that engine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without the settings that choose servers, and with these."""
    chosen = (
        "TAILRACE_TEST_KAFKA_BOOTSTRAP",
        "TAILRACE_TEST_DATABASE_URL",
        "TAILRACE_TEST_CONTAINERS",
        "DOCKER_HOST",
        "CI",
    )
    settings |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # only the plugin under test: others take seconds to load
    return {key: value for key, value in os.environ.items() if key not in chosen} | settings


def command(folder: Path, code: str) -> list[str]:
    """The command line of a test run over one test file."""
    (folder / "test_one.py").write_text(textwrap.dedent(code))
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-p",
        "tailrace_testing.plugin",
        "-p",
        "no:cacheprovider",
        str(folder / "test_one.py"),
    ]


def run(folder: Path, code: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A finished test run."""
    return subprocess.run(
        command(folder, code), env=environment(**settings), cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_header_says_where_the_servers_come_from(tmp_path: Path) -> None:
    """A developer would not know on which broker the tests have just failed."""
    settings = {"TAILRACE_TEST_CONTAINERS": "0", "TAILRACE_TEST_KAFKA_BOOTSTRAP": "broker:9092"}
    done = run(tmp_path, "def test_it(kafka): assert kafka.bootstrap == 'broker:9092'", **settings)
    assert done.returncode == 0, done.stdout
    assert (
        "tailrace: Kafka from TAILRACE_TEST_KAFKA_BOOTSTRAP, PostgreSQL embedded (TAILRACE_TEST_CONTAINERS=0)"
        in done.stdout
    )


def test_without_an_engine_the_embedded_server_is_used(tmp_path: Path) -> None:
    """On a machine without Docker no integration test would run."""
    done = run(tmp_path, SQL_TEST, DOCKER_HOST=f"tcp://127.0.0.1:{free_port()}")
    assert done.returncode == 0, done.stdout
    assert "PostgreSQL embedded (no Docker engine answers)" in done.stdout


def test_an_engine_without_images_is_said_and_does_not_stop_the_tests(tmp_path: Path, engine: str) -> None:
    """Behind a firewall, where no image can be pulled, no integration test would run."""
    done = run(tmp_path, SQL_TEST, DOCKER_HOST=engine)
    assert done.returncode == 0, done.stdout
    assert "PostgreSQL in a container" in done.stdout
    assert "the image postgres:18 cannot be had" in done.stdout
    assert "the embedded server is used instead" in done.stdout


def test_a_missing_tool_is_skipped_at_home_and_fails_in_ci(tmp_path: Path) -> None:
    """CI would be green although a check never ran."""
    assert "1 skipped" in run(tmp_path, TOOL_TEST).stdout
    done = run(tmp_path, TOOL_TEST, CI="true")
    assert done.returncode == 1
    assert "the program no-such-program is missing; in CI every test must run" in done.stdout


@pytest.mark.parametrize(
    ("end", "servers"),
    [(signal.SIGINT, "postgres"), (signal.SIGTERM, "postgres"), (signal.SIGKILL, "kafka, postgres")],
)
def test_a_test_run_that_is_ended_leaves_nothing_running(tmp_path: Path, end: signal.Signals, servers: str) -> None:
    """Every interrupted test run would leave a JVM and a database on the developer's machine."""
    settings = environment(TAILRACE_TEST_CONTAINERS="0")
    run_ = subprocess.Popen(
        command(tmp_path, WAITING_TEST.replace("SERVERS", servers)),
        env=settings,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert wait_until(lambda: (tmp_path / "started").exists() or run_.poll() is not None, 60.0)
        family = [ProcessId.of(child.pid) for child in psutil.Process(run_.pid).children(recursive=True)]
        assert len(family) > 3
    finally:
        run_.send_signal(end)
        run_.wait(30)
    assert wait_until(lambda: not any(member and member.alive() for member in family), 20.0)
