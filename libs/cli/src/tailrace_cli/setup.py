"""Prepares a broker and a database that run elsewhere: topics, a schema and a role for each service, the signing key.

Secrets are files under one folder, a subfolder for each service, so that a deployment can hand each service its own and
no other: `<service>/tailrace_database_url`, and `signing/signing.key` for those that write or load learner artefacts.
Everything that is there already stays as it is.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tailrace_cli.connection import CommandError
from tailrace_cli.stack import WITH_DATABASE
from tailrace_runtime.database import provision
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all


async def prepare(settings: KafkaSettings, admin_url: str, folder: Path) -> list[str]:
    """Do all of it; returns what a person should read. Waits for the broker.

    Raises CommandError when the folder cannot be written, or the database is not there or refuses.
    """
    try:
        key_file = write_once(folder / "signing" / "signing.key", secrets.token_hex(32) + "\n")
        files = {name: write_once(folder / name / "password", secrets.token_urlsafe(24)) for name in WITH_DATABASE}
        passwords = {name: file.read_text(encoding="utf-8").strip() for name, file in files.items()}
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}; name a folder that can be written with --secrets"
        raise CommandError(msg) from None
    await create_all(settings)
    done = [f"topics are on {settings.kafka_bootstrap}", f"the signing key is in {key_file}"]
    for service, its_password in passwords.items():
        url = await _provisioned(admin_url, service, its_password)
        path = folder / service / "tailrace_database_url"
        path.unlink(missing_ok=True)
        done.append(f"{service} finds its database through {write_once(path, url)}")
    return done


async def _provisioned(admin_url: str, service: str, its_password: str) -> str:
    try:
        return await provision(admin_url, service, its_password)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        msg = (
            f"PostgreSQL at {_where(admin_url)} cannot be prepared ({error or 'it does not answer'}); "
            "expected a server that lets this user make roles and schemas: check TAILRACE_ADMIN_DATABASE_URL"
        )
        raise CommandError(msg) from None


def _where(url: str) -> str:
    """Where the URL points, without the password in it."""
    return urlsplit(url).netloc.rpartition("@")[2] or "no address"


def write_once(path: Path, text: str) -> Path:
    """The file, made with this text and mode 0600 unless it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return path
