"""Versions: listed, one of them whole, two side by side; by number or by name, now or as of a moment."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel

from tailrace_contracts.aliases import aliases_of, number_of, unknown_name
from tailrace_contracts.events import ArmsCompared, AuditRecorded, GateJudged, Stage, VersionChanged
from tailrace_contracts.ranges import LogRanges, Trigger
from tailrace_registry.asking import ERRORS, Limit, ModelName, check_known, missing
from tailrace_registry.ports import Shelf, Which

AsOf = Annotated[AwareDatetime | None, Query(description="as it was at this moment")]
Before = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="only versions numbered below this")]
Place = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z-]+\[\d{1,9}\]@\d{1,18}$",
        description="a record, as `topic[partition]@offset`: only versions that learned from it",
    ),
]
Named = Annotated[
    str,
    Path(
        pattern=r"^([1-9][0-9]{0,8}|[a-z][a-z0-9-]{0,62})$",
        description="a number, or a name: champion, canary, shadow, standby, latest, or one that somebody set",
    ),
]


class VersionLine(BaseModel):
    """One version in the list."""

    version: int
    stage: Stage
    learner: str
    continual: bool
    revision: int
    examples: int
    metrics: dict[str, float]
    gates: tuple[GateJudged, ...]
    time: AwareDatetime


class Versions(BaseModel):
    """A model's versions, newest first."""

    model: str
    versions: list[VersionLine]


class Compared(BaseModel):
    """Two versions side by side: what was found on the same examples, and in what they were made differently."""

    model: str
    a: VersionLine
    b: VersionLine
    metrics: dict[str, tuple[float | None, float | None]]
    parameters: dict[str, tuple[Any, Any]]
    """Only those that differ."""
    spec_revisions: tuple[int, int]
    code_versions: tuple[str, str]
    parents: tuple[int | None, int | None]
    only_a_saw: LogRanges
    only_b_saw: LogRanges
    comparisons: list[ArmsCompared]


class VersionPage(BaseModel):
    """One version whole: artefact, lineage, every move that it made with its evidence, and the alerts on it."""

    called: list[str]
    """The names that mean it."""
    version: VersionChanged
    history: list[AuditRecorded]


def _version_line(version: VersionChanged) -> VersionLine:
    return VersionLine.model_validate({**dict(version), "examples": version.lineage.examples})


async def names(shelf: Shelf, model: str, as_of: datetime | None) -> dict[str, int]:
    """Every name that means a version of the model now, or meant one then."""
    newest = await shelf.versions(model, Which(limit=1, as_of=as_of))
    deployments = await shelf.deployments(model, as_of, 1)
    return aliases_of(deployments[0] if deployments else None, newest[0].version if newest else 0)


async def _version(
    shelf: Shelf, model: str, named: str, known: dict[str, int], as_of: datetime | None = None
) -> VersionChanged:
    number = number_of(named, known)
    if number is None:
        missing(unknown_name(model, named, known))
    found = await shelf.versions(model, Which(before=number + 1, limit=1, as_of=as_of))
    return found[0] if found and found[0].version == number else missing(f"{model} has no version {number}")


def _trigger(place: str) -> Trigger:
    topic, partition, offset = re.split(r"[\[\]@]+", place)
    return Trigger(topic=topic, partition=int(partition), offset=int(offset))


def _side_by_side(a: VersionChanged, b: VersionChanged, comparisons: list[ArmsCompared]) -> Compared:
    one, other = a.lineage, b.lineage
    names = sorted(one.parameters.keys() | other.parameters.keys())
    pairs = {name: (one.parameters.get(name), other.parameters.get(name)) for name in names}
    return Compared(
        model=a.model,
        a=_version_line(a),
        b=_version_line(b),
        metrics={
            name: (a.metrics.get(name), b.metrics.get(name)) for name in sorted(a.metrics.keys() | b.metrics.keys())
        },
        parameters={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        spec_revisions=(one.spec_revision, other.spec_revision),
        code_versions=(one.code_version, other.code_version),
        parents=(one.parent_version, other.parent_version),
        only_a_saw=one.trained_on - other.trained_on,
        only_b_saw=other.trained_on - one.trained_on,
        comparisons=comparisons,
    )


def version_routes(shelf: Shelf) -> APIRouter:
    """What there is to ask about versions."""
    api = APIRouter(prefix="/v1", responses=ERRORS)

    @api.get("/models/{model}/versions")
    async def versions(
        model: ModelName, before: Before = None, limit: Limit = 100, saw: Place = None, as_of: AsOf = None
    ) -> Versions:
        """A model's versions, newest first: of those that learned from one record, or as they stood at a moment."""
        await check_known(shelf, model)
        found = await shelf.versions(model, Which(before, limit, _trigger(saw) if saw else None, as_of))
        return Versions(model=model, versions=[_version_line(version) for version in found])

    @api.get("/models/{model}/versions/{version}")
    async def one_version(model: ModelName, version: Named, as_of: AsOf = None) -> VersionPage:
        """One version with its lineage and its moves."""
        await check_known(shelf, model)
        known = await names(shelf, model, as_of)
        found = await _version(shelf, model, version, known, as_of)
        entries = await shelf.audit(model, f"version {found.version}", 0, 1000)
        history = [entry for entry in entries if as_of is None or entry.time <= as_of]
        called = sorted(name for name, number in known.items() if number == found.version)
        return VersionPage(version=found, called=called, history=history)

    @api.get("/models/{model}/versions/{version}/compare/{other}")
    async def compare(model: ModelName, version: Named, other: Named) -> Compared:
        """Two versions side by side."""
        await check_known(shelf, model)
        known = await names(shelf, model, None)
        a, b = await _version(shelf, model, version, known), await _version(shelf, model, other, known)
        return _side_by_side(a, b, await shelf.compared(model, a.version, b.version))

    return api
