"""The `tailrace` command: which commands there are. What each does stands in `commands`, by theme.

Exit status: 0 done; 1 it could not be done, with one sentence on standard error; 2 the command line is wrong.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog
import typer

from tailrace_cli.commands import (
    alerts,
    audit,
    dead_letters,
    demo,
    events,
    inference,
    lineage,
    machine,
    models,
    rollout,
)
from tailrace_cli.connection import CommandError
from tailrace_cli.output import complain
from tailrace_client import PublishError
from tailrace_contracts import SpecError
from tailrace_local import LocalError

Commands = Mapping[str, Callable[..., Any]]

COMMANDS: Commands = {
    "up": machine.up,
    "down": machine.down,
    "status": machine.status,
    "setup": machine.setup,
    "apply": models.apply,
    "import": models.import_model,
    "models": models.models,
    "promote": rollout.promote,
    "reject": rollout.reject,
    "rollback": rollout.rollback,
    "alias": rollout.alias,
    "unalias": rollout.unalias,
    "lineage": lineage.lineage,
    "pause": rollout.pause,
    "resume": rollout.resume,
    "train": rollout.train,
    "alerts": alerts.list_alerts,
    "mute": alerts.mute_alerts,
    "unmute": alerts.unmute_alerts,
    "mutes": alerts.list_mutes,
    "infer": inference.infer,
    "send": events.send,
    "coverage": events.coverage,
    "explanation": events.explanation,
}
"""In the order of `tailrace --help`."""

DEMOS: Commands = {"weather": demo.weather, "employment": demo.employment}
DEAD_LETTERS: Commands = {
    "list": dead_letters.list_letters,
    "show": dead_letters.show_letter,
    "replay": dead_letters.replay,
}
AUDIT: Commands = {"list": audit.list_entries, "verify": audit.verify, "export": audit.export}


def main() -> None:
    """Run the command line; a mistake of the user's or the machine's becomes one sentence."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it would say first what the sentence says
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports home by default; services inherit this
    try:
        assembled()()
    except (CommandError, SpecError, PublishError, LocalError) as error:
        complain("error:", str(error))
        sys.exit(1)


def assembled() -> typer.Typer:
    """The command line with all commands and groups."""
    app = _group(
        COMMANDS,
        """Keeps machine-learning models true while the stream changes under them.

Start with `tailrace demo weather`: it brings up everything on this machine and plays a real stream through the loop.
Then `tailrace up`, `tailrace apply SPEC.yaml`, and send events with `tailrace send` or over HTTP.""",
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    demos = _group(DEMOS, "Play a real stream through the whole loop, watch it, and get a report.")
    app.add_typer(demos, name="demo")
    app.add_typer(_group(DEAD_LETTERS, "What could not be handled: list, show, replay."), name="dead-letters")
    app.add_typer(_group(AUDIT, "What was asked, decided and refused: list, verify, export."), name="audit")
    return app


def _group(commands: Commands, purpose: str, **settings: Any) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=purpose, **settings)
    for name, command in commands.items():
        group.command(name)(command)
    return group
