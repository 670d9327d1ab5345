"""From answer to event, off the response path.

    answered rows → pending (bounded) → the other arms answer, in micro-batches → buffer (bounded) → broker

Tasks run beside the requests: one takes pending rows, asks the other arms and encodes the events; one sends what the
buffer holds, in batches, and keeps it until the broker has acknowledged; one explains those predictions that their
model's spec draws, before their events are encoded (`explanations`). Overload is shed in this order: when too
many rows are pending, a row's event is made at once, without the other arms (`tailrace_shadows_shed_total`); when the
buffer is full, as when the broker has been away for long, the event is lost and counted
(`tailrace_capture_lost_total`). Neither ever makes a request wait. What a process held when it was killed, its successor
counts: the ledger says how much that was.

A model whose spec says `capture: acknowledged` goes another way: its request asks the other arms, is explained where it
is drawn, publishes and waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import structlog

from tailrace_serving.domain.buffer import CaptureBuffer, Captured
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.explanations import Explanations, LiveExplanations
from tailrace_serving.handlers import ALIKE_ROWS, Inference, captured, others_answers, with_others
from tailrace_serving.ports import EventLog, Ledger, Meter, NeverPublished, NotPublished

log = structlog.get_logger(__name__)

BATCH_EVENTS = 250
"""Sent at once. While they are made ready nobody is answered, so more would be felt."""

PROBE_EVENTS = 16
"""Sent at once while the broker does not take them: attempts go on, and should not be felt either."""

_TELL_EVERY_SECONDS = 5.0


class Capture:
    """Everything between an answer and the broker, for all models."""

    def __init__(
        self,
        events: EventLog,
        meter: Meter,
        buffer: CaptureBuffer,
        ledger: Ledger,
        *,
        max_pending: int,
        linger_seconds: float,
        retry_seconds: float,
        acknowledge_seconds: float,
        flush_seconds: float,
        explanations: Explanations,
        max_waiting_explanations: int,
    ) -> None:
        self.buffer = buffer
        self._explanations = explanations
        self._live = LiveExplanations(explanations, self._offer, max_waiting_explanations)
        self._events = events
        self._meter = meter
        self._ledger = ledger
        self._pending: deque[Inference] = deque()
        self._max_pending = max_pending
        self._linger_seconds = linger_seconds
        self._retry_seconds = retry_seconds
        self._acknowledge_seconds = acknowledge_seconds
        self._flush_seconds = flush_seconds
        self._asked = asyncio.Event()
        self._offered = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._told_lost = -_TELL_EVERY_SECONDS

    # ------------------------------------------------------------ what requests call

    async def take(self, inferences: Sequence[Inference]) -> None:
        """Capture answered rows as their model's spec says. Raises Refused where an acknowledgement does not come."""
        if inferences[0].arms.spec.capture == "acknowledged":
            await self._acknowledged(inferences)
        else:
            self._buffered(inferences)

    def _buffered(self, inferences: Sequence[Inference]) -> None:
        self._ledger.take(inferences[0].arms.model, len(inferences))
        for inference in inferences:
            if len(self._pending) >= self._max_pending:
                self._meter.count("tailrace_shadows_shed_total", model=inference.arms.model)
                self._live.pass_by(inference)
                self._offer(captured(inference))
            else:
                self._pending.append(inference)
        self._asked.set()

    async def _acknowledged(self, inferences: Sequence[Inference]) -> None:
        model = inferences[0].arms.model
        events: list[Captured] = []
        inferences = await self._explanations.of_drawn(inferences)
        for start in range(0, len(inferences), ALIKE_ROWS):
            events.extend(await with_others(self._meter, inferences[start : start + ALIKE_ROWS]))
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(self._acknowledge_seconds):
                await self._events.publish(events)
        except (NotPublished, NeverPublished, TimeoutError) as error:
            self._meter.count("tailrace_capture_lost_total", len(events), model=model)
            reason = str(error) or f"no acknowledgement within {self._acknowledge_seconds:g} s"
            raise Refused(
                "unavailable",
                f"the prediction could not be recorded, as model {model!r} requires ({reason}); try again",
            ) from error
        self._meter.count("tailrace_captured_total", len(events), model=model)

    # ------------------------------------------------------------ the tasks

    async def start(self) -> None:
        """Begin to answer for the other arms and to publish."""
        self._stopping = False
        for model, lost in self._ledger.left.items():
            self._lost(model, lost, "an earlier process was killed while it held them")
        self._tasks = [
            asyncio.create_task(self._ask_others(), name="serving-other-arms"),
            asyncio.create_task(self._publish(), name="serving-capture"),
        ]
        self._explains = asyncio.create_task(self._live.run(), name="serving-explanations")

    async def wait(self) -> None:
        """Return when the tasks have ended; raise what made one fail."""
        done, _ = await asyncio.wait([*self._tasks, self._explains], return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """Publish what is held, for `flush_seconds` at most, and count the rest as lost."""
        self._stopping = True
        self._explains.cancel()
        await asyncio.gather(self._explains, return_exceptions=True)
        self._live.stop()
        self._asked.set()
        self._offered.set()
        _, late = await asyncio.wait(self._tasks, timeout=self._flush_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._pending:
            self._offer(captured(self._pending.popleft()))
        self._give_up(len(self.buffer), "the service stopped before the broker had acknowledged them")

    async def _ask_others(self) -> None:
        while self._pending or not self._stopping:
            if not self._pending:
                self._asked.clear()
                await self._asked.wait()
                continue
            batch = self._alike()
            for inference, shadows in zip(batch, await others_answers(self._meter, batch), strict=True):
                if not self._live.take(inference, shadows):
                    self._offer(captured(inference, shadows))
            await asyncio.sleep(0)
        self._offered.set()

    def _alike(self) -> list[Inference]:
        """The oldest pending rows, as many as have the same arms and the same arm served."""
        first = self._pending.popleft()
        batch = [first]
        while self._pending and len(batch) < ALIKE_ROWS:
            following = self._pending[0]
            if following.arms is not first.arms or following.served.loaded is not first.served.loaded:
                break
            batch.append(self._pending.popleft())
        return batch

    def _offer(self, event: Captured) -> None:
        if self.buffer.offer(event):
            self._offered.set()
        else:
            self._meter.count("tailrace_capture_lost_total", model=event.model)
            self._ledger.settle(event.model, 1)
            self._tell_lost(event.model)

    async def _publish(self) -> None:
        most = BATCH_EVENTS
        while self.buffer or self._pending or not self._stopping:
            if not self.buffer:
                self._offered.clear()
                await self._offered.wait()
                if not self._stopping:
                    await asyncio.sleep(self._linger_seconds)
                continue
            batch = self.buffer.oldest(most)
            try:
                await self._events.publish(batch)
            except NotPublished as error:
                most = PROBE_EVENTS
                log.warning("prediction events are kept and sent again", held=len(self.buffer), reason=str(error))
                await asyncio.sleep(self._retry_seconds)
            except NeverPublished:
                await self._one_by_one(batch)
            else:
                most = BATCH_EVENTS
                self._done(batch)
            self._meter.gauge("tailrace_capture_held", len(self.buffer))

    async def _one_by_one(self, batch: Sequence[Captured]) -> None:
        """Send events of which one is refused for good; only that one is lost. Stops at the first delay."""
        for event in batch:
            try:
                await self._events.publish([event])
            except NeverPublished as error:
                self._give_up(1, str(error))
            except NotPublished:
                return
            else:
                self._done([event])

    def _done(self, batch: Sequence[Captured]) -> None:
        self.buffer.done(len(batch))
        for model, count in _by_model(batch).items():
            self._meter.count("tailrace_captured_total", count, model=model)
            self._ledger.settle(model, count)

    def _give_up(self, count: int, reason: str) -> None:
        given_up = _by_model(self.buffer.oldest(count))
        self.buffer.give_up(count)
        for model, lost in given_up.items():
            self._ledger.settle(model, lost)
            self._lost(model, lost, reason)

    def _lost(self, model: str, lost: int, reason: str) -> None:
        self._meter.count("tailrace_capture_lost_total", lost, model=model)
        log.error("prediction events are lost", model=model, lost=lost, reason=reason)

    def _tell_lost(self, model: str) -> None:
        now = time.monotonic()
        if now - self._told_lost >= _TELL_EVERY_SECONDS:
            self._told_lost = now
            log.error(
                "prediction events are lost: the buffer is full because the broker does not take them",
                model=model,
                lost_so_far=self.buffer.lost[model],
                held=len(self.buffer),
            )


def _by_model(events: Sequence[Captured]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in events:
        counts[event.model] = counts.get(event.model, 0) + 1
    return counts
