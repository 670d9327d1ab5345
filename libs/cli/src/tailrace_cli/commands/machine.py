"""What runs on this machine, and what runs elsewhere and is prepared from here: up, down, status, setup."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tailrace_cli import stack
from tailrace_cli.commands.options import AsJson
from tailrace_cli.connection import CommandError, connect
from tailrace_cli.output import near, say, show
from tailrace_local import Home, shown
from tailrace_runtime.settings import KafkaSettings


def up(
    port: Annotated[
        int | None,
        typer.Option(min=1024, max=65000, help="Services listen on PORT+1 to PORT+5 (default 8100, or free ports)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start Kafka, PostgreSQL and the five services on this machine; they go on until `tailrace down`."""
    home = Home.chosen()
    if not stack.is_up(home):
        with shown() as report:
            stack.bring_up(home, detached=True, report=report, base_port=port)
    elif not as_json:
        say(f"already up in {home.folder}")
    _status(home, as_json=as_json)
    if not as_json:
        say(f"the console is at {connect(home).monitoring_url}")


def down() -> None:
    """Stop everything that `tailrace up` started here. Data stay in the home."""
    stopped = stack.take_down(Home.chosen())
    say(f"stopped {', '.join(stopped)}")


def status(as_json: AsJson = False) -> None:
    """Show what runs here, where it listens, and where its log is."""
    _status(Home.chosen(), as_json=as_json)


def _status(home: Home, *, as_json: bool) -> None:
    rows = [
        {
            "name": entry.name,
            "pid": entry.pid if entry.alive() else None,
            "state": "running" if entry.alive() else "ended",
            "address": f"127.0.0.1:{entry.port}",
            "log": near(entry.log),
        }
        for entry in home.noted()
    ]
    show(rows, as_json=as_json, empty=f"nothing runs in {home.folder}; start it with `tailrace up`")
    if any(row["state"] == "ended" for row in rows):
        msg = "some processes have ended; look at their logs, then run `tailrace up` again"
        raise CommandError(msg)


def setup(
    secrets: Annotated[Path, typer.Option(help="Where the services' secrets are written, one subfolder for each.")],
    admin_database_url: Annotated[str, typer.Option(envvar="TAILRACE_ADMIN_DATABASE_URL", help="A superuser's URL.")],
) -> None:
    """Prepare a broker and a database that run elsewhere; TAILRACE_KAFKA_BOOTSTRAP names the broker."""
    from tailrace_cli.setup import prepare

    for line in asyncio.run(prepare(KafkaSettings(), admin_database_url, secrets)):
        say(line)
