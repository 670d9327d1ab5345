"""uvicorn beside granian around the same empty application: what the HTTP server alone costs.

    uv run python -m tests.benchmarks.serving_servers [--seconds 6] [--rounds 3]

One process each, held to the machine's first core, `wrk` with 16 connections. Granian runs embedded in an event loop, as
the service host would run it, in an environment of its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import uvloop

from tailrace_local import free_port
from tests.benchmarks.serving_peers import TENSORS, answers, isolated, process, wrk

APPLICATION = """
import sys

BODY = b'{"model_name":"rain","model_version":"1","parameters":{"arm":"champion","version":1},"outputs":[]}' + b" " * 250
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]

async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})

server, port = sys.argv[1], int(sys.argv[2])
if server == "uvicorn":
    import uvicorn
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False,
                lifespan="off", ws="none", loop="uvloop")
else:
    import uvloop
    from granian.server.embed import Server
    uvloop.run(Server(app, address="127.0.0.1", port=port, interface="asginl", log_enabled=False).serve())
"""


async def measured(arguments: argparse.Namespace) -> None:
    """Each server in turn."""
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    environment = isolated("uvicorn[standard]", "granian", "uvloop")
    for number in range(1, arguments.rounds + 1):
        for name in ("uvicorn", "granian"):
            with tempfile.TemporaryDirectory() as folder:
                port = free_port()
                command = [*environment, "python", "-c", APPLICATION, name, str(port)]
                async with process(Path(folder), *command) as pid:
                    url = f"http://127.0.0.1:{port}/"
                    await answers(url, TENSORS)
                    await wrk("warm", url, TENSORS, pid, 1)
                    made = await wrk(name, url, TENSORS, pid, arguments.seconds)
            print(
                f"round {number} {name:8s} {made.requests_per_second:7.0f} requests/s, p50 {made.p50_ms:.2f} ms,"
                f" {1e6 / made.per_cpu_second:.0f} µs of CPU for a request, {made.errors} errors",
                flush=True,
            )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    uvloop.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
