"""Progress for people: whoever does something slow calls `(text, fraction)`, whoever shows it decides how."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

Report = Callable[[str, float | None], None]
"""Called with what is being done and how far it is, from 0 to 1, or None where nobody can tell."""


def silent(_text: str, _fraction: float | None) -> None:
    """Shows nothing."""


@contextmanager
def shown(console: "Console | None" = None) -> Iterator[Report]:
    """A progress display on the terminal (standard error by default): one line for each text, gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console or Console(stderr=True),
        transient=True,
    ) as display:
        tasks: dict[str, TaskID] = {}
        lock = threading.Lock()

        def report(text: str, fraction: float | None) -> None:
            with lock:
                if text not in tasks:
                    tasks[text] = display.add_task(text, total=None)
            display.update(tasks[text], total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield report
