"""A demo as a command: bring up what is not up, play, print and write the report, and stop what was brought up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from tailrace_cli import stack
from tailrace_cli.connection import CommandError, Connection, connect
from tailrace_cli.demo import run
from tailrace_cli.demo.report import Report
from tailrace_cli.demo.view import percent
from tailrace_cli.output import err, out
from tailrace_local import Home, shown
from tailrace_statistics.fairness import CROSS

INTERRUPTED = 130


def weather(*, rate: float | None, limit: int | None, report_file: Path | None) -> int:
    """Play the weather; returns the exit status."""
    home = Home.chosen()

    def play(to: Connection) -> Coroutine[Any, Any, Report]:
        key = home.signing_key().encode()
        return run.weather(to, out, rate=rate, limit=limit, signing_key=key, objects=home.objects.as_uri())

    return _demo(home, play, report_file)


def employment(*, limit: int | None, report_file: Path | None) -> int:
    """Play the survey; returns the exit status."""
    return _demo(Home.chosen(), lambda to: run.employment(to, out, limit=limit), report_file)


def _demo(home: Home, play: Callable[[Connection], Coroutine[Any, Any, Report]], report_file: Path | None) -> int:
    if report_file is not None and not report_file.resolve().parent.is_dir():
        msg = f"{report_file}: its folder does not exist; make it, or name another file"
        raise CommandError(msg)
    try:
        with _interruptible(), _up(home):
            report = asyncio.run(play(connect(home)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped")
        return INTERRUPTED
    except ExceptionGroup as group:
        raise _first(group) from None
    if report_file is not None:
        report_file.write_text(report.model_dump_json(indent=2) + "\n")
    _print(report)
    return 1 if report.problems else 0


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The one failure that ended a group of tasks."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a demo as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _up(home: Home) -> Iterator[None]:
    """A running Tailrace: the one that is up, or one for the length of the demo."""
    if stack.is_up(home):
        yield
        return
    with shown() as progress:
        supervisor = stack.bring_up(home, detached=False, report=progress)
    try:
        yield
    finally:
        supervisor.stop()


def _print(report: Report) -> None:
    out.rule(f"{report.demo}: {report.seconds:.0f} s, {report.events_per_second:,.0f} events/s while playing")
    events, labels = report.events, report.labels
    out.print(
        f"events    {events.published:,} published = {events.valid:,} valid + {events.dead_lettered:,} dead-lettered"
    )
    out.print(
        f"labels    {labels.published:,} published, {labels.joined:,} joined; {report.examples_learned:,} learned online"
    )
    out.print(f"windows   {report.windows:,} summarised; out of limits: {report.out_of_limits or 'none'}")
    _print_versions(report)
    for alert in report.alerts:
        out.print(
            f"alert     {alert.kind}: {alert.message}" + (f" -> {alert.led_to}" if alert.led_to else ""),
            highlight=False,
            markup=False,
        )
    for what, changes in (("promotion", report.promotions), ("rollback ", report.rollbacks)):
        for each in changes:
            change = f"version {each.from_version} -> {each.to_version}"
            out.print(f"{what} {change}: {'; '.join(each.evidence)}", highlight=False, markup=False)
    _print_groups(report)
    accuracy = report.accuracy
    out.print(
        f"accuracy  served {percent(accuracy.served)}"
        + (f", first version {percent(accuracy.first_version)}" if accuracy.first_version is not None else "")
        + (f", river alone {percent(accuracy.river_alone)}" if accuracy.river_alone is not None else "")
    )
    for problem in report.problems:
        err.print(f"problem   {problem}", style="red", highlight=False, markup=False, soft_wrap=True)


def _print_versions(report: Report) -> None:
    if not report.versions:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("version", "learner", "role", "accuracy", "answers", "trained on"):
        table.add_column(column)
    for each in report.versions:
        table.add_row(
            str(each.version),
            each.learner,
            each.role,
            percent(each.accuracy),
            f"{each.answered:,}",
            str(each.trained_on),
        )
    out.print(table)


def _print_groups(report: Report) -> None:
    if not report.groups:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("group", "examples", "selected", "true positives", "false positives", "accuracy"):
        table.add_column(column)
    for each in [group for group in report.groups if CROSS not in group.attribute]:
        rates = (each.selection_rate, each.true_positive_rate, each.false_positive_rate, each.accuracy)
        table.add_row(f"{each.attribute}={each.group}", f"{each.examples:,}", *map(percent, rates))
    out.print(table)
    largest = ", ".join(f"{name} {value}" for name, value in list(report.drift.items())[:5])
    out.print(f"drift     largest distance to the reference period: {largest}")
