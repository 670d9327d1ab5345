"""A PostgreSQL for tests: a fresh database for each, on whatever server the session has."""

import asyncio
import uuid
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

T = TypeVar("T")


class Postgres:
    """A running PostgreSQL; `admin_url` is a superuser's connection URL."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url

    @property
    def admin_url(self) -> str:
        """The superuser's connection URL."""
        return self._admin_url

    def create_database(self) -> str:
        """Creates an empty database with a name of its own; returns its URL, for the same superuser."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        outside_the_loop(self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0'))
        return with_database(self.admin_url, name)

    def drop_database(self, url: str) -> None:
        """Drops a database and whatever connections are still open to it."""
        outside_the_loop(self._execute(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)'))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def with_database(url: str, name: str) -> str:
    """The same URL with another database.

    >>> with_database("postgresql://a:b@localhost:5432/postgres?sslmode=disable", "test_1")
    'postgresql://a:b@localhost:5432/test_1?sslmode=disable'
    """
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def outside_the_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a thread with a loop of its own, so that the test's loop is neither needed nor touched."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
