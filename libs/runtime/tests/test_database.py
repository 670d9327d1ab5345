"""The database on a real PostgreSQL: migrations once, services apart, and a server that goes away and returns."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tailrace_local import EmbeddedPostgres
from tailrace_runtime.database import Database, connect, migrate, provision
from tailrace_runtime.errors import ConfigurationFault, MigrationChanged, RetryLater
from tailrace_runtime.health import Health, installed
from tailrace_testing.polling import eventually


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with migrations, as a service has them; gives the folder of the migrations."""
    folder = tmp_path / "migrated_service" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "0001_first.sql").write_text("CREATE TABLE specs (model text PRIMARY KEY);")
    (folder / "0002_second.sql").write_text("ALTER TABLE specs ADD COLUMN revision integer;")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("migrated_service", None)


async def test_migrations_run_once_and_new_ones_are_added(database: str, package: Path) -> None:
    """An upgrade would fail on a table that exists, or leave one out."""
    pool = await connect(database)
    assert await migrate(pool, "migrated_service") == 3
    assert await migrate(pool, "migrated_service") == 0
    (package / "0003_third.sql").write_text("CREATE TABLE versions (n integer);")
    assert await migrate(pool, "migrated_service") == 1
    await pool.execute("INSERT INTO specs (model, revision) VALUES ('rain', 1)")
    await pool.close()


@pytest.mark.usefixtures("package")
async def test_two_processes_that_start_together_migrate_once(database: str) -> None:
    """Two replicas of a service would break each other's start."""
    pools = [await connect(database) for _ in range(3)]
    assert sorted(await asyncio.gather(*(migrate(pool, "migrated_service") for pool in pools))) == [0, 0, 3]
    for pool in pools:
        await pool.close()


async def test_a_changed_migration_is_refused(database: str, package: Path) -> None:
    """Two databases of the same version would differ."""
    pool = await connect(database)
    await migrate(pool, "migrated_service")
    (package / "0001_first.sql").write_text("CREATE TABLE specs (model text);")
    with pytest.raises(MigrationChanged, match=r"0001_first\.sql has already run with another text"):
        await migrate(pool, "migrated_service")
    await pool.close()


async def test_a_failed_migration_leaves_nothing_behind(database: str, package: Path) -> None:
    """A broken upgrade could not be tried again."""
    (package / "0002_second.sql").write_text("CREATE TABLE halves (n integer); SELECT broken;")
    pool = await connect(database)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(pool, "migrated_service")
    assert await pool.fetchval("SELECT to_regclass('specs')") is None
    await pool.close()


async def test_a_service_cannot_reach_another_services_tables(database: str) -> None:
    """One service could read or break what only another may know."""
    registry_url = await provision(database, "registry", "first's password")
    monitoring_url = await provision(database, "monitoring", "other")
    registry, monitoring = await connect(registry_url), await connect(monitoring_url)
    await registry.execute("CREATE TABLE secrets (n integer)")
    assert await registry.fetchval("SELECT count(*) FROM registry.secrets") == 0
    for statement in (
        "SELECT * FROM registry.secrets",
        "DROP TABLE registry.secrets",
        "CREATE TABLE registry.mine (n integer)",
        "CREATE TABLE public.mine (n integer)",
        "CREATE SCHEMA elsewhere",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await monitoring.execute(statement)
    await registry.close()
    await monitoring.close()


async def test_provisioning_again_changes_the_password(database: str) -> None:
    """A second `up` would lock a service out of its own database."""
    await provision(database, "registry", "one")
    url = await provision(database, "registry", "two's/@:")
    pool = await connect(url)
    assert await pool.fetchval("SELECT current_schema()") == "registry"
    await pool.close()


async def test_a_database_that_is_down_is_waited_for_and_may_go_away(
    database_of_its_own: Callable[[], EmbeddedPostgres],
) -> None:
    """A service that starts before its database would crash; one whose database restarts would stay broken."""
    server = database_of_its_own()
    url = server.admin_url
    server.stop()
    with installed(Health()) as health:
        waiting = asyncio.create_task(connect(url))
        await eventually(lambda: "PostgreSQL at" in str(health.readiness()[1]))
        assert health.live()[0]
        server.start()
        pool = await waiting
        assert health.readiness()[0]
        await pool.close()
        database = Database(url, "tailrace_runtime")
        await database.start()
        server.stop()
        with pytest.raises(RetryLater, match="the database is away"):
            async with database.transaction() as connection:
                await connection.fetchval("SELECT 1")
        server.start()
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await database.stop()


def test_a_missing_url_is_one_sentence() -> None:
    """A service without its setting would fail with a traceback."""
    with pytest.raises(ConfigurationFault, match="TAILRACE_DATABASE_URL is not set"):
        Database(None, "tailrace_runtime")
