"""The live view of a demo: the loop on one screen, or, where no terminal is attached, a line every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tailrace_cli.demo.story import Story
from tailrace_cli.demo.watcher import Flow, Watcher

REFRESH_SECONDS = 0.5
LINE_SECONDS = 5.0
EVENTS_SHOWN = 6


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def screen(watcher: Watcher, progress: str) -> RenderableType:
    """The whole loop as it stands now."""
    side_by_side = Table.grid(expand=True, padding=(0, 1))
    side_by_side.add_column(ratio=1)
    side_by_side.add_column(ratio=1)
    side_by_side.add_row(_flows(watcher.flows), _arms(watcher.story))
    return Group(Text(progress, style="bold"), side_by_side, _events(watcher.story))


def _flows(flows: dict[str, Flow]) -> Panel:
    table = Table(expand=True, box=None)
    table.add_column("role")
    table.add_column("records/s", justify="right")
    table.add_column("lag", justify="right")
    for group, flow in sorted(flows.items()):
        table.add_row(group, f"{flow.rate:,.0f}", f"{flow.lag:,}")
    return Panel(table, title="services")


def _arms(story: Story) -> Panel:
    table = Table(expand=True, box=None)
    for name in ("version", "learner", "role"):
        table.add_column(name)
    table.add_column("accuracy", justify="right")
    table.add_column("answers", justify="right")
    for number, version in sorted(story.versions.items()):
        score = story.scores.get(number)
        name = f"{number}.{version.revision}" if version.continual else str(number)
        accuracy, answers = (percent(score.accuracy), f"{score.total:,}") if score else ("-", "-")
        table.add_row(name, version.learner, _role(story, number), accuracy, answers, style=_style(version.stage))
    return Panel(table, title=f"arms of {story.model}: served {percent(story.served.accuracy)}")


def _role(story: Story, number: int) -> str:
    canary = story.deployment.canary if story.deployment else None
    if canary and canary.version == number:
        return f"canary {canary.percent} %"
    return story.versions[number].stage


def _style(stage: str) -> str:
    return {
        "champion": "bold green",
        "canary": "yellow",
        "rejected": "dim",
        "retired": "dim",
        "rolled-back": "red",
    }.get(stage, "")


def _events(story: Story) -> Panel:
    trainings = [
        f"[cyan]training[/] {each.run_id}: {each.stage}" + (f" {each.epoch}/{each.epochs}" if each.epochs else "")
        for each in list(story.trainings.values())[-2:]
    ]
    alerts = [f"[red]alert[/] {each.kind}: {escape(each.message)}" for each in list(story.alerts.values())[-3:]]
    changes = [f"[green]rollout[/] {escape(each.reason)}" for each in story.deployments[-3:]]
    lines = (alerts + trainings + changes)[-EVENTS_SHOWN - 2 :]
    return Panel("\n".join(lines) or "nothing yet", title="what happens")


def line(watcher: Watcher, progress: str) -> str:
    """The loop in one line, for logs."""
    story = watcher.story
    champion = story.deployment.champion if story.deployment else None
    behind = sum(flow.lag for flow in watcher.flows.values())
    return (
        f"{progress}; joined {len(story.joined):,}; champion {champion or '-'}; served {percent(story.served.accuracy)}; "
        f"alerts {len(story.alerts)}; trainings {len(story.trainings)}; lag {behind:,}"
    )


@contextlib.asynccontextmanager
async def shown(console: Console, watcher: Watcher, progress: Callable[[], str]) -> AsyncIterator[None]:
    """Show the loop until the block ends."""
    show = _live if console.is_terminal else _lines
    task = asyncio.create_task(show(console, watcher, progress))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(console: Console, watcher: Watcher, progress: Callable[[], str]) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(screen(watcher, progress()), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


async def _lines(console: Console, watcher: Watcher, progress: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        console.print(line(watcher, progress()), highlight=False)
