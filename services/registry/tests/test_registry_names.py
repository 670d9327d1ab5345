"""Names for versions: those that follow from the deployment, and those that people give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from tailrace_contracts.events import (
    ApplySpec,
    AuditRecorded,
    DeploymentChanged,
    Event,
    PromoteVersion,
    SetAlias,
    UnsetAlias,
)
from tailrace_registry.app import batch_handlers
from tailrace_registry.domain.naming import MAX_ALIASES
from tailrace_registry.http import create_api
from tailrace_registry.main import TOPICS_IN
from tailrace_registry.testing import (
    NOON,
    FakeCommands,
    FixedKeyring,
    MemoryBooks,
    a_candidate,
    a_command,
    a_comparison,
    a_desk,
    a_spec,
)
from tailrace_runtime.testing import FixedClock, record

TOKEN = "t" * 40


class World:
    """Books, a clock, and the HTTP API."""

    def __init__(self) -> None:
        self.books, self.clock, self.commands = MemoryBooks(), FixedClock(NOON), FakeCommands()
        api = create_api(self.books, a_desk(FixedKeyring(ada=TOKEN), self.commands))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://registry/v1/models/rain")
        self._handlers = batch_handlers(TOPICS_IN, self.books, self.clock)
        self._offset = 0

    async def told(self, topic: str, event: Event) -> None:
        """The registry reads this event, an hour after the one before."""
        await self._handlers[topic]([record(event, topic, offset=self._offset)])
        self._offset += 1
        self.clock.advance(3600)

    async def named(self, name: str, version: int, reason: str = "reviewed") -> AuditRecorded:
        """The answer to somebody who gives a name."""
        command = a_command(SetAlias(alias=name, version=version), command_id=f"n-{self._offset}", reason=reason)
        await self.told("registry-commands", command)
        return self.answer()

    def answer(self) -> AuditRecorded:
        """The newest audit entry."""
        return [each for each in self.books.published if isinstance(each, AuditRecorded)][-1]

    def deployment(self) -> DeploymentChanged:
        """The newest deployment."""
        return [each for each in self.books.published if isinstance(each, DeploymentChanged)][-1]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Version 1 is champion, 2 in canary, 3 in shadow."""
    world = World()
    await world.told("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await world.told("candidate-trained", a_candidate("a"))
    await world.told("candidate-trained", a_candidate("b"))
    await world.told("evaluations", a_comparison(2, 1, "better"))
    await world.told("candidate-trained", a_candidate("c"))
    async with world.client:
        yield world


async def test_an_arm_is_a_name_for_its_version(world: World) -> None:
    """Whoever wants to see the champion would have to look its number up first."""
    for name, number in {"champion": 1, "canary": 2, "shadow": 3, "latest": 3, "2": 2}.items():
        page = (await world.client.get(f"/versions/{name}")).json()
        assert page["version"]["version"] == number
        assert name.isdecimal() or name in page["called"]
    compared = (await world.client.get("/versions/champion/compare/canary")).json()
    assert (compared["a"]["version"], compared["b"]["version"]) == (1, 2)
    assert (await world.client.get("http://registry/v1/models/rain")).json()["aliases"] == {
        "champion": 1,
        "canary": 2,
        "shadow": 3,
        "latest": 3,
    }


async def test_a_name_that_means_nothing_is_404_and_says_which_do(world: World) -> None:
    """A mistyped name would be answered with some version, or with a traceback."""
    answer = await world.client.get("/versions/standby")
    assert answer.status_code == 404
    assert answer.json()["error"] == (
        "rain has no version that is called standby; its names are canary, champion, latest, shadow"
    )
    assert (await world.client.get("/versions/Champion")).status_code == 422


async def test_a_name_that_somebody_gives_is_announced_and_resolves(world: World) -> None:
    """A team could not say `approved` and mean one version, and nobody would know who said so."""
    answer = await world.named("approved", 2)
    assert (answer.outcome, answer.action, answer.subject, answer.actor) == (
        "done",
        "set-alias",
        "alias approved",
        "ada",
    )
    assert answer.evidence[0].summary == "ada asked for set-alias: reviewed"
    assert world.deployment().aliases == {"approved": 2}
    assert (await world.client.get("/versions/approved")).json()["version"]["version"] == 2
    assert "which was version 2" in (await world.named("approved", 1)).reason
    sequence = world.deployment().sequence
    assert "already" in (await world.named("approved", 1)).reason
    assert world.deployment().sequence == sequence
    unset = a_command(UnsetAlias(alias="approved"), command_id="u", reason="superseded")
    await world.told("registry-commands", unset)
    assert world.deployment().aliases == {}
    assert (await world.client.get("/versions/approved")).status_code == 404


async def test_a_name_stays_through_a_promotion(world: World) -> None:
    """A name would be lost with the next deployment."""
    await world.named("approved", 2)
    await world.told("registry-commands", a_command(PromoteVersion(version=3), command_id="p", reason="x"))
    assert (world.deployment().champion, world.deployment().aliases) == (3, {"approved": 2})


@pytest.mark.parametrize(
    ("name", "version", "reason", "why"),
    [
        ("champion", 2, "x", "champion follows from the deployment and cannot be set"),
        ("approved", 9, "x", "rain has no version 9; its versions are 1 to 3"),
        ("approved", 2, " ", "the command set-alias needs a reason"),
    ],
)
async def test_a_name_that_cannot_be_given_is_refused(
    world: World, name: str, version: int, reason: str, why: str
) -> None:
    """A name could hide the champion, mean a version that is not there, or come from nowhere."""
    answer = await world.named(name, version, reason)
    assert answer.outcome == "refused"
    assert why in answer.reason


async def test_names_are_bounded_and_only_a_given_one_can_be_taken_away(world: World) -> None:
    """Deployments would grow without end, or a typing error pass for done."""
    for number in range(MAX_ALIASES):
        assert (await world.named(f"n{number}", 1)).outcome == "done"
    assert "names already" in (await world.named("one-more", 1)).reason
    await world.told("registry-commands", a_command(UnsetAlias(alias="none"), command_id="u", reason="x"))
    assert world.answer().reason == "rain has no name none that somebody set"


async def test_names_are_given_over_http(world: World) -> None:
    """A pipeline could promote and not name."""
    for body in (
        {"command": "set-alias", "alias": "approved", "version": 2, "reason": "x"},
        {"command": "unset-alias", "alias": "approved", "reason": "x"},
    ):
        answer = await world.client.post("/commands", json=body, headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 202
    assert [each.command.command for each in world.commands.issued] == ["set-alias", "unset-alias"]


async def test_versions_can_be_asked_for_as_of_a_moment(world: World) -> None:
    """An auditor could see how a version stands today, and not how it stood when it decided about somebody."""
    await world.told("registry-commands", a_command(PromoteVersion(version=2), command_id="p", reason="x"))

    async def then(hours: float, path: str = "/versions") -> httpx.Response:
        moment = NOON + timedelta(hours=hours)
        return await world.client.get(path, params={"as_of": moment.isoformat()})

    async def stages(hours: float) -> dict[int, str]:
        return {line["version"]: line["stage"] for line in (await then(hours)).json()["versions"]}

    assert await stages(0.5) == {}
    assert await stages(2) == {1: "champion", 2: "shadow"}
    assert await stages(3.5) == {1: "champion", 2: "canary"}
    assert await stages(5) == {1: "retired", 2: "champion", 3: "shadow"}
    page = (await then(2.5, "/versions/2")).json()
    assert (page["version"]["stage"], [entry["action"] for entry in page["history"]]) == (
        "shadow",
        ["registered", "shadow"],
    )
    assert (await then(2.5, "/versions/champion")).json()["version"]["version"] == 1
    assert (await then(5, "/versions/champion")).json()["version"]["version"] == 2
    assert (await then(2.5, "/versions/3")).status_code == 404
    assert (await then(2.5, "/versions/latest")).json()["version"]["version"] == 2
