"""Records as a Parquet file: their offsets, broker times, keys and values, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace_runtime.records import Record


def to_parquet(records: Sequence[Record]) -> bytes:
    """One file, compressed. pyarrow is imported when the first file is written: it takes 60 MB."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "offset": pa.array([record.offset for record in records], pa.int64()),
            "timestamp_ms": pa.array([record.timestamp_ms for record in records], pa.int64()),
            "key": pa.array([record.key for record in records], pa.binary()),
            "value": pa.array([record.value for record in records], pa.binary()),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
