"""PostgreSQL: a pool that waits for its server, migrations, and one schema and role for each service.

`provision` is the administrator's act: a service's role owns one schema and has no rights on any other. `migrate` is
the service's own, at its start: numbered SQL files, each in a transaction, all under an advisory lock, so that two
processes that start together do not run one twice. A database that goes away while a handler works becomes
`RetryLater` (`Database.transaction`): the batch waits until it is back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import structlog
from pydantic import SecretStr

from tailrace_runtime.errors import ConfigurationFault, MigrationChanged, RetryLater
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

Pool = Any
Connection = Any

_RUNTIME = "tailrace_runtime"
_MIGRATION_LOCK = 7_214_001
_PROVISION_LOCK = 7_214_002
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says when its server dies between two of its messages
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)


async def connect(url: SecretStr | str, *, part: str = "database") -> Pool:
    """A pool of connections. Waits for a server that is not there yet, and says so."""
    dsn = url.get_secret_value() if isinstance(url, SecretStr) else url
    where = urlsplit(dsn)
    reason = f"PostgreSQL at {where.hostname}:{where.port or 5432} does not answer (TAILRACE_DATABASE_URL)"

    async def attempt() -> Pool:
        return await asyncpg.create_pool(dsn, min_size=1, max_size=8, timeout=5, command_timeout=60)

    return await until_available(part, reason, attempt, (OSError, TimeoutError, asyncpg.PostgresError))


class Database:
    """A service's database as a resource: connects and migrates at start, then hands out transactions."""

    def __init__(self, url: SecretStr | str | None, package: str) -> None:
        if url is None:
            raise ConfigurationFault("TAILRACE_DATABASE_URL is not set: a PostgreSQL URL was expected")
        self._url = url
        self._package = package
        self._pool: Pool = None

    @property
    def pool(self) -> Pool:
        """The pool, once started."""
        if self._pool is None:
            raise RetryLater("the database is not connected yet")
        return self._pool

    async def start(self) -> None:
        """Connect and migrate; waits for a server that is not there yet."""
        self._pool = await connect(self._url)
        await migrate(self._pool, self._package)

    async def stop(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction. A database that is away, or a lost race, is `RetryLater`."""
        with gone_means_later():
            async with self.pool.acquire() as connection, connection.transaction():
                yield connection


@contextmanager
def gone_means_later() -> Iterator[None]:
    """Turn the errors of a database that is away, or of a lost race, into `RetryLater`."""
    try:
        yield
    except _GONE as error:
        raise RetryLater(f"the database is away: {error!r}", 0.5) from error


# ---------------------------------------------------------------- migrations


class Migration(NamedTuple):
    """One numbered SQL file of a package."""

    package: str
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The digest of its text: a migration that has run may not change any more."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(package: str) -> list[Migration]:
    """The files `migrations/NNNN_name.sql` of a package, in the order of their numbers."""
    folder = files(package) / "migrations"
    found = []
    for entry in folder.iterdir():
        match = re.fullmatch(r"(\d+)_(\w+)\.sql", entry.name)
        if match:
            found.append(Migration(package, int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return sorted(found)


async def migrate(pool: Pool, package: str) -> int:
    """Bring the schema up to date with the runtime's and the package's migrations; gives back how many ran.

    Raises:
        MigrationChanged: one that has already run has another text now.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext(current_schema()))", _MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (package text, number integer, name text NOT NULL,"
            " sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, number))"
        )
        done = {
            (row["package"], row["number"]): row["sha256"]
            for row in await connection.fetch("SELECT package, number, sha256 FROM schema_migrations")
        }
        wanted = [*migrations_of(_RUNTIME), *(migrations_of(package) if package != _RUNTIME else [])]
        return sum([await _apply(connection, migration, done) for migration in wanted])


async def _apply(connection: Connection, migration: Migration, done: dict[tuple[str, int], str]) -> bool:
    before = done.get((migration.package, migration.number))
    if before == migration.sha256:
        return False
    file = f"{migration.package}/migrations/{migration.number:04d}_{migration.name}.sql"
    if before is not None:
        raise MigrationChanged(f"{file} has already run with another text: put that text back and add a new file")
    await connection.execute(migration.sql)
    await connection.execute(
        "INSERT INTO schema_migrations (package, number, name, sha256) VALUES ($1, $2, $3, $4)",
        migration.package,
        migration.number,
        migration.name,
        migration.sha256,
    )
    log.info("migration applied", file=file)
    return True


# ---------------------------------------------------------------- provisioning


async def provision(admin_url: SecretStr | str, service: str, password: str) -> str:
    """Give a service its role and its schema in the administrator's database; gives back the role's URL.

    May be called again: then it sets the password. The role is named after the database and the service, because
    roles belong to the whole server; its `search_path` is its schema, and it has no rights outside it.
    """
    url = admin_url.get_secret_value() if isinstance(admin_url, SecretStr) else admin_url
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _PROVISION_LOCK)
            database = await connection.fetchval("SELECT current_database()")
            role = f"{database}_{service}"
            await _make_role(connection, role, password)
            for statement in _grants(str(database), role, service):
                await connection.execute(statement)
    finally:
        await connection.close()
    return with_user(url, role, password)


async def _make_role(connection: Connection, role: str, password: str) -> None:
    exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    statement = await connection.fetchval(
        f"SELECT format('{verb} ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L', $1::text, $2::text)",
        role,
        password,
    )
    await connection.execute(statement)


def _grants(database: str, role: str, schema: str) -> tuple[str, ...]:
    database, role, schema = (_quoted(name) for name in (database, role, schema))
    return (
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {role}",
        f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}",
        f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
        f"ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema}",
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def with_user(url: str, user: str, password: str) -> str:
    """The same URL for another user.

    >>> with_user("postgresql://admin:x@localhost:5432/tailrace", "tailrace_registry", "p@ss")
    'postgresql://tailrace_registry:p%40ss@localhost:5432/tailrace'
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{place}"))
