"""A monitoring process that kills itself once, at the moment between the effect of a batch and the commit of its offset.

Run by test_monitoring_service.py: `python dying_worker.py MARK`. The file MARK is made just before, so that the next
process lives on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tailrace_monitoring import app
from tailrace_monitoring.consumers import WatchRole
from tailrace_monitoring.main import TOPICS_IN, TOPICS_OUT
from tailrace_runtime.consumer import Outcome
from tailrace_runtime.records import Record
from tailrace_runtime.service import main

LAST_OFFSET = 150


async def examples_then_die(watch: WatchRole, records: Sequence[Record]) -> Outcome:
    """Handle the batch whole; on the one that passes LAST_OFFSET, never come back."""
    outcome = await WatchRole.examples(watch, records)
    if records[-1].offset >= LAST_OFFSET:
        die_once()
    return outcome


def die_once() -> None:
    """Make the mark and go, without a goodbye; where the mark is, live on."""
    mark = Path(sys.argv[1])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(lambda: app.create_service({**TOPICS_IN, "labelled-examples": examples_then_die}, TOPICS_OUT))
