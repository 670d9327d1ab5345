"""The role `requests`: questions from `inference-requests`, answers onto the topic that the caller wants them on.

For each batch of one partition, in this order: what was replied already is looked up; the other requests are answered,
all at once, by the same `handlers.answer` as over HTTP; the replies are published and acknowledged; then the loop
publishes the prediction events, and last it commits. So a reply is never without its prediction events for longer than
a restart takes: killed in between, the batch is read again, the replies that are on their topic are found there (the
role reads the end of it when it takes a partition over), they are not sent twice, and their prediction events are made
out of them, with the same ids and the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from tailrace_contracts.ranges import Log
from tailrace_runtime.consumer import Outcome, Parked, Stateless
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.records import SOURCE, Outgoing, Record
from tailrace_serving import handlers
from tailrace_serving.adapters.kafka import Sender, outgoing
from tailrace_serving.domain import requests
from tailrace_serving.domain.answered import Replied
from tailrace_serving.domain.arms import ArmFailed, Table
from tailrace_serving.domain.buffer import Captured
from tailrace_serving.domain.explanation import Explanation
from tailrace_serving.domain.prediction_event import Output, Prediction, encode
from tailrace_serving.domain.refusal import Refused, brief
from tailrace_serving.domain.requests import InferenceRequest, Reply
from tailrace_serving.explanations import Explanations
from tailrace_serving.handlers import Desk, Inference
from tailrace_serving.ports import RepliesRead

REPLY_TOPIC = "reply-topic"
CORRELATION = "correlation-id"


class Worked:
    """What became of one record: a reply or none (it is on its topic already), and its prediction events."""

    __slots__ = ("events", "inferences", "record", "reply", "topic")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.topic = ""
        self.reply: Reply | None = None
        self.inferences: list[Inference] = []
        self.events: list[Captured] = []


class Requests(Stateless):
    """Answers batches of requests, effectively once for each request id."""

    def __init__(
        self,
        table: Table,
        desk: Desk,
        sender: Sender,
        read_replies: RepliesRead,
        *,
        reply_topics: Sequence[str],
        topic_out: str,
        max_rows: int,
        max_explained_rows: int,
        explanations: Explanations,
        remembered_bytes: int,
    ) -> None:
        self._table = table
        self._desk = desk
        self._sender = sender
        self._read_replies = read_replies
        self._reply_topics = tuple(reply_topics)
        self._topic_out = topic_out
        self._max_rows = max_rows
        self._max_explained_rows = max_explained_rows
        self._explanations = explanations
        self._replied = Replied(remembered_bytes)
        self._unsent: dict[tuple[int, int], Worked] = {}

    # ------------------------------------------------------------ taking over and letting go

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Look at the newest replies from these partitions, and read on as committed."""
        partitions = {log.partition for log in logs}
        for topic in self._reply_topics:
            for value in await self._read_replies(topic, partitions):
                reply = requests.reply_in(value)
                if reply is not None and reply.trigger.partition in partitions:
                    self._replied.add(reply)
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Another process answers these from now on."""
        self._replied.leave({log.partition for log in logs})

    # ------------------------------------------------------------ a batch

    async def handle(self, records: Sequence[Record]) -> Outcome:
        """Answer requests of one partition. Raises RetryLater when the replies cannot be published."""
        outcome = Outcome()
        first, repeated = _apart(records)
        for part in (first, repeated):
            works = await asyncio.gather(*(self._worked(record, outcome.parked) for record in part))
            await self._publish_replies([work for work in works if work.reply and work.topic])
            for event in await self._events(works):
                outcome.emit.append(outgoing(event, self._topic_out))
        return outcome

    async def _worked(self, record: Record, parked: list[Parked]) -> Worked:
        work = Worked(record)
        place = record.partition, record.offset
        before = self._replied.to_record(*place)
        if before is not None:
            if self._replied.to_request(before.request_id) is before:
                work.events = _again(record, before)
            return work
        if place in self._unsent:
            return self._unsent[place]
        try:
            work.topic = self._topic_of(record)
            await self._answer(work, requests.request_of(record.value or b""))
        except Refused as refused:
            self._desk.meter.count("tailrace_requests_refused_total", reason=refused.kind)
            self._refuse(work, refused, parked)
        return work

    async def _answer(self, work: Worked, request: InferenceRequest) -> None:
        record, desk = work.record, self._desk
        digest = requests.sha256(record.value or b"")
        before = self._replied.to_request(request.request_id)
        if before is not None:
            if before.request_sha256 != digest:
                raise requests.used_before(request.request_id)
            work.reply = requests.repeated(before, record.trigger(), desk.clock.now())
            return
        began = desk.clock.now()
        arms = self._table.find(request.model)
        max_rows = self._max_explained_rows if request.explain else self._max_rows
        question = requests.question(request, arms.rules, max_rows, _recorded(record))
        answered = await handlers.answer(desk, arms, question, request.version)
        now = desk.clock.now()
        seconds = max((now - began).total_seconds(), 0.0)
        trace = record.header("traceparent")
        rows = handlers.inferences(desk, arms, question, answered, seconds, trace=trace)
        explained = await self._explained(rows) if request.explain else []
        work.reply = requests.answered(
            request,
            record.trigger(),
            now,
            digest=digest,
            served=answered.served,
            answers=answered.answers,
            ids=answered.prediction_ids,
            explanations=explained,
        )
        work.inferences = rows
        if explained:
            work.inferences = [row._replace(explanation=each) for row, each in zip(rows, explained, strict=True)]

    async def _explained(self, rows: Sequence[Inference]) -> list[Explanation]:
        """Explanations of answered rows. Raises Refused, also when they take too long: the partition waits for them."""
        first, seconds = rows[0], self._explanations.live_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._explanations.asked(rows, first.arms.spec.serving.explanations.permutations)
        except ArmFailed as failure:
            raise handlers.failed(first.arms, first.served, failure, "could not be explained") from failure
        except TimeoutError:
            raise Refused(
                "unavailable",
                f"model {first.arms.model!r} was not explained within {seconds:g} s; send fewer rows at once, or ask over HTTP",
            ) from None

    def _topic_of(self, record: Record) -> str:
        wanted = record.header(REPLY_TOPIC)
        if wanted is None:
            return self._reply_topics[0]
        topic = wanted.decode("utf-8", "replace")
        if topic not in self._reply_topics:
            raise Refused(
                "malformed",
                f"the header {REPLY_TOPIC} is {brief(topic)}, expected one of {', '.join(self._reply_topics)}",
            )
        return topic

    def _refuse(self, work: Worked, refused: Refused, parked: list[Parked]) -> None:
        record = work.record
        reply = requests.refused(record.value or b"", record.trigger(), self._desk.clock.now(), refused)
        if reply.request_id or record.header(CORRELATION) is not None:
            work.topic = work.topic or self._reply_topics[0]
            work.reply = reply
        else:
            parked.append(Parked(record, "malformed-request", refused.sentence, reply.model or None))

    async def _publish_replies(self, works: Sequence[Worked]) -> None:
        self._unsent = {(work.record.partition, work.record.offset): work for work in works}
        try:
            await self._sender.send_all([_outgoing(work) for work in works])
        except DeliveryFailed as error:
            raise RetryLater(str(error)) from error
        self._unsent = {}
        for work in works:
            if work.reply is not None:
                self._replied.add(work.reply)

    async def _events(self, works: Sequence[Worked]) -> list[Captured]:
        events = [event for work in works for event in work.events]
        inferences = [inference for work in works for inference in work.inferences]
        for _, alike in groupby(inferences, key=lambda each: (id(each.arms), id(each.served.loaded))):
            batch = await self._explanations.of_drawn(list(alike))
            for start in range(0, len(batch), handlers.ALIKE_ROWS):
                events.extend(await handlers.with_others(self._desk.meter, batch[start : start + handlers.ALIKE_ROWS]))
                await asyncio.sleep(0)  # requests over HTTP have their turn
        return events


def _apart(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Records whose request is new within the batch, and those whose request id came before in it."""
    first: list[Record] = []
    repeated: list[Record] = []
    seen: set[str] = set()
    for record in records:
        identity, _ = requests.named(record.value or b"")
        (repeated if identity and identity in seen else first).append(record)
        seen.add(identity)
    return first, repeated


def _outgoing(work: Worked) -> Outgoing:
    """A reply as a CloudEvent, in the partition of its request."""
    record, reply = work.record, work.reply
    assert reply is not None  # noqa: S101  # the caller's condition
    correlation = record.header(CORRELATION)
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"reply-{record.topic}-{record.partition}-{record.offset}".encode()),
        ("ce_type", b"tailrace.inference-answered"),
        ("ce_source", SOURCE.get().encode()),
        ("ce_time", reply.time.isoformat().encode()),
        ("content-type", b"application/json"),
        *(((CORRELATION, correlation),) if correlation is not None else ()),
    )
    return Outgoing(work.topic, requests.encode(reply), record.key, record.partition, headers)


def _again(record: Record, reply: Reply) -> list[Captured]:
    """The prediction events of a request that was replied to in an earlier life, out of the reply."""
    if reply.error is not None:
        return []
    request = requests.request_of(record.value or b"")
    time = requests.asked_at(request, _recorded(record))
    return [
        Captured(
            request.model,
            answer.prediction_id.encode(),
            encode(
                Prediction(
                    prediction_id=answer.prediction_id,
                    model=request.model,
                    time=time,
                    features=features,
                    served=Output(reply.arm, answer.prediction, answer.probability, reply.version, reply.revision),
                    entity=request.entity,
                    explanation=answer.explanation,
                )
            ),
            time,
            record.header("traceparent"),
        )
        for features, answer in zip(request.rows, reply.answers, strict=True)
    ]


def _recorded(record: Record) -> datetime:
    return datetime.fromtimestamp(max(record.timestamp_ms, 0) / 1000, UTC)
