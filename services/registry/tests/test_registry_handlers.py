"""What the registry does with each event, on the books in memory and on those in a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest

from tailrace_contracts.audit import digest_of, verify_chain
from tailrace_contracts.events import (
    AlertKind,
    ApplySpec,
    AuditRecorded,
    DeploymentChanged,
    Event,
    MuteAlerts,
    MutesChanged,
    PromoteVersion,
    RejectVersion,
    RollbackModel,
    SpecApplied,
    SpecTookEffect,
    TrainingProgressed,
    TrainingRequested,
    TrainModel,
    UnmuteAlerts,
    VersionChanged,
    decode,
)
from tailrace_contracts.ranges import LogRange, LogRanges, Trigger
from tailrace_registry.adapters.postgres import PostgresBooks, PostgresShelf
from tailrace_registry.adapters.rows import topics_out
from tailrace_registry.app import batch_handlers
from tailrace_registry.domain.commands import run_of
from tailrace_registry.handlers import COMMANDS
from tailrace_registry.main import TOPICS_IN, TOPICS_OUT
from tailrace_registry.ports import Books, Shelf, Which
from tailrace_registry.testing import (
    NOON,
    MemoryBooks,
    a_candidate,
    a_command,
    a_comparison,
    a_revision,
    a_spec,
    an_alert,
)
from tailrace_runtime.consumer import Outcome, Parked
from tailrace_runtime.database import Database, provision
from tailrace_runtime.testing import FixedClock, record
from tailrace_testing import Postgres

KINDS = ", ".join(get_args(AlertKind))


class Desk:
    """Books with a topic before each of their handlers."""

    def __init__(self, books: Books, shelf: Shelf, published: Callable[[], Awaitable[list[Event]]]) -> None:
        self.shelf = shelf
        self.published = published
        self.offsets: dict[str, int] = {}
        self.clock = FixedClock(NOON)
        self.handlers = batch_handlers(TOPICS_IN, books, self.clock)

    async def tell(self, topic: str, *values: Event | bytes | None) -> list[Parked]:
        """Put events on a topic and have them handled as one batch; gives back what was parked."""
        first = self.offsets.get(topic, 0)
        self.offsets[topic] = first + len(values)
        return (await self.again(topic, first, *values)).parked

    async def again(self, topic: str, first: int, *values: Event | bytes | None) -> Outcome:
        """Have events handled that stand on a topic from an offset on."""
        encoded = [value.encode() if isinstance(value, Event) else value for value in values]
        records = [record(value, topic, offset=first + i) for i, value in enumerate(encoded)]
        return await self.handlers[topic](records)

    async def of(self, kind: type[Event]) -> list[Any]:
        """The published events of a class, in order."""
        return [event for event in await self.published() if isinstance(event, kind)]

    async def stages(self) -> dict[int, str]:
        """Each version of `rain` with its stage."""
        return {each.version: each.stage for each in reversed(await self.shelf.versions("rain", Which()))}

    async def answer(self, command_id: str) -> AuditRecorded:
        """The one answer to a command."""
        (entry,) = [e for e in await self.of(AuditRecorded) if e.command_id == command_id]
        assert isinstance(entry, AuditRecorded)
        return entry


@pytest.fixture(scope="module")
def shared_database(postgres: Postgres) -> Iterator[str]:
    """A database for this file: a fresh one for every test would be most of its time."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["memory", "postgresql"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """Books of both kinds, empty."""
    if request.param == "memory":
        books = MemoryBooks()

        async def published() -> list[Event]:
            return books.published

        yield Desk(books, books, published)
        return
    whole: str = request.getfixturevalue("shared_database")
    database = Database(await provision(whole, "registry", "a-password"), "tailrace_registry")
    await database.start()

    async def enqueued() -> list[Event]:
        async with database.transaction() as connection:
            return [
                decode(row["value"])
                for row in await connection.fetch(
                    "select value from outbox where topic <> 'registry-journal' order by id"
                )
            ]

    yield Desk(PostgresBooks(database, topics_out(TOPICS_OUT)), PostgresShelf(database), enqueued)
    async with database.transaction() as connection:
        await connection.execute("drop schema registry cascade")
    await database.stop()


async def test_spec_is_applied_counted_and_answered(desk: Desk) -> None:
    """A spec would take effect twice, or not at all, or its author would get no answer."""
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="a"))
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="b"))
    changed = a_spec(owner="another-team")
    await desk.tell("registry-commands", a_command(ApplySpec(spec=changed), command_id="c"))
    specs = await desk.of(SpecApplied)
    assert [(s.spec_revision, s.spec.owner, s.applied_by) for s in specs] == [
        (1, "weather-team", "ada"),
        (2, "another-team", "ada"),
    ]
    assert "unchanged" in (await desk.answer("b")).reason
    assert [s.spec_revision for s in await desk.shelf.specs("rain")] == [1, 2]
    model = await desk.shelf.model("rain")
    assert model is not None
    assert model.spec == changed


async def applied(desk: Desk, **parts: Any) -> None:
    """A model with a spec."""
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec(**parts)), command_id="apply"))


async def test_a_decision_reads_few_of_many_versions(desk: Desk) -> None:
    """A model that has been trained a hundred thousand times would take seconds for each comparison, or lose count."""
    await applied(desk)
    await desk.tell("candidate-trained", *(a_candidate(f"run-{number}") for number in range(1, 8)))
    model = await desk.shelf.model("rain")
    assert model is not None
    assert (sorted(model.versions), model.newest) == ([1, 7], 7)
    await desk.tell("candidate-trained", a_candidate("run-3"), a_candidate("run-8"))
    assert (await desk.stages())[8] == "shadow"
    await desk.tell("registry-commands", a_command(PromoteVersion(version=3), command_id="old", reason="it was good"))
    assert (await desk.answer("old")).outcome == "done"
    await desk.tell("registry-commands", a_command(PromoteVersion(version=9), command_id="none"))
    assert (await desk.answer("none")).reason == "rain has no version 9; its versions are 1 to 8"
    await desk.tell("registry-commands", a_command(RollbackModel(), command_id="back"))
    stages = await desk.stages()
    assert (stages[1], stages[3], len(stages)) == ("champion", "rolled-back", 8)


async def test_candidate_goes_all_the_way(desk: Desk) -> None:
    """The loop would not close: a better version would never answer, or without a reason that an auditor can follow."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    assert await desk.stages() == {1: "champion", 2: "shadow"}
    await desk.tell("evaluations", a_comparison(2, 1, "undecided"), a_comparison(2, 1, "better", evaluation_id="e-1"))
    assert await desk.stages() == {1: "champion", 2: "canary"}
    await desk.tell("evaluations", a_comparison(2, 1, "better", stage="canary", evaluation_id="e-2"))
    assert await desk.stages() == {1: "retired", 2: "champion"}
    deployments = await desk.of(DeploymentChanged)
    arms = [(d.sequence, d.champion, d.canary and d.canary.version, d.shadows) for d in deployments]
    assert arms == [(1, 1, None, ()), (2, 1, None, (2,)), (3, 1, 2, ()), (4, 2, None, ())]
    assert [[e.event_id for e in d.evidence] for d in deployments] == [["a", "a"], ["b"], ["e-1"], ["e-2"]]
    history = await desk.shelf.audit("rain", "version 2", 0, 100)
    assert [entry.action for entry in history] == ["registered", "shadow", "canary", "champion"]
    check = await desk.shelf.verify()
    assert check.intact
    assert verify_chain(e.encode() for e in await desk.of(AuditRecorded)).head == check.head


async def test_repeated_facts_change_nothing(desk: Desk) -> None:
    """After a crash the same events come again, perhaps at other offsets, and versions or promotions would double."""
    await applied(desk)
    better = a_comparison(2, 1, "better")
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"), a_candidate("b"))
    await desk.tell("evaluations", better, better)
    promote = a_command(PromoteVersion(version=2), command_id="p")
    await desk.tell("registry-commands", promote, promote)
    await desk.tell("alerts", an_alert("x"))
    before = await desk.published()
    await desk.again("candidate-trained", 0, a_candidate("a"), a_candidate("b"))
    await desk.again("evaluations", 0, better)
    await desk.again("registry-commands", 1, promote)
    await desk.tell("candidate-trained", a_candidate("b"), a_candidate("a"))
    await desk.tell("evaluations", better)
    await desk.tell("registry-commands", promote, a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await desk.tell("alerts", an_alert("x"), an_alert("x"))
    assert await desk.published() == before
    assert await desk.stages() == {1: "retired", 2: "champion"}


async def test_same_comparison_never_moves_twice(desk: Desk) -> None:
    """A continual version sent back to shadow would return to canary on the evidence that it once went there on."""
    await applied(desk, rollout={"max_examples": 300})
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b", continual=True))
    better = a_comparison(2, 1, "better")
    await desk.tell("evaluations", better, a_comparison(2, 1, "undecided", stage="canary", examples=300))
    assert await desk.stages() == {1: "champion", 2: "shadow"}
    await desk.tell("evaluations", better)
    assert await desk.stages() == {1: "champion", 2: "shadow"}
    await desk.tell("evaluations", a_comparison(2, 1, "better", evaluation_id="another"))
    assert await desk.stages() == {1: "champion", 2: "canary"}


async def test_revisions_follow_their_version(desk: Desk) -> None:
    """Serving would go on with an old state of a learner that has learned on."""
    await applied(desk, learners={"online": {}})
    await desk.tell("candidate-trained", a_candidate("river", continual=True))
    await desk.tell("revision-trained", a_revision("river", 3), a_revision("river", 4), a_revision("other", 9))
    await desk.tell("revision-trained", a_revision("river", 2), a_revision("river", 4))
    changes = await desk.of(VersionChanged)
    assert [(c.version, c.revision, c.stage, c.lineage.examples) for c in changes] == [
        (1, 0, "champion", 500),
        (1, 4, "champion", 504),
    ]
    assert changes[-1].artefact == a_revision("river", 4).artefact
    assert len(await desk.of(DeploymentChanged)) == 1
    assert len(await desk.of(AuditRecorded)) == 3


async def test_revision_before_its_candidate_is_kept(desk: Desk) -> None:
    """After an outage the topics are read in any order, and a quiet learner's newest state would be lost for good."""
    await applied(desk, learners={"online": {}})
    await desk.tell("revision-trained", a_revision("river", 7))
    await desk.tell("candidate-trained", a_candidate("river", continual=True))
    (change,) = await desk.of(VersionChanged)
    assert (change.revision, change.artefact) == (7, a_revision("river", 7).artefact)


async def test_revision_and_move_do_not_undo_each_other(desk: Desk) -> None:
    """A promotion would put back the artefact of an older revision."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("river", continual=True))
    await desk.tell("revision-trained", a_revision("river", 5))
    await desk.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="p"))
    await desk.tell("revision-trained", a_revision("river", 6))
    newest = (await desk.of(VersionChanged))[-1]
    assert (newest.version, newest.stage, newest.revision) == (2, "champion", 6)


async def test_train_is_asked_for_once(desk: Desk) -> None:
    """`tailrace train` would train nothing, or twice."""
    await applied(desk)
    train = a_command(TrainModel(), command_id="t", reason="new station")
    await desk.tell("registry-commands", train, train)
    (asked,) = await desk.of(TrainingRequested)
    assert (asked.run_id, asked.reason, asked.requested_by, asked.spec_revision) == (
        run_of("t"),
        "new station",
        "ada",
        1,
    )
    assert run_of("t") in (await desk.answer("t")).reason


@pytest.mark.parametrize(
    "command", [PromoteVersion(version=1), RejectVersion(version=1), RollbackModel(), TrainModel()]
)
async def test_command_for_unknown_model_is_refused(desk: Desk, command: Any) -> None:
    """A typing error in a model's name would leave its author waiting."""
    await desk.tell("registry-commands", a_command(command, command_id="x", model="rian"))
    answer = await desk.answer("x")
    assert (answer.outcome, answer.reason) == ("refused", "there is no model rian; apply a spec for it first")
    assert await desk.shelf.models() == []


async def test_refusal_leaves_everything_as_it_was(desk: Desk) -> None:
    """A refused command would still move a version."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"))
    await desk.tell("registry-commands", a_command(RollbackModel(), command_id="r"))
    assert (await desk.answer("r")).outcome == "refused"
    assert await desk.stages() == {1: "champion"}
    assert len(await desk.of(DeploymentChanged)) == 1


def quiet(**changes: Any) -> MuteAlerts:
    """Feature drift of the pressure, for a week."""
    fields = {"kinds": ("feature-drift",), "subjects": ("pressure",), "owner": "ada", "until": NOON + timedelta(days=7)}
    return MuteAlerts.model_validate({**fields, **changes})


async def test_a_mute_is_announced_with_owner_reason_and_end_and_ended_by_its_id(desk: Desk) -> None:
    """Alerts could not be muted, or nobody would know by whom, or they would stay muted for ever."""
    await applied(desk)
    await desk.tell("registry-commands", a_command(quiet(), command_id="m", reason="the sensor is replaced"))
    (changed,) = await desk.of(MutesChanged)
    (mute,) = changed.mutes
    assert (mute.owner, mute.muted_by, mute.reason) == ("ada", "ada", "the sensor is replaced")
    assert (mute.since, mute.until, mute.kinds, mute.subjects) == (
        NOON,
        NOON + timedelta(days=7),
        ("feature-drift",),
        ("pressure",),
    )
    answer = await desk.answer("m")
    assert (answer.outcome, answer.action, answer.subject) == ("done", "mute-alerts", mute.mute_id)
    assert "feature-drift alerts about pressure of rain are muted until 2026-03-08 12:00 UTC" in answer.reason
    await desk.tell("registry-commands", a_command(UnmuteAlerts(mute_id=mute.mute_id), command_id="u"))
    last = (await desk.of(MutesChanged))[-1]
    assert (last.sequence, last.mutes) == (2, ())
    model = await desk.shelf.model("rain")
    assert model is not None
    assert model.muting == last
    await desk.tell("registry-commands", a_command(UnmuteAlerts(mute_id=mute.mute_id), command_id="again"))
    refused = await desk.answer("again")
    assert (refused.outcome, refused.reason) == (
        "refused",
        f"rain has no mute {mute.mute_id} in force; there is none",
    )


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        ({"until": NOON}, "x", "the mute would have ended already, at 2026-03-01 12:00 UTC; name an end in the future"),
        (
            {"until": NOON + timedelta(days=400)},
            "x",
            "the mute would last until 2027-04-05 12:00 UTC; name an end within",
        ),
        ({}, " ", "a mute needs a reason"),
    ],
)
async def test_a_mute_without_a_sensible_end_or_reason_is_refused(
    desk: Desk, changes: dict[str, Any], reason: str, sentence: str
) -> None:
    """Alerts would be muted for ever, and nobody would know why."""
    await applied(desk)
    await desk.tell("registry-commands", a_command(quiet(**changes), command_id="m", reason=reason))
    answer = await desk.answer("m")
    assert answer.outcome == "refused"
    assert answer.reason.startswith(sentence)
    assert await desk.of(MutesChanged) == []


async def test_mutes_that_have_ended_leave_the_list_and_others_stay(desk: Desk) -> None:
    """The list would grow for ever, or a second mute would end the first."""
    await applied(desk)
    short = quiet(until=NOON + timedelta(hours=1))
    for name, command in (("short", short), ("long", quiet())):
        await desk.tell("registry-commands", a_command(command, command_id=name, reason="x"))
    assert len((await desk.of(MutesChanged))[-1].mutes) == 2
    desk.clock.advance(2 * 3600)
    await desk.tell("registry-commands", a_command(quiet(kinds=("fairness",)), command_id="third", reason="x"))
    assert [each.kinds for each in (await desk.of(MutesChanged))[-1].mutes] == [("feature-drift",), ("fairness",)]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            {"command": "apply-spec", "spec": {"model": "rain", "owner": "ada", "colour": "red"}},
            "spec: features: this field is required (and 2 more)",
        ),
        ({"command": "promote", "version": "two"}, "the command promote needs a version, a whole number from 1"),
        (
            {"command": "delete"},
            f"the registry knows {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and not delete",
        ),
        (
            {"command": "mute-alerts", "kinds": ["drift"], "owner": "ada", "until": "2026-04-01T00:00:00Z"},
            f"the command mute-alerts needs an owner and an end (until, a time with its offset); its kinds are {KINDS}",
        ),
        ({"command": "unmute-alerts"}, "the command unmute-alerts needs a mute_id"),
        (
            "promote 3",
            "the command is not one that the registry knows; check it against the schema of command-issued",
        ),
    ],
)
async def test_unreadable_command_is_answered(desk: Desk, command: object, reason: str) -> None:
    """A tool that writes a wrong command would wait for an answer that never comes."""
    document = {"command_id": "u", "model": "rain", "issued_by": "ada", "command": command}
    value = json.dumps(document).encode()
    assert await desk.tell("registry-commands", value, value) == []
    answer = await desk.answer("u")
    assert (answer.outcome, answer.actor, answer.reason) == ("refused", "ada", reason)


@pytest.mark.parametrize(
    "value", [b"{", b"[]", b'{"command_id": "a"}', b'{"model": 1}', None, a_candidate("a").encode()]
)
async def test_command_of_nobody_is_parked(desk: Desk, value: bytes | None) -> None:
    """Garbage on the command topic would stop the registry, or vanish."""
    fine = a_command(ApplySpec(spec=a_spec()), command_id="apply")
    parked = await desk.tell("registry-commands", value, fine)
    assert [p.code for p in parked] == ["unreadable-command"]
    assert len(await desk.of(SpecApplied)) == 1


@pytest.mark.parametrize(
    ("topic", "value", "code"),
    [
        ("candidate-trained", a_candidate("a", model="snow"), "unknown-model"),
        ("candidate-trained", a_candidate("a", spec_revision=9), "unknown-spec-revision"),
        ("candidate-trained", b"{}", "unreadable-event"),
        ("evaluations", a_comparison(2, 1, "better", model="snow"), "unknown-model"),
        ("evaluations", b"\xff", "unreadable-event"),
        ("revision-trained", b"nothing", "unreadable-event"),
    ],
)
async def test_impossible_event_is_parked(desk: Desk, topic: str, value: Event | bytes, code: str) -> None:
    """An event that can never be handled would block its topic, or be dropped without a trace."""
    await applied(desk)
    before = await desk.published()
    parked = await desk.tell(topic, value)
    assert [p.code for p in parked] == [code]
    assert await desk.published() == before


async def test_evidence_is_kept(desk: Desk) -> None:
    """Nobody could see what an alert or a failed training had said when a decision was taken."""
    await applied(desk)
    failed = TrainingProgressed(run_id="r", model="rain", stage="failed", message="too few examples", time=NOON)
    await desk.tell("training-progressed", failed.model_copy(update={"stage": "started"}), failed)
    await desk.tell("alerts", an_alert("x"), an_alert("x"))
    kept = await desk.shelf.evidence("rain", 10)
    assert sorted((line.kind, line.event_id) for line in kept) == [("alert", "x"), ("training", "r")]
    assert failed in [line.event for line in kept]
    assert await desk.shelf.evidence("snow", 10) == []


async def test_whatever_is_kept_is_in_the_audit_chain_by_its_digest(desk: Desk) -> None:
    """An alert that moved nothing could be changed or removed afterwards, and nobody would notice."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    failed = TrainingProgressed(run_id="r", model="rain", stage="failed", message="too few examples", time=NOON)
    await desk.tell("training-progressed", failed, failed)
    await desk.tell("alerts", an_alert("x"), an_alert("x"))
    await desk.tell("evaluations", a_comparison(2, 1, "better", evaluation_id="e"))
    kept = {(line.kind, line.event_id): digest_of(line.event) for line in await desk.shelf.evidence("rain", 10)}
    entries = await desk.of(AuditRecorded)
    vouched = [(each.kind, each.event_id, each.sha256) for entry in entries for each in entry.evidence]
    assert set(kept) == {("training", "r"), ("alert", "x"), ("comparison", "e")}
    assert all((*name, sha256) in vouched for name, sha256 in kept.items())
    noted = {entry.action: entry for entry in entries if entry.action in {"alert", "training"}}
    assert sorted(noted) == ["alert", "training"]
    assert noted["training"].reason == "r failed: too few examples"
    assert "it moves nothing: there is no version before" in noted["alert"].reason
    assert (await desk.shelf.verify()).intact


async def test_a_comparison_that_only_lets_a_gate_wait_is_in_the_chain(desk: Desk) -> None:
    """It would be kept and not vouched for."""
    rollout = {"shadow_min_examples": 100, "gates": {"latency": {"max_p99_ms": 50}}}
    await applied(desk, rollout=rollout)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await desk.tell("evaluations", a_comparison(2, 1, "better", evaluation_id="e"))
    newest = (await desk.of(AuditRecorded))[-1]
    assert (newest.action, newest.subject, newest.evidence[0].event_id) == ("comparison", "version 2", "e")


async def test_an_alert_on_a_new_champion_returns_the_version_before(desk: Desk) -> None:
    """The record of the version before would not be looked at, or nothing would act without a spec that asks for it."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await desk.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="p", reason="x"))
    slow = an_alert("slow").model_copy(update={"kind": "errors", "subject": "version 1"})
    await desk.tell("alerts", slow.model_copy(update={"kind": "latency"}))
    await desk.tell("alerts", slow.model_copy(update={"alert_id": "l", "kind": "latency", "subject": "version 2"}))
    assert (await desk.of(DeploymentChanged))[-1].champion == 2
    assert "version 1 before it raised an alert on latency too" in (await desk.of(AuditRecorded))[-1].reason
    await desk.tell("alerts", slow.model_copy(update={"alert_id": "e", "subject": "version 2"}))
    assert (await desk.of(DeploymentChanged))[-1].champion == 1
    assert (await desk.shelf.verify()).intact


async def test_tombstones_and_others_events_decide_nothing(desk: Desk) -> None:
    """Compaction's leftovers would be taken for poison."""
    await applied(desk)
    before = await desk.published()
    assert await desk.tell("revision-trained", None) == []
    assert await desk.tell("evaluations", an_alert("x")) == []
    assert await desk.published() == before


async def test_deployments_can_be_asked_for_as_of(desk: Desk) -> None:
    """An auditor could not tell who answered on a given day."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    everything = await desk.shelf.deployments("rain", None, 10)
    assert [d.sequence for d in everything] == [2, 1]
    assert await desk.shelf.deployments("rain", NOON, 1) == everything[:1]
    assert await desk.shelf.deployments("rain", NOON.replace(hour=11), 10) == []


async def test_the_audit_log_names_the_offset_at_which_a_spec_took_effect(desk: Desk) -> None:
    """An auditor could not tell by which limits an event of last year was judged."""
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec())))
    effect = SpecTookEffect(
        model="rain",
        spec_revision=1,
        topic="prediction-events",
        partition=2,
        from_offset=1204,
        spec=a_spec(),
        time=NOON,
    )
    moved = effect.model_copy(update={"from_offset": 1300})
    assert await desk.tell("spec-effects", effect, moved, effect.model_copy(update={"partition": 3})) == []
    entries = [entry for entry in await desk.of(AuditRecorded) if entry.action == "spec-took-effect"]
    assert [str(entry.evidence[0].derived_from) for entry in entries] == [
        "prediction-events[2]@1204..1204",
        "prediction-events[3]@1204..1204",
    ]
    assert entries[0].reason == "revision 1 of the spec of rain is in force on prediction-events[2] from offset 1204"


async def test_versions_are_found_by_a_record_that_they_learned_from(desk: Desk) -> None:
    """Nobody could say which versions saw a person's data."""
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec())))
    elsewhere = LogRanges.of(LogRange(topic="labelled-examples", partition=2, from_offset=10, through_offset=19))
    other = a_candidate("b")
    other = other.model_copy(update={"lineage": other.lineage.model_copy(update={"trained_on": elsewhere})})
    await desk.tell("candidate-trained", a_candidate("a"), other, a_candidate("c"))
    shelf = desk.shelf

    async def found(**wanted: Any) -> list[int]:
        return [version.version for version in await shelf.versions("rain", Which(**wanted))]

    assert await found() == [3, 2, 1]
    assert (await found(before=3), await found(limit=1), await found(before=1)) == ([2, 1], [3], [])
    for offset, expected in ((9, []), (10, [2]), (19, [2]), (20, [])):
        assert await found(saw=Trigger(topic="labelled-examples", partition=2, offset=offset)) == expected
    assert await found(saw=Trigger(topic="labels", partition=2, offset=12)) == []
    assert (await shelf.knows("rain"), await shelf.knows("snow")) == (True, False)


async def test_versions_are_found_as_they_stood_at_a_moment(desk: Desk) -> None:
    """History would name the stages of today."""
    await applied(desk)
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    desk.clock.advance(3600)
    await desk.tell("candidate-trained", a_candidate("c"))
    await desk.tell("registry-commands", a_command(PromoteVersion(version=2), command_id="p", reason="x"))

    async def stood(minutes: int, **wanted: Any) -> list[tuple[int, str]]:
        which = Which(as_of=NOON + timedelta(minutes=minutes), **wanted)
        return [(each.version, each.stage) for each in await desk.shelf.versions("rain", which)]

    assert await stood(-1) == []
    assert await stood(0) == await stood(59) == [(2, "shadow"), (1, "champion")]
    assert await stood(60) == [(3, "shadow"), (2, "champion"), (1, "retired")]
    assert await stood(60, before=3, limit=1) == [(2, "champion")]


async def test_comparisons_of_two_versions_are_found(desk: Desk) -> None:
    """Two versions side by side would not show what was found on the same examples."""
    await desk.tell("registry-commands", a_command(ApplySpec(spec=a_spec())))
    await desk.tell("candidate-trained", a_candidate("a"), a_candidate("b"))
    await desk.tell("evaluations", a_comparison(2, 1, "better", evaluation_id="e"))
    for pair in ((1, 2), (2, 1)):
        assert [each.evaluation_id for each in await desk.shelf.compared("rain", *pair)] == ["e"]
    assert await desk.shelf.compared("rain", 1, 3) == []
