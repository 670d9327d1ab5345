"""What commands print: a table for people, or the same rows as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Rows = Sequence[dict[str, Any]]

out = Console()
err = Console(stderr=True)


def show(rows: Rows, *, as_json: bool, empty: str, columns: Sequence[str] = ()) -> None:
    """Print rows as a table, or with `as_json` as a JSON array. `empty` is what a person reads when there are none."""
    if as_json:
        out.print_json(json.dumps(list(rows), default=str))
        return
    if not rows:
        out.print(empty)
        return
    names = list(columns or rows[0])
    table = Table(box=None, pad_edge=False)
    for column in names:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(column) is None else str(row[column]) for column in names))
    out.print(table)
