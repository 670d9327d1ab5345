"""Small files of the archive become one larger file: row group by row group, on the disk, off the event loop.

The larger file is in the object store before its parts are removed, so that at every moment each record lies in some
file. A process that is killed in between leaves files that overlap; readers prefer the larger, the next look removes
the parts, and merging the same parts again writes the same file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tailrace_contracts.ranges import LogRange
from tailrace_runtime.archive import ROW_GROUP_BYTES, ArchiveFile, archive_key, schema, write_table
from tailrace_runtime.objects import ObjectStore


async def merge(objects: ObjectStore, parts: Sequence[LogRange]) -> LogRange:
    """Write one file with all records of these parts, which touch or overlap and come in the order of their offsets.

    Raises:
        ObjectMissing: a part is gone; somebody else has merged it.
        RangeUnavailable: a part is damaged.
    """
    whole = parts[0].model_copy(update={"through_offset": max(part.through_offset for part in parts)})
    with tempfile.TemporaryDirectory(prefix="tailrace-archive-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "merged.parquet"
        await asyncio.to_thread(_write, path, objects, parts)
        await objects.put_file(archive_key(whole), path)
    return whole


def _write(path: Path, objects: ObjectStore, parts: Sequence[LogRange]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetWriter(path, schema(), compression="zstd") as writer:
        waiting: list[Any] = []
        for table in _records(objects, parts):
            waiting.append(table)
            if sum(each.nbytes for each in waiting) >= ROW_GROUP_BYTES:
                write_table(writer, pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            write_table(writer, pa.concat_tables(waiting).combine_chunks())


def _records(objects: ObjectStore, parts: Sequence[LogRange]) -> Iterator[Any]:
    """All parts' tables, each offset once."""
    import pyarrow.compute as pc

    through = -1
    for part in parts:
        for table in ArchiveFile(objects, part).tables():
            new = table if through < 0 else table.filter(pc.greater(table["offset"], through))
            if new.num_rows:
                through = new["offset"][-1].as_py()
                yield new
