"""Commands over HTTP: nothing but another way onto the topic `registry-commands`.

Nobody may give one unless the deployment names a file of tokens; then whoever has a token of it may, and the token's name
is who asked. What is taken is acknowledged by the broker and answered with 202: whether it was done or refused stands in
the audit chain, under the command's id, soon after. A client that names its own id may send a command again: it is done
once, because its id makes the same command id.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from fastapi import APIRouter, Path, Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tailrace_contracts.events import (
    Command,
    CommandIssued,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    SetAlias,
    TrainModel,
    UnsetAlias,
)
from tailrace_registry.asking import ModelName, Problem
from tailrace_registry.domain.commands import subject_of
from tailrace_registry.ports import CommandLog, Keyring, Shelf
from tailrace_runtime.clock import Clock
from tailrace_runtime.ids import new_id

MAX_BODY_BYTES = 8_192
MAX_TOKEN_CHARACTERS = 4_096
_JSON = "application/json"
_CLOSE = {"connection": "close"}

Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="why; recorded in the audit chain. No control characters",
    ),
]
ClientId = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="a name of the client's own for this command: sent again, it is done once",
    ),
]


def _whole(value: object) -> object:
    """JSON has one kind of number: 7.0 is the integer 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason
    id: ClientId | None = None


class VersionCommand(_Asked):
    """A command about one version."""

    command: Literal["promote", "reject"]
    version: Whole = Field(ge=1, le=2**31 - 1)


class ModelCommand(_Asked):
    """A command about the model."""

    command: Literal["rollback", "pause", "resume", "train"]


Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="a name for a version")]


class SetAliasCommand(_Asked):
    """A name for a version, from now on."""

    command: Literal["set-alias"]
    alias: Alias
    version: Whole = Field(ge=1, le=2**31 - 1)


class UnsetAliasCommand(_Asked):
    """A name is taken away."""

    command: Literal["unset-alias"]
    alias: Alias


AnyCommand = VersionCommand | ModelCommand | SetAliasCommand | UnsetAliasCommand
Asked = Annotated[AnyCommand, Field(discriminator="command")]
_ASKED: TypeAdapter[AnyCommand] = TypeAdapter(Asked)
_FORMS = (VersionCommand, ModelCommand, SetAliasCommand, UnsetAliasCommand)
_PLAIN: dict[str, type[RollbackModel | PauseRollout | ResumeRollout | TrainModel]] = {
    "rollback": RollbackModel,
    "pause": PauseRollout,
    "resume": ResumeRollout,
    "train": TrainModel,
}
_COMMANDS = ("promote", "reject", *_PLAIN, "set-alias", "unset-alias")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {_JSON: {"schema": {"oneOf": [m.model_json_schema() for m in _FORMS]}}},
    },
    "security": [{"token": []}],
}


class Desk(NamedTuple):
    """What taking commands needs. Without a keyring nobody may give one."""

    log: CommandLog
    clock: Clock
    keyring: Keyring | None = None


class CommandTaken(BaseModel):
    """The command is on its way. `outcome` is where its answer will be."""

    command_id: str
    outcome: str


class CommandOutcome(BaseModel):
    """What became of a command."""

    command_id: str
    model: str
    command: str
    subject: str
    issued_by: str
    outcome: Literal["done", "refused"]
    reason: str
    sequence: int
    time: AwareDatetime


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "the body was cut off",
        401: "there is no token, or it is nobody's",
        403: "this deployment takes no commands over HTTP",
        404: "there is no such model, or no such command yet",
        409: "the id was used for another command",
        413: "the body is too large",
        415: "the body is not JSON in UTF-8, or it is compressed",
        422: "the body is not a command, or a part of the path is not what it should be",
        503: "the broker or the database is away",
    }.items()
}


def command_routes(shelf: Shelf, desk: Desk) -> APIRouter:
    """Give a command, and see what became of it."""
    api = APIRouter(prefix="/v1", responses=ERRORS)

    @api.post("/models/{model}/commands", status_code=202, openapi_extra=_BODY)
    async def give(model: ModelName, request: Request) -> CommandTaken:
        """Promote, reject, roll back, pause, resume, train or name a version. Needs a token (`Authorization: Bearer …`) and a reason."""
        actor = _actor(desk.keyring, request)
        asked = _read(await _body(request))
        if not await shelf.knows(model):
            raise HTTPException(404, f"there is no model {_brief(model)}")
        issued = _issued(model, actor, asked, desk.clock.now())
        await _check_unused(shelf, issued)
        await desk.log.issue(issued)
        where = f"/v1/models/{model}/commands/{issued.command_id}"
        return CommandTaken(command_id=issued.command_id, outcome=where)

    @api.get("/models/{model}/commands/{command_id}")
    async def outcome(model: ModelName, command_id: Annotated[str, Path(max_length=128)]) -> CommandOutcome:
        """What became of a command, however it was given. Before it is answered, and for an unknown one: 404."""
        entry = await shelf.answer(command_id)
        if entry is None or entry.model != model:
            raise HTTPException(404, f"no command {_brief(command_id)} to {_brief(model)} has been answered")
        return CommandOutcome(
            command_id=command_id,
            model=model,
            command=entry.action,
            subject=entry.subject,
            issued_by=entry.actor,
            outcome=entry.outcome,
            reason=entry.reason,
            sequence=entry.sequence,
            time=entry.time,
        )

    return api


# ---------------------------------------------------------------- who asks


def _actor(keyring: Keyring | None, request: Request) -> str:
    """The name of the token. Raises 401 and 403; nothing of the body has been read then."""
    if keyring is None:
        raise HTTPException(
            403, "no command is taken over HTTP here: TAILRACE_COMMANDS_TOKEN_FILE names no file of tokens", _CLOSE
        )
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    name = keyring.name_of(token) if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN_CHARACTERS else None
    if name is None:
        raise HTTPException(
            401,
            "a command needs `Authorization: Bearer TOKEN` with a known token",
            {"www-authenticate": "Bearer", **_CLOSE},
        )
    return name


# ---------------------------------------------------------------- what is asked


async def _body(request: Request) -> bytes:
    """The body, read no further than its limit."""
    found = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if found != _JSON or coding != "identity":
        raise HTTPException(415, f"expected a body of {_JSON} that is not compressed", _CLOSE)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is over the limit of {MAX_BODY_BYTES:,} bytes", _CLOSE)
    except ClientDisconnect:
        raise HTTPException(400, "the client went away before the end of its body") from None
    return bytes(body)


def _read(body: bytes) -> AnyCommand:
    try:
        return _ASKED.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in _COMMANDS) or "the body"
        if first["type"].startswith("union_tag"):
            _unacceptable(f"command: expected one of {', '.join(_COMMANDS)}")
        _unacceptable(f"{where}: {first['msg'][:200]}")


def _unacceptable(sentence: str) -> NoReturn:
    raise HTTPException(422, sentence)


def _issued(model: str, actor: str, asked: AnyCommand, now: datetime) -> CommandIssued:
    command: Command
    match asked:
        case VersionCommand(command=name, version=version):
            command = (PromoteVersion if name == "promote" else RejectVersion)(version=version)
        case SetAliasCommand(alias=alias, version=version):
            command = SetAlias(alias=alias, version=version)
        case UnsetAliasCommand(alias=alias):
            command = UnsetAlias(alias=alias)
        case ModelCommand(command=plain):
            command = _PLAIN[plain]()
    identity = new_id() if asked.id is None else _digest(model, actor, asked.id)
    return CommandIssued(
        command_id=f"http-{identity}", model=model, command=command, issued_by=actor, reason=asked.reason, time=now
    )


def _digest(*parts: str) -> str:
    """One id for model, actor and the client's own: nobody's id can be taken by another."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


async def _check_unused(shelf: Shelf, issued: CommandIssued) -> None:
    """Refuse an id that was used for something else. Raises 409."""
    entry = await shelf.answer(issued.command_id)
    if entry is not None and (entry.action, entry.subject) != (issued.command.command, subject_of(issued)):
        raise HTTPException(
            409, f"this id was used for {entry.action} of {entry.subject}; give another command an id of its own"
        )


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
