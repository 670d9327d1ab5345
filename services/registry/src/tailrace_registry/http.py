"""The registry's HTTP API, for people and tools: what can be read, and it has these routes and no others.

Versions stand in `version_routes`. Everything is changed by commands on the topic `registry-commands`, so that every change has one way in and one audit
trail; those that come over HTTP (`command_routes`) go there too. An error is `{"error": "one sentence"}` with its status.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel
from starlette.exceptions import HTTPException

from tailrace_contracts.aliases import aliases_of
from tailrace_contracts.events import (
    AuditRecorded,
    CanaryArm,
    DeploymentChanged,
    Event,
    Mute,
    SpecApplied,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.asking import ERRORS, Limit, ModelName, check_known, missing
from tailrace_registry.command_routes import Desk, command_routes
from tailrace_registry.domain.model import Model, arms_of
from tailrace_registry.ports import Shelf
from tailrace_registry.version_routes import version_routes
from tailrace_runtime.errors import RetryLater


class ModelLine(BaseModel):
    """One model in the list: who answers now."""

    model: str
    owner: str
    description: str
    spec_revision: int
    champion: int | None
    canary: CanaryArm | None
    shadows: tuple[int, ...]
    versions: int


class Models(BaseModel):
    """Every model."""

    models: list[ModelLine]


class ModelPage(ModelLine):
    """One model whole: its spec as it stands, its earlier specs, and its present deployment with the evidence."""

    spec: ModelSpec
    spec_history: list[SpecApplied]
    deployment: DeploymentChanged | None
    aliases: dict[str, int]
    """Every name that means a version now."""


class Deployments(BaseModel):
    """Deployments, newest first. With `as_of`, the first one was in force at that moment."""

    model: str
    deployments: list[DeploymentChanged]


class Mutes(BaseModel):
    """Alerts that are muted. Those that have ended stand here until the next change; compare `until`."""

    model: str
    sequence: int
    mutes: tuple[Mute, ...]


class EvidenceLine(BaseModel):
    """An event that decisions rest on: a comparison that moved a version, an alert, the end of a training."""

    kind: str
    event_id: str
    said_at: AwareDatetime
    event: dict[str, object]


class EvidenceList(BaseModel):
    """Evidence, newest first."""

    model: str
    evidence: list[EvidenceLine]


class AuditPage(BaseModel):
    """Audit entries of a model, oldest first. `after` of the next page is the last sequence of this one."""

    model: str
    entries: list[AuditRecorded]


class ChainCheck(BaseModel):
    """Whether the audit chain, over all models, is whole from its first entry to its last."""

    intact: bool
    entries: int
    head_sequence: int
    head_sha256: str
    broken_at: int | None
    reason: str


def _line(model: Model) -> dict[str, object]:
    arms = arms_of(model)
    return {
        "model": model.name,
        "owner": model.spec.owner,
        "description": model.spec.description,
        "spec_revision": arms.spec_revision,
        "champion": arms.champion,
        "canary": arms.canary,
        "shadows": arms.shadows,
        "versions": model.newest,
    }


def _document(event: Event) -> dict[str, object]:
    return event.model_dump(mode="json")


async def _find(shelf: Shelf, name: str) -> Model:
    model = await shelf.model(name)
    return model if model is not None else missing(f"there is no model {name}")


def model_routes(shelf: Shelf) -> APIRouter:
    """What is so now."""
    api = APIRouter(prefix="/v1", responses=ERRORS)

    @api.get("/models")
    async def models() -> Models:
        """Every model, by name."""
        return Models(models=[ModelLine.model_validate(_line(model)) for model in await shelf.models()])

    @api.get("/models/{model}")
    async def one_model(model: ModelName) -> ModelPage:
        """One model with its spec and its deployment."""
        found = await _find(shelf, model)
        history = await shelf.specs(model)
        page = {"spec": found.spec, "spec_history": history, "deployment": found.deployment}
        page["aliases"] = aliases_of(found.deployment, found.newest)
        return ModelPage.model_validate({**_line(found), **page})

    @api.get("/models/{model}/mutes")
    async def mutes(model: ModelName) -> Mutes:
        """Which alerts are muted, by whom, why, and until when."""
        muting = (await _find(shelf, model)).muting
        return Mutes(model=model, sequence=muting.sequence if muting else 0, mutes=muting.mutes if muting else ())

    return api


def history_routes(shelf: Shelf) -> APIRouter:
    """What was so, and why: deployments, evidence and the audit chain."""
    api = APIRouter(prefix="/v1", responses=ERRORS)

    @api.get("/models/{model}/deployments")
    async def deployments(model: ModelName, as_of: AwareDatetime | None = None, limit: Limit = 100) -> Deployments:
        """Who answered when, and why; newest first."""
        await check_known(shelf, model)
        return Deployments(model=model, deployments=await shelf.deployments(model, as_of, limit))

    @api.get("/models/{model}/evidence")
    async def evidence(model: ModelName, limit: Limit = 100) -> EvidenceList:
        """What decisions rested on, newest first."""
        await check_known(shelf, model)
        lines = [
            EvidenceLine(kind=each.kind, event_id=each.event_id, said_at=each.said_at, event=_document(each.event))
            for each in await shelf.evidence(model, limit)
        ]
        return EvidenceList(model=model, evidence=lines)

    @api.get("/models/{model}/audit")
    async def audit(model: ModelName, after: Annotated[int, Query(ge=0)] = 0, limit: Limit = 100) -> AuditPage:
        """What was asked, decided and refused, oldest first."""
        entries = await shelf.audit(model, None, after, limit)
        if not entries:
            await check_known(shelf, model)
        return AuditPage(model=model, entries=entries)

    @api.get("/audit/verify")
    async def verify() -> ChainCheck:
        """Check the audit chain of all models."""
        check = await shelf.verify()
        return ChainCheck(
            intact=check.intact,
            entries=check.entries,
            head_sequence=check.head.sequence,
            head_sha256=check.head.sha256,
            broken_at=check.broken_at,
            reason=check.reason,
        )

    return api


async def _refused(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": str(error.detail)}, status_code=error.status_code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{where}: {first['msg']}"}, status_code=422)


async def _away(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"{error}; try again"}, status_code=503, headers={"retry-after": "1"})


def _described(app: FastAPI) -> dict[str, Any]:
    """The description, with the token that commands need."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        parts = app.openapi_schema.setdefault("components", {})
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return app.openapi_schema


def create_api(shelf: Shelf, desk: Desk) -> FastAPI:
    """The application: the routes of this module, errors as sentences, and no pages that nobody asked for."""
    app = FastAPI(title="Tailrace registry", version="1", docs_url=None, redoc_url=None)
    app.include_router(model_routes(shelf))
    app.include_router(version_routes(shelf))
    app.include_router(history_routes(shelf))
    app.include_router(command_routes(shelf, desk))
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI's documentation says to
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RetryLater, _away)
    return app
