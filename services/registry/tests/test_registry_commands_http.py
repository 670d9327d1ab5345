"""Commands over HTTP: who may, what is taken, and what somebody gets who means harm."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tailrace_contracts.events import ApplySpec, PromoteVersion, RollbackModel
from tailrace_registry.adapters.tokens import TokenFile
from tailrace_registry.app import batch_handlers
from tailrace_registry.command_routes import MAX_BODY_BYTES
from tailrace_registry.http import create_api
from tailrace_registry.main import TOPICS_IN
from tailrace_registry.testing import (
    NOON,
    FakeCommands,
    FixedKeyring,
    MemoryBooks,
    a_candidate,
    a_command,
    a_desk,
    a_spec,
)
from tailrace_runtime.errors import ConfigurationFault
from tailrace_runtime.testing import FixedClock, record

ADA, BOB = "a" * 40, "b" * 40
PATH = "/v1/models/rain/commands"
GOOD = {"command": "promote", "version": 2, "reason": "it is better by hand"}
AS_ADA = {"authorization": f"Bearer {ADA}"}


class World:
    """Books, what was issued, and a client."""

    def __init__(self, keyring: FixedKeyring | None) -> None:
        self.books = MemoryBooks()
        self.commands = FakeCommands()
        api = create_api(self.books, a_desk(keyring, self.commands))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://registry")
        self._handlers = batch_handlers(TOPICS_IN, self.books, FixedClock(NOON))
        self._offset = 0

    async def told(self, topic: str, event: Any) -> None:
        """The registry reads this event."""
        await self._handlers[topic]([record(event, topic, offset=self._offset)])
        self._offset += 1

    async def obeyed(self) -> None:
        """The registry reads what was issued."""
        for issued in self.commands.issued:
            await self.told("registry-commands", issued)

    async def post(self, body: Any = GOOD, headers: dict[str, str] = AS_ADA, path: str = PATH) -> httpx.Response:
        """A command."""
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        return await self.client.post(path, content=content, headers={"content-type": "application/json"} | headers)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A model with a champion and a shadow, and two people who may command."""
    made = World(FixedKeyring(ada=ADA, bob=BOB))
    await made.told("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply"))
    await made.told("candidate-trained", a_candidate("a"))
    await made.told("candidate-trained", a_candidate("b"))
    async with made.client:
        yield made


async def test_a_command_is_taken_put_on_its_topic_and_answered(world: World) -> None:
    """A pipeline could not promote a version, or nobody would know afterwards who did it and why."""
    taken = await world.post()
    assert taken.status_code == 202
    (issued,) = world.commands.issued
    assert (issued.model, issued.command, issued.issued_by) == ("rain", PromoteVersion(version=2), "ada")
    assert issued.reason == "it is better by hand"
    outcome = taken.json()["outcome"]
    assert (await world.client.get(outcome)).status_code == 404
    await world.obeyed()
    answer = (await world.client.get(outcome)).json()
    assert (answer["outcome"], answer["command"], answer["subject"], answer["issued_by"]) == (
        "done",
        "promote",
        "version 2",
        "ada",
    )
    assert answer["command_id"] == taken.json()["command_id"]
    assert (await world.client.get("/v1/models/rain")).json()["champion"] == 2


@pytest.mark.parametrize("command", ["rollback", "pause", "resume", "train"])
async def test_every_command_without_a_version_is_taken(world: World, command: str) -> None:
    """A person could pause a model by the command line only."""
    assert (await world.post({"command": command, "reason": "because"})).status_code == 202
    assert world.commands.issued[0].command.command == command


async def test_a_refusal_is_read_at_the_same_place(world: World) -> None:
    """A client would wait for ever for a command that the registry has refused."""
    taken = await world.post({"command": "rollback", "reason": "back"})
    await world.obeyed()
    answer = (await world.client.get(taken.json()["outcome"])).json()
    assert answer["outcome"] == "refused"
    assert "there was no champion of rain before version 1" in answer["reason"]


async def test_an_own_id_makes_a_repetition_harmless(world: World) -> None:
    """A client that retries after a timeout would roll back twice."""
    asked = {**GOOD, "id": "deploy-17"}
    first, second = await world.post(asked), await world.post(asked)
    assert first.json() == second.json()
    await world.obeyed()
    promoted = [entry for entry in await world.books.audit("rain", None, 0, 1000) if entry.action == "promote"]
    assert len(promoted) == 1
    assert (await world.post(asked)).status_code == 202
    other = await world.post({"command": "reject", "version": 2, "reason": "no", "id": "deploy-17"})
    assert other.status_code == 409
    assert "this id was used for promote of version 2" in other.json()["error"]


async def test_nobody_can_take_anothers_id(world: World) -> None:
    """Somebody could answer a command of somebody else's before it is given."""
    one = await world.post({**GOOD, "id": "x"})
    other = await world.post({**GOOD, "id": "x"}, {"authorization": f"Bearer {BOB}"})
    assert one.json()["command_id"] != other.json()["command_id"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {ADA[:-1]}"},
        {"authorization": f"Bearer {ADA}x"},
        {"authorization": f"Basic {ADA}"},
        {"authorization": ADA},
        {"authorization": "Bearer " + "x" * 10_000},
        {"authorization": "Bearer \xe4\xf6\xfc"},
        {"authorization": f"Bearer {ADA},{BOB}"},
        {"x-authorization": f"Bearer {ADA}"},
    ],
)
async def test_without_a_known_token_nothing_is_taken(world: World, headers: dict[str, str]) -> None:
    """Whoever reaches the port could change what answers users."""
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await world.client.post(PATH, json=GOOD, headers=list(encoded.items()))  # type: ignore[arg-type]  # bytes
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert world.commands.issued == []
    assert ADA not in answer.text


async def test_without_tokens_nobody_may() -> None:
    """A deployment that nobody thought about would take commands from anybody."""
    closed = World(None)
    async with closed.client:
        answer = await closed.post()
    assert answer.status_code == 403
    assert "TAILRACE_COMMANDS_TOKEN_FILE" in answer.json()["error"]
    assert closed.commands.issued == []


DEEP = "[" * 3_000
BAD: list[tuple[Any, str]] = [
    (b"", "the body"),
    (b"\xff\xfe", "the body"),
    (b"null", "the body"),
    (b"[]", "the body"),
    (b'"promote"', "the body"),
    (DEEP, "the body"),
    (b'{"command": "promote", "version": 2, "reason": "x"', "the body"),
    (b'{"command": "promote", "version": NaN, "reason": "x"}', "version"),
    ({}, "command: expected one of promote"),
    ({"command": "apply-spec", "reason": "x"}, "command: expected one of promote"),
    ({"command": ["promote"], "reason": "x"}, "command: expected one of promote"),
    ({"command": "promote", "reason": "x"}, "version: Field required"),
    ({"command": "promote", "version": "2", "reason": "x"}, "version"),
    ({"command": "promote", "version": True, "reason": "x"}, "version"),
    ({"command": "promote", "version": 0, "reason": "x"}, "version"),
    ({"command": "promote", "version": 2**31, "reason": "x"}, "version"),
    ({"command": "promote", "version": 10**30, "reason": "x"}, "version"),
    ({"command": "rollback", "version": 2, "reason": "x"}, "version: Extra inputs"),
    ({"command": "rollback"}, "reason: Field required"),
    ({"command": "rollback", "reason": ""}, "reason"),
    ({"command": "rollback", "reason": "   "}, "reason"),
    ({"command": "rollback", "reason": None}, "reason"),
    ({"command": "rollback", "reason": "x" * 501}, "reason"),
    ({"command": "rollback", "reason": "a\x00b"}, "reason"),
    ({"command": "rollback", "reason": "a\nforged entry"}, "reason"),
    (b'{"command": "rollback", "reason": "\\ud800"}', "the body"),
    ({"command": "rollback", "reason": "x", "issued_by": "root"}, "issued_by: Extra inputs"),
    ({"command": "rollback", "reason": "x", "id": "a b"}, "id"),
    ({"command": "rollback", "reason": "x", "id": "x" * 65}, "id"),
    ({"command": "rollback", "reason": "x", "id": "../../etc"}, "id"),
    ({"command": "rollback", "reason": "x", "id": ""}, "id"),
]


@pytest.mark.parametrize(("body", "words"), BAD)
async def test_a_bad_command_is_one_sentence(world: World, body: Any, words: str) -> None:
    """A mistake, or an attack, would end in a traceback, a forged entry in the audit log, or a wrong command."""
    answer = await world.post(body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error.startswith(words)
    assert len(error) < 400
    assert "pydantic" not in error.lower()
    assert world.commands.issued == []


async def test_a_body_is_read_no_further_than_its_limit(world: World) -> None:
    """A client could fill the memory of the registry."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1_000
            yield b" " * 1_000

    answer = await world.client.post(PATH, content=endless(), headers=AS_ADA)
    assert answer.status_code == 413
    assert read <= MAX_BODY_BYTES + 1_000


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-type": "application/xml"}, {"content-encoding": "gzip"}]
)
async def test_only_plain_json_is_read(world: World, headers: dict[str, str]) -> None:
    """A small body could unfold into a large one, or a web form of another site could give a command."""
    assert (await world.post(headers=AS_ADA | headers)).status_code == 415


@pytest.mark.parametrize(
    "path", ["/v1/models/sun/commands", "/v1/models/..%2F..%2Fetc/commands", "/v1/models/%00/commands"]
)
async def test_an_unknown_model_gets_no_command(world: World, path: str) -> None:
    """Every mistyped name would get entries in an audit log that is kept for ever."""
    assert (await world.post(path=path)).status_code == 404
    assert world.commands.issued == []


async def test_while_the_broker_is_away_nothing_is_promised(world: World) -> None:
    """A client would be told that its command is on the way, and it never was."""
    world.commands.away = True
    answer = await world.post()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_no_other_method_commands(world: World, method: str) -> None:
    """A link in a mail could give a command."""
    assert (await world.client.request(method, PATH, headers=AS_ADA)).status_code == 405


async def test_an_outcome_is_told_of_its_own_model_only(world: World) -> None:
    """The answer to one model's command would stand under another's name."""
    await world.told("registry-commands", a_command(RollbackModel(), command_id="mine"))
    assert (await world.client.get(f"{PATH}/mine")).status_code == 200
    assert (await world.client.get("/v1/models/sun/commands/mine")).status_code == 404
    assert (await world.client.get(f"{PATH}/unheard-of")).status_code == 404


# ---------------------------------------------------------------- tokens


def test_tokens_come_from_a_file_and_change_with_it(tmp_path: Path) -> None:
    """A token that leaked could not be taken back without stopping the registry."""
    file = tmp_path / "tokens"
    file.write_text(f"# who may\n\nada {ADA}  # until June\nci-cd {BOB}\n")
    keyring = TokenFile(file)
    assert [keyring.name_of(token) for token in (ADA, BOB, "c" * 40, "")] == ["ada", "ci-cd", None, None]
    file.write_text(f"bob {'c' * 33}\n")
    assert [keyring.name_of(token) for token in (ADA, "c" * 33)] == [None, "bob"]
    file.unlink()
    assert keyring.name_of("c" * 33) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"ada {ADA} more\n", "line 1 is not a name of its own and a token"),
        (f"{ADA}\n", "line 1 is not a name of its own and a token"),
        (f"ada {ADA}\nada {BOB}\n", "line 2 is not a name of its own and a token"),
        (f"a/../b {ADA}\n", "line 1 is not a name of its own and a token"),
        ("ada short\n", "the token of ada has 5 characters, expected at least 32"),
    ],
)
def test_a_file_that_cannot_be_meant_stops_the_start(tmp_path: Path, text: str, words: str) -> None:
    """A typing error would silently lock people out, or a token that can be guessed would be taken."""
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigurationFault, match="TAILRACE_COMMANDS_TOKEN_FILE") as fault:
        TokenFile(file)
    assert words in str(fault.value)
    assert "short" not in str(fault.value)
    assert ADA not in str(fault.value)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """A wrong path would look like a deployment that takes commands."""
    with pytest.raises(ConfigurationFault, match="cannot be read"):
        TokenFile(tmp_path / "none")
