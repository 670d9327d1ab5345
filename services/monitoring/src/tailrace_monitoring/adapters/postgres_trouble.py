"""When the database, and not the question, is the trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tailrace_runtime.errors import RetryLater

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)
"""What asyncpg raises then."""


@asynccontextmanager
async def patiently() -> AsyncIterator[None]:
    """Ask for the batch again while the database is away; whatever was half done is undone by the database."""
    try:
        yield
    except AWAY as error:
        raise RetryLater(f"monitoring's database does not answer: {error!r}") from error
