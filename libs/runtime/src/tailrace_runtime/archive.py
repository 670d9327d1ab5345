"""The archive's files: where a run of offsets lies in the object store, and how its records stand in Parquet.

One file holds every record of one log from its first offset through its last, in order:
`archive/<topic>/<partition>/<first>-<last>.parquet`, both offsets in 20 digits. Offset, broker time, key, value and headers
are kept byte for byte; `model` and `time` repeat what the value says, so that a query can skip what it does not want.
Row groups are small enough to be held in memory, and their statistics tell which of them a range needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from tailrace_contracts.ranges import Log, LogRange
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record

ROW_GROUP_BYTES = 8 * 1024 * 1024
"""Uncompressed, about: what a reader holds of a file at a time."""

BATCH_RECORDS = 2000
_KEPT = ["offset", "timestamp", "key", "value", "headers"]
_FILE = re.compile(r"archive/(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<first>\d{20})-(?P<last>\d{20})\.parquet")


def archive_key(run: LogRange) -> str:
    """Where the archive keeps this run of offsets."""
    return f"{archive_folder(run.log)}/{run.from_offset:020d}-{run.through_offset:020d}.parquet"


def archive_folder(log: Log) -> str:
    """The folder of one log."""
    return f"archive/{log.topic}/{log.partition}"


def archived_run(key: str) -> LogRange | None:
    """The run of offsets that an archive file holds; None for another key.

    >>> run = LogRange(topic="labels", partition=1, from_offset=5, through_offset=9)
    >>> archived_run(archive_key(run)) == run
    True
    """
    match = _FILE.fullmatch(key)
    if match is None:
        return None
    return LogRange(
        topic=match["topic"],
        partition=int(match["partition"]),
        from_offset=int(match["first"]),
        through_offset=int(match["last"]),
    )


def schema() -> Any:
    """The columns. pyarrow is imported by those who write or read a file only: it takes 60 MB."""
    import pyarrow as pa

    header = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary())])
    return pa.schema(
        [
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
            pa.field("key", pa.binary()),
            pa.field("value", pa.binary()),
            pa.field("headers", pa.list_(header)),
            pa.field("model", pa.string()),
            pa.field("time", pa.timestamp("us", tz="UTC")),
        ]
    )


class _Known(msgspec.Struct):
    """What is repeated of a value."""

    model: str | None = None
    time: datetime | None = None


_known = msgspec.json.Decoder(_Known).decode


def _repeated(value: bytes | None) -> _Known:
    """The value's model and time; nothing of a value that is no event, or whose time has no offset."""
    try:
        known = _known(value or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Known()
    return _Known(known.model) if known.time is None or known.time.tzinfo is None else known


def to_table(records: Sequence[Record]) -> Any:
    """The records as an Arrow table of this schema."""
    import pyarrow as pa

    repeated = [_repeated(record.value) for record in records]
    columns = (
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [[{"name": name, "value": value} for name, value in record.headers] for record in records],
        [each.model for each in repeated],
        [each.time for each in repeated],
    )
    layout = schema()
    return pa.table([pa.array(found, each.type) for found, each in zip(columns, layout, strict=True)], schema=layout)


def write_table(writer: Any, table: Any, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
    """Append a table in row groups of the right size."""
    rows = max(1, min(table.num_rows, table.num_rows * row_group_bytes // max(table.nbytes, 1)))
    writer.write_table(table, row_group_size=rows)


def to_parquet(records: Sequence[Record], row_group_bytes: int = ROW_GROUP_BYTES) -> bytes:
    """One file, compressed."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    with parquet.ParquetWriter(sink, schema(), compression="zstd") as writer:
        write_table(writer, to_table(records), row_group_bytes)
    return bytes(sink.getvalue())


class ArchiveFile:
    """One file, opened: its records within a range are read, and no row groups but theirs. It blocks.

    Raises `RangeUnavailable` for a file that is damaged, and `ObjectMissing` for one that has been merged away.
    """

    def __init__(self, objects: ObjectStore, run: LogRange) -> None:
        from pyarrow import parquet

        self._run = run
        source = objects.open(archive_key(run))
        with self._readable():
            self._file = parquet.ParquetFile(source)

    def batches(self, wanted: LogRange) -> Iterator[list[Record]]:
        """The records of the range that lie in this file, a few thousand at a time."""
        groups = [group for group in range(self._file.metadata.num_row_groups) if self._touches(group, wanted)]
        with self._readable():
            for batch in self._file.iter_batches(BATCH_RECORDS, row_groups=groups, columns=_KEPT):
                yield [record for record in _records(self._run.log, batch) if record.offset in wanted]

    def tables(self) -> Iterator[Any]:
        """Everything as Arrow tables, one row group at a time."""
        with self._readable():
            for group in range(self._file.metadata.num_row_groups):
                yield self._file.read_row_group(group)

    def _touches(self, group: int, wanted: LogRange) -> bool:
        found = self._file.metadata.row_group(group).column(0).statistics
        return found is None or not (found.max < wanted.from_offset or found.min > wanted.through_offset)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, KeyError) as error:
            raise RangeUnavailable(f"the archive's file {archive_key(self._run)} cannot be read: {error}") from error


def _records(log: Log, batch: Any) -> Iterator[Record]:
    import pyarrow as pa

    offsets = batch.column("offset").to_pylist()
    moments = batch.column("timestamp").cast(pa.int64()).to_pylist()
    keys, values = batch.column("key").to_pylist(), batch.column("value").to_pylist()
    for row, headers in zip(zip(offsets, moments, keys, values, strict=True), _headers(batch), strict=True):
        yield Record(*log, *row, headers)


def _headers(batch: Any) -> Iterator[tuple[tuple[str, bytes], ...]]:
    for found in batch.column("headers").to_pylist():
        yield tuple((each["name"], each["value"]) for each in found or ())
