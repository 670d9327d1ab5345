"""The trainer as a process of its own, so that the service never holds torch's memory or its arithmetic.

It is started when a request comes, while the examples are being read (importing torch takes seconds), trains one job
at a time, and is ended when it has had nothing to do for a while. It ends by itself when the service dies, because
its standard input does. Whoever stops listening in the middle of a job ends it: what it did is in the checkpoint.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from urllib.parse import quote

from safetensors.numpy import save_file

from tailrace_training.domain.jobs import CHECKPOINT, EXAMPLES, JOB, ONNX_FILE, WEIGHTS_FILE, Job, Said
from tailrace_training.errors import TrainerDied
from tailrace_training.ports import Labels, Matrix, RunFiles

_COMMAND = (sys.executable, "-m", "tailrace_training.adapters.trainer")
_LINE_BYTES = 1 << 20


class TrainerProcess:
    """Starts, feeds and ends the trainer. One job at a time."""

    def __init__(self, folder: Path, idle_seconds: float = 30.0) -> None:
        self._folder = folder.absolute()
        self._idle_seconds = idle_seconds
        self._process: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Make room for jobs. The process itself is started when it is needed."""
        self._folder.mkdir(parents=True, exist_ok=True)

    async def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._not_idle()
        started, self._process = self._process, None
        if started is not None:
            process = await started
            if process.returncode is None:
                process.kill()
            await process.wait()

    def warm_up(self) -> None:
        """Start the process, unless it runs; it imports torch meanwhile."""
        self._not_idle()
        if self._process is None or _ended(self._process):
            self._process = asyncio.create_task(_started())
        self._when_idle()

    async def train(self, job: Job, features: Matrix, labels: Labels, files: RunFiles) -> AsyncGenerator[Said]:
        """Train; yields what the trainer says until it has `finished` or `failed`. Raises TrainerDied.

        Checkpoints are copied to `files`, so that another machine can go on.
        """
        self.warm_up()
        self._not_idle()
        folder = self._of(job.run_id)
        kept = await files.read(job.run_id, CHECKPOINT)
        await asyncio.to_thread(lay_out, job, features, labels, folder, kept)
        assert self._process is not None  # noqa: S101  # warm_up made it
        process = await self._process
        over = False
        try:
            async for said in _dialogue(process, folder):
                if said.checkpoint:
                    await files.write(job.run_id, CHECKPOINT, (folder / CHECKPOINT).read_bytes())
                over = said.stage in {"finished", "failed"}
                yield said
        finally:
            if not over:
                await self.stop()
            self._when_idle()

    async def forget(self, run_id: str) -> None:
        """Throw the job's files away."""
        await asyncio.to_thread(shutil.rmtree, self._of(run_id), ignore_errors=True)

    async def result(self, run_id: str) -> tuple[bytes, bytes]:
        """The finished job's ONNX graph and safetensors."""
        folder = self._of(run_id)
        return (folder / ONNX_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes()

    def _of(self, run_id: str) -> Path:
        return self._folder / quote(run_id, safe="").replace(".", "%2E")

    def _not_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _when_idle(self) -> None:
        self._not_idle()
        self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._let_go)

    def _let_go(self) -> None:
        """Close the trainer's input: it ends by itself."""
        if self._process is not None and not self._process.done():
            self._when_idle()
            return
        started, self._process = self._process, None
        if started is not None and started.exception() is None and (stdin := started.result().stdin) is not None:
            stdin.close()


def lay_out(job: Job, features: Matrix, labels: Labels, folder: Path, checkpoint: bytes | None = None) -> None:
    """The job's files. A checkpoint that lies there from before is at least as new as the one that was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"features": features, "labels": labels}, folder / EXAMPLES)
    (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    if checkpoint is not None and not (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).write_bytes(checkpoint)


async def _started() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
    )


def _ended(started: asyncio.Task[asyncio.subprocess.Process]) -> bool:
    return started.done() and (started.exception() is not None or started.result().returncode is not None)


async def _dialogue(process: asyncio.subprocess.Process, folder: Path) -> AsyncIterator[Said]:
    if process.stdin is None or process.stdout is None:
        raise TrainerDied("the trainer has no pipes")
    try:
        process.stdin.write(f"{folder}\n".encode())
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has died: the end of its output says so below
    while line := await process.stdout.readline():
        said = Said.model_validate_json(line)
        yield said
        if said.stage in {"finished", "failed"}:
            return
    raise TrainerDied(f"the trainer ended with exit code {await process.wait()} while it trained")
