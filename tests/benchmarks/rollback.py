"""How soon the champion before answers again, after a new one turns out to fail, be slow, unfair or wrong.

    uv run python -m tests.benchmarks.rollback --times 3

A whole Tailrace is brought up; for each trigger a version is imported, promoted by a person, and asked about 50 to 100 times
a second by one caller, who labels every answer at once. The figure is the time from the first request that the bad
version answers badly (and its label) to the first answer by the version before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from tailrace_cli import stack
from tailrace_local import Home, silent
from tests.e2e.conftest import Running
from tests.e2e.rollbacks import TRIGGERS, rolled_back


async def measured(tailrace: Running, folder: Path, times: int) -> None:
    """Print a line for each trigger."""
    print(f"load average {os.getloadavg()[0]:.1f}")
    for trigger in TRIGGERS:
        found = []
        for number in range(times):
            place = folder / f"{trigger}-{number}"
            place.mkdir()
            found.append(await rolled_back(tailrace, place, trigger, f"-{number}"))
        seconds = sorted(each.seconds for each in found)
        requests = sorted(each.requests for each in found)
        print(
            f"{trigger:9} {times} times: {seconds[0]:.1f} to {seconds[-1]:.1f} s, "
            f"{requests[0]} to {requests[-1]} requests; load average {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main() -> None:
    """Bring a Tailrace up, measure, take it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        with stack.bring_up(home, detached=False, report=silent):
            asyncio.run(measured(Running(home), Path(folder), times))


if __name__ == "__main__":
    main()
