"""What archiving costs: writing records as Parquet, merging small files, reading a range back.

    uv run python -m tests.benchmarks.archive --events 200000

The records are the predictions of `validate`'s benchmark (16 features, about 540 bytes), with the headers that `validate`
forwards. Files of 10,000 records are written to a folder, merged into one, and read back. The figures are records in a CPU
second of this process, bytes on disk for a record, and the peak memory of the process.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tailrace_contracts.ranges import LogRange
from tailrace_ingestion.adapters.parquet import merge
from tailrace_runtime.archive import ArchiveFile, archive_key, to_parquet
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tests.benchmarks.validate import events

FILE = 10_000
HEADERS = (("trigger-offset", b"123456"), ("ce_id", b"019ab3c4-5d6e-7f80"), ("ce_type", b"tailrace.prediction-made"))


def records(count: int) -> list[Record]:
    """Records of one log."""
    made = enumerate(events(count))
    return [Record("predictions", 0, at, 1_700_000_000_000 + at, each.key, each.value, HEADERS) for at, each in made]


def run_of(part: Sequence[Record]) -> LogRange:
    """The offsets of these."""
    return LogRange(topic="predictions", partition=0, from_offset=part[0].offset, through_offset=part[-1].offset)


async def run(count: int) -> None:
    """Measure and print."""
    everything = records(count)
    parts = [everything[first : first + FILE] for first in range(0, count, FILE)]
    with tempfile.TemporaryDirectory() as folder:
        objects = ObjectStore.from_url(Path(folder).as_uri())
        began = time.process_time()
        for part in parts:
            await objects.put(archive_key(run_of(part)), to_parquet(part))
        written = time.process_time()
        whole = await merge(objects, [run_of(part) for part in parts])
        merged = time.process_time()
        found = [record for batch in ArchiveFile(objects, whole).batches(whole) for record in batch]
        read = time.process_time()
        size = (await objects.sizes("archive/predictions/0"))[archive_key(whole)]
    if found != everything:
        raise SystemExit("what was read back is not what was written")
    print(f"write {count / (written - began):10,.0f} records a CPU second")
    print(f"merge {count / (merged - written):10,.0f}")
    print(f"read  {count / (read - merged):10,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    value = len(everything[0].value or b"")
    print(f"{size / count:.0f} bytes on disk for a value of {value}; peak memory {peak:.0f} MiB, the records included")
    print(f"load average {psutil.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    asyncio.run(run(parser.parse_args().events))
