"""What commands print: a table for people, or the same rows as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Rows = Sequence[dict[str, Any]]

out = Console()
err = Console(stderr=True)
_WIDE = 10_000


def say(sentence: str) -> None:
    """Print one sentence as it is."""
    out.print(sentence, markup=False, highlight=False, soft_wrap=True)


def complain(what: str, sentence: str) -> None:
    """Print one sentence to standard error, as it is, after a word that says what it is."""
    err.print(f"[red]{what}[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def near(path: Path | str) -> str:
    """A path as a person in the current folder would write it."""
    there, here = Path(path).absolute(), Path.cwd()
    return str(there.relative_to(here) if there.is_relative_to(here) else there)


def show(rows: Rows, *, as_json: bool, empty: str, columns: Sequence[str] = ()) -> None:
    """Print rows as a table, or with `as_json` as a JSON array. `empty` is what a person reads when there are none.

    A table that goes into a file or a pipe keeps each row on one line.
    """
    if as_json:
        out.print_json(json.dumps(list(rows), default=str))
        return
    if not rows:
        say(empty)
        return
    names = list(columns or rows[0])
    table = Table(box=None, pad_edge=False)
    for column in names:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(column) is None else escape(str(row[column])) for column in names))
    if out.is_terminal:
        out.print(table)
    else:
        Console(file=out.file, width=_WIDE).print(table)
