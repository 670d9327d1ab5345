"""The trainer: a process of its own that trains one network after another, apart from the service's event loop.

Run as `python -m tailrace_training.adapters.trainer`. Each line on standard input names the folder of a job; lines of JSON on
standard output say how far it is (`domain/jobs.py` has both formats). It ends when its input ends: when the service
closes it, or dies by whatever death, so that no training is left behind. Everything else that is printed goes to
standard error.

A job trains twice: without the newest examples, to measure on them; then on all of them, for the version itself. A
checkpoint is written between epochs, in one rename, so that there is always a whole one.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tailrace_training.domain.jobs import JOB, Job, Said, Say


def main() -> None:
    """Serve jobs until standard input ends."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    folders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, folders), daemon=True).start()
    from tailrace_training.adapters.torch_trainer import train

    while True:
        _work(Path(folders.get()), lines, train)


def _listen(stdin: TextIO, folders: queue.SimpleQueue[str]) -> None:
    """Take folders from the input; its end is the end of the process, whatever it is doing."""
    for line in stdin:
        folders.put(line.strip())
    os._exit(0)


def _work(folder: Path, lines: TextIO, train: Callable[[Job, Path, Say], None]) -> None:
    def say(said: Said) -> None:
        lines.write(said.model_dump_json() + "\n")
        lines.flush()

    job = Job.model_validate_json((folder / JOB).read_bytes())
    train(job, folder, say)


if __name__ == "__main__":
    main()
