"""The events of a run: predictions and labels in the order in which the world would tell of them, oddities included.

Everything follows from the number of an event, so two runs of a size publish the same. A label comes some hundred
events after its prediction, or before it, or never; some come twice, some are corrected later. Some predictions are
invalid; some come so late that they reach an earlier window, or none.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from tailrace_contracts.events import FeatureValue, LabelGiven, PredictionMade
from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion.testing import Deployment, label, prediction, rain_spec

DAYS = 200
"""The span of event time that a run plays."""
LABEL_AFTER, CORRECTED_AFTER, EARLY_BY = 300, 400, 150
BATCH = 50

Published = PredictionMade | LabelGiven


def spec() -> ModelSpec:
    """Windows of ten days, which take late events for five; nothing expires, and every event time is believed."""
    return rain_spec(
        label={"name": "rain", "horizon_days": 3650},
        time={"clock": "stream", "max_ahead_days": 3650, "max_behind_days": 3650},
    )


@dataclass(frozen=True, slots=True)
class Script:
    """What is published, step by step without an end. `predictions` of them span `DAYS` of event time."""

    predictions: int

    def day(self, number: int) -> float:
        """The event time of a prediction, in days."""
        back = 22 if number % 89 == 88 else 8 if number % 83 == 82 else 0
        return max(number * DAYS / self.predictions - back, 0.0)

    def step(self, step: int) -> list[Published]:
        """A prediction, and the labels whose time has come."""
        wind = 1e6 if step % 97 == 96 else float(step % 50)
        features: dict[str, FeatureValue] = {"wind": wind, "pressure": 1000.5, "sky": "grey"}
        return [prediction(step, days=self.day(step), features=features), *self._labels(step)]

    def _labels(self, step: int) -> Iterator[Published]:
        early, usual, corrected = step + EARLY_BY, step - LABEL_AFTER, step - CORRECTED_AFTER
        if early % 13 == 0 and _labelled(early):
            yield self._label(early)
        if usual % 13 and _labelled(usual):
            yield self._label(usual)
            if usual % 7 == 0:
                yield self._label(usual)
        if corrected % 11 == 0 and _labelled(corrected):
            yield self._label(corrected, 1)

    def _label(self, number: int, flip: int = 0) -> LabelGiven:
        return label(number, (number + flip) % 2, days=number * DAYS / self.predictions + 1)


def _labelled(number: int) -> bool:
    return number >= 0 and number % 3 != 0


@dataclass(slots=True)
class Load:
    """Publishes a script at a steady rate, as long as processes are struck; then the rest, as fast as it can.

    A tenth goes through the gateway, by a client that tries again.
    """

    deployment: Deployment
    script: Script
    rate: float
    gateway: str | None = None
    sent: int = 0
    repeated: int = 0
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Publish until the strikes are over and the script is played."""
        events: list[Published] = []
        for step in itertools.count():
            events += self.script.step(step)
            if len(events) >= BATCH:
                await self._publish(events)
                events = []
                if self.hurry.is_set() and step >= self.script.predictions:
                    return

    async def _pause(self) -> None:
        if not self.hurry.is_set():
            await asyncio.sleep(BATCH / self.rate)

    async def _publish(self, events: Sequence[Published]) -> None:
        self.sent += len(events)
        if self.gateway is None or self.sent // BATCH % 10:
            await self.deployment.publish(*events)
        else:
            await self._post("/v1/predictions", [each for each in events if isinstance(each, PredictionMade)])
            await self._post("/v1/labels", [each for each in events if isinstance(each, LabelGiven)])
        await self._pause()

    async def _post(self, path: str, events: Sequence[Published]) -> None:
        """Until it is accepted. A request whose answer was lost is sent again, so its events may be on the log twice."""
        body = {"events": [each.model_dump(mode="json") for each in events]}
        async with httpx.AsyncClient(base_url=self.gateway or "", timeout=30) as client:
            while events:
                try:
                    answer = await client.post(path, json=body)
                except httpx.HTTPError:
                    self.repeated += 1
                else:
                    if answer.status_code == httpx.codes.ACCEPTED:
                        return
                    if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        raise AssertionError(f"{path} answered {answer.status_code}: {answer.text}")
                await asyncio.sleep(0.2)


def window_of(moment: float) -> float:
    """Where the window of an event time begins, both in seconds since 1970."""
    width = spec().monitors.window_days * timedelta(days=1).total_seconds()
    return moment // width * width
