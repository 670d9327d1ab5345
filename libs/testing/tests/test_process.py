"""The wrapper around a service's process, with a small server in place of a service."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace_testing import ServiceProcess, eventually

SERVER = textwrap.dedent("""
    import http.server, os, signal, sys

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"" if self.path == "/readyz" else b"# HELP\\nlives_total{a=\\"b\\"} 9.0\\n"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print("life", os.environ.get("TAILRACE_LIFE", "0"), flush=True)
    http.server.HTTPServer(("127.0.0.1", int(os.environ["TAILRACE_PORT"])), Answers).serve_forever()
""")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A process that answers as a service does; not started."""
    (tmp_path / "server.py").write_text(SERVER)
    made = ServiceProcess("server", [tmp_path / "server.py"], tmp_path / "server.log")
    yield made
    made.kill()


async def test_killed_and_started_again_under_the_same_name(process: ServiceProcess) -> None:
    """Tests that kill services would kill nothing, or ask another process than they think."""
    assert (process.ended, await process.ready()) == (None, False)
    process.start()
    await eventually(process.ready, seconds=30)
    assert await process.metric("lives_total{") == 9
    process.kill()
    process.kill()
    assert (process.ended, process.kills, await process.get("/readyz")) == (-9, 1, (0, ""))
    process.start({"TAILRACE_LIFE": "1"})
    await eventually(process.ready, seconds=30)
    assert await process.told_to_stop() == 7
    process.tend()
    await eventually(process.ready, seconds=30)
    assert (process.starts, process.gave_up) == (3, 1)
    assert process.written().splitlines() == ["life 0", "life 1", "life 0"]


async def test_frozen_and_thawed(process: ServiceProcess) -> None:
    """Tests of processes that stand still would test ones that run."""
    process.start()
    await eventually(process.ready, seconds=30)
    process.freeze()
    await eventually(lambda: process.frozen, seconds=30)
    process.thaw()
    await eventually(process.ready, seconds=30)
    assert not process.frozen
