"""`tailrace setup` against a real broker and a real database."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from tailrace_cli.connection import CommandError
from tailrace_cli.setup import prepare
from tailrace_local import free_port
from tailrace_runtime.settings import KafkaSettings
from tailrace_testing import Broker


@pytest.fixture
def settings(kafka: Broker) -> KafkaSettings:
    """The session's broker, under a prefix of the test's own."""
    return KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=f"{kafka.unique('setup')}-")


def written(folder: Path) -> dict[str, str]:
    """Each file below the folder with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


async def test_each_service_gets_its_own_secrets(settings: KafkaSettings, database: str, tmp_path: Path) -> None:
    """A service would not find its database, or everybody on the machine could read its password."""
    await prepare(settings, database, tmp_path)
    files = written(tmp_path)
    assert {"signing/signing.key", "registry/tailrace_database_url", "monitoring/tailrace_database_url"} <= files.keys()
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in files)
    for service in ("registry", "monitoring"):
        connection = await asyncpg.connect(files[f"{service}/tailrace_database_url"])
        assert await connection.fetchval("SELECT current_schema()") == service
        await connection.close()


async def test_a_second_time_changes_nothing(settings: KafkaSettings, database: str, tmp_path: Path) -> None:
    """Every start would sign artefacts with another key, and the old ones could not be loaded any more."""
    await prepare(settings, database, tmp_path)
    before = written(tmp_path)
    await prepare(settings, database, tmp_path)
    assert written(tmp_path) == before


async def test_a_refusing_database_is_one_sentence(settings: KafkaSettings, database: str, tmp_path: Path) -> None:
    """An operator with a wrong password would read forty lines about Python."""
    wrong = f"{database.partition('@')[0]}wrong@{database.partition('@')[2]}"
    with pytest.raises(CommandError, match=r"PostgreSQL at 127\.0\.0\.1:\d+/?.* cannot be prepared") as refused:
        await prepare(settings, wrong, tmp_path)
    assert "wrong@" not in str(refused.value)


async def test_a_database_that_is_not_there_is_one_sentence(settings: KafkaSettings, tmp_path: Path) -> None:
    """An operator with a wrong address would read forty lines about Python."""
    with pytest.raises(CommandError, match="TAILRACE_ADMIN_DATABASE_URL"):
        await prepare(settings, f"postgresql://postgres@127.0.0.1:{free_port()}/postgres", tmp_path)


async def test_a_folder_that_cannot_be_written_is_one_sentence(settings: KafkaSettings, tmp_path: Path) -> None:
    """An operator who mounted the wrong folder would not learn which."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="--secrets"):
        await prepare(settings, "postgresql://postgres@127.0.0.1/postgres", tmp_path / "file")
