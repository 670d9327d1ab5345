"""The beginning of a journal for books that are older than it: all that they have, as changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

from tailrace_contracts.events import BooksWritten, Kept, ModelRow
from tailrace_registry.adapters.journal import applied
from tailrace_registry.adapters.rows import TopicsOut, published, written
from tailrace_runtime.database import Connection
from tailrace_runtime.outbox import enqueue

PIECE = 100
"""Events in one change: a record of the journal stays well under its topic's limit."""

_EVENTS = """
    (select event from specs where model = $1 order by revision)
    union all select event from versions where model = $1
    union all (select event from deployments where model = $1 order by sequence)
    union all (select event from mutes where model = $1 order by sequence)
"""


async def seed(connection: Connection, now: datetime, out: TopicsOut) -> int:
    """Put everything that the books have into the outbox as changes; gives back how many."""
    number = 0
    async for parts in _parts(connection):
        number += 1
        change = BooksWritten(number=number, applied=await applied(connection), time=now, **parts)
        await enqueue(connection, [published(written(change), out)])
    await connection.execute("update journal_head set number = $1", number)
    return number


async def _parts(connection: Connection) -> AsyncIterator[dict[str, Any]]:
    for row in await connection.fetch("select * from models order by name"):
        model = row["name"]
        misfits = await connection.fetch("select version from versions where model = $1 and not fits", model)
        own = ModelRow(spec_revision=row["spec_revision"], predecessors=tuple(row["predecessors"]))
        yield {"model": model, "row": own}
        for piece in _pieces(await connection.fetch(_EVENTS, model)):
            events = tuple(each["event"] for each in piece)
            yield {"model": model, "published": events, "misfits": tuple(each["version"] for each in misfits)}
    for row in await connection.fetch("select * from revisions order by model, run_id"):
        yield {"model": row["model"], "revision": row["event"]}
    for row in await connection.fetch("select * from evidence order by model, said_at"):
        note = Kept(kind=row["kind"], event_id=row["event_id"], event=row["event"])
        yield {"model": row["model"], "kept": (note,)}
    for piece in _pieces(await connection.fetch("select model, entry from audit order by sequence")):
        yield {"model": piece[0]["model"], "published": tuple(each["entry"] for each in piece)}


def _pieces(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), PIECE):
        yield rows[start : start + PIECE]
