"""The how-to of the archive does what it says, on an archive as ingestion writes it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailrace_contracts.ranges import LogRange
from tailrace_runtime.archive import archive_key, to_parquet
from tailrace_runtime.records import Record
from tests.contracts.test_docs import ROOT, blocks


def test_the_query_of_the_how_to_runs(tmp_path: Path) -> None:
    """An analyst who copies the query would get an error, or other rows than were archived."""
    (snippet,) = blocks(ROOT / "docs/how-to/archive.md", "python")
    folder = tmp_path / "objects"
    for partition in range(2):
        values = [
            b'{"model":"%s","time":"%s","label":%d}'
            % (
                b"rain" if number % 2 else b"snow",
                (datetime(2023, 12, 30, tzinfo=UTC) + timedelta(days=number)).isoformat().encode(),
                partition,
            )
            for number in range(10)
        ]
        held = LogRange(topic="labelled-examples", partition=partition, from_offset=0, through_offset=9)
        records = [Record(*held.log, at, 0, b"k", value, (("h", b"v"),)) for at, value in enumerate(values)]
        (folder / archive_key(held)).parent.mkdir(parents=True)
        (folder / archive_key(held)).write_bytes(to_parquet(records))
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("8 examples, 4 of them positive\n", "")
