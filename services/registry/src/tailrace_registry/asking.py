"""What the routes of the HTTP API share: parameters, errors, and how something is found missing."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from fastapi import Path, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tailrace_registry.ports import Shelf

ModelName = Annotated[str, Path(description="the model's name")]
Limit = Annotated[int, Query(ge=1, le=1000, description="at most this many")]


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "there is no such model or version"},
    422: {"model": Problem, "description": "a part of the path or the query is not what it should be"},
    503: {"model": Problem, "description": "the database is away"},
}


def missing(reason: str) -> NoReturn:
    """Raises 404."""
    raise HTTPException(404, reason)


async def check_known(shelf: Shelf, name: str) -> None:
    """Raises 404 for a model without a spec."""
    if not await shelf.knows(name):
        missing(f"there is no model {name}")
