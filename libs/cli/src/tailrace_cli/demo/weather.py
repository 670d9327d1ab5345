"""`tailrace demo weather`: fifty years of weather, played through the whole loop.

Two thousand days are history: observations and labels, from which the first version is trained. Every later day asks
the serving gateway for an inference and gives its label twenty days later. The player goes as fast as the loop does and not
faster: it keeps at most `MAX_BEHIND` labels ahead of the join, and lets at most `MAX_WHILE_TRAINING` days pass while a batch
training is under way (in life, a day lasts longer than a training). `--rate` plays at a pace instead, and waits for no
training.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.demo.datasets import Row
from tailrace_cli.demo.story import Story
from tailrace_client import AsyncPublisher
from tailrace_contracts.spec import ModelSpec

HISTORY = 2_000
LABEL_DELAY = 20
MAX_BEHIND = 400
MAX_WHILE_TRAINING = 200
CONNECTIONS = 8
PATIENCE_SECONDS = 120.0


@dataclass
class Played:
    """How far the player is."""

    asked: int = 0
    answered: int = 0
    labelled: int = 0
    failed: list[str] = field(default_factory=list)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Inferences answered a second."""
        elapsed = self.seconds or (time.monotonic() - self.started if self.started else 0.0)
        return self.answered / elapsed if elapsed else 0.0


def prediction_id(model: str, number: int) -> str:
    """The id of a row's question."""
    return f"{model}-{number:06d}"


async def until(check: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for the loop to get somewhere. Raises CommandError naming what did not happen."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            msg = f"{what} has not happened within {seconds:.0f} s; look at `tailrace status` and the files in the home's logs/"
            raise CommandError(msg)
        await asyncio.sleep(0.02)


async def publish_history(publisher: AsyncPublisher, spec: ModelSpec, rows: Sequence[Row]) -> None:
    """Observations and, twenty days later each, their labels, through the public topics."""
    for place, row in enumerate(rows):
        await publisher.prediction(
            model=spec.model, features=row.features, prediction_id=prediction_id(spec.model, row.number), time=row.time
        )
        if place >= LABEL_DELAY:
            await publish_label(publisher, spec, rows[place - LABEL_DELAY])
    for row in rows[-LABEL_DELAY:]:
        await publish_label(publisher, spec, row)
    await publisher.flush()


async def publish_label(publisher: AsyncPublisher, spec: ModelSpec, row: Row) -> None:
    """The truth about one row."""
    await publisher.label(prediction_id(spec.model, row.number), model=spec.model, label=row.label, time=row.time)


@dataclass
class Player:
    """Asks for one inference a row, in order, over a few connections, and labels each row twenty rows later."""

    connection: Connection
    publisher: AsyncPublisher
    spec: ModelSpec
    story: Story
    rate: float | None = None
    played: Played = field(default_factory=Played)
    _alone: int = 0

    async def play(self, rows: Sequence[Row]) -> Played:
        """Play all rows; returns when every one is answered and labelled."""
        self.played.started = time.monotonic()
        async with aiohttp.ClientSession(self.connection.serving_url, timeout=aiohttp.ClientTimeout(30)) as client:
            room = asyncio.Semaphore(CONNECTIONS)
            async with asyncio.TaskGroup() as tasks:
                for place, row in enumerate(rows):
                    await self._pace(place)
                    await room.acquire()
                    tasks.create_task(self._ask(client, row, room.release))
                    if place >= LABEL_DELAY:
                        await self._label(rows[place - LABEL_DELAY])
        for row in rows[-LABEL_DELAY:]:
            await self._label(row)
        await self.publisher.flush()
        self.played.seconds = time.monotonic() - self.played.started
        return self.played

    async def _pace(self, place: int) -> None:
        if self.rate:
            due = self.played.started + place / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._alone = self._alone + 1 if self.story.training else 0
        deadline, before = time.monotonic() + PATIENCE_SECONDS, self._behind()
        while self._ahead():
            await asyncio.sleep(0.005)
            if (now := self._behind()) != before:
                deadline, before = time.monotonic() + PATIENCE_SECONDS, now
            if time.monotonic() > deadline:
                msg = f"nothing has been joined or trained for {PATIENCE_SECONDS:.0f} s; look at `tailrace status` and the home's logs/"
                raise CommandError(msg)

    def _ahead(self) -> bool:
        """Whether the stream has run ahead: of the join, or of a training that it is waiting for."""
        if self.played.labelled - self.story.served.total > MAX_BEHIND:
            return True
        return self.rate is None and self.story.training and self._alone > MAX_WHILE_TRAINING

    def _behind(self) -> tuple[int, int, bool]:
        epochs = sum(each.epoch for each in self.story.trainings.values())
        return len(self.story.joined), epochs, self.story.training

    async def _label(self, row: Row) -> None:
        await publish_label(self.publisher, self.spec, row)
        self.played.labelled += 1

    async def _ask(self, client: aiohttp.ClientSession, row: Row, done: Callable[[], None]) -> None:
        try:
            self.played.asked += 1
            status, text = await self._retried(client, row)
            if status != HTTPStatus.OK:
                self.played.failed.append(f"day {row.number}: {status} {text[:200]}")
            else:
                self.played.answered += 1
        finally:
            done()

    async def _retried(self, client: aiohttp.ClientSession, row: Row, attempts: int = 5) -> tuple[int, str]:
        """Ask, and ask again while serving restarts, under the same prediction id."""
        path, request = f"/v2/models/{self.spec.model}/infer", self._request(row)
        for attempt in range(attempts):
            await asyncio.sleep(0.2 * attempt)
            try:
                async with client.post(path, json=request) as response:
                    answer = response.status, await response.text()
            except aiohttp.ClientError as error:
                answer = 0, f"serving did not answer ({error})"
            if answer[0] not in {0, HTTPStatus.SERVICE_UNAVAILABLE}:
                break
        return answer

    def _request(self, row: Row) -> dict[str, object]:
        return {
            "id": str(row.number),
            "parameters": {"prediction_id": prediction_id(self.spec.model, row.number), "time": row.time.isoformat()},
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
                for name, value in row.features.items()
            ],
        }
