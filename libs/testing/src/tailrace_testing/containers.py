"""The session's servers as containers, where an engine answers and the images can be had.

Testcontainers starts them and its reaper removes them, also when the test run is killed. Whatever stands in the way is
said in one sentence, and the embedded servers take over.
"""

import gc
import os
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tailrace_local.errors import LocalError
from tailrace_local.kafka import node_settings, serves
from tailrace_local.ports import free_port
from tailrace_local.process import wait_until
from tailrace_testing.database import outside_the_loop

KAFKA_IMAGE = "apache/kafka:4.3.1"
POSTGRES_IMAGE = "postgres:18"
_ENGINE_SECONDS = 3
_PULL_STALLED_SECONDS = 20
_START_SECONDS = 60.0


def no_engine() -> str:
    """Why containers are not used: empty when an engine answers."""
    if os.environ.get("TAILRACE_TEST_CONTAINERS", "1").lower() in ("0", "false", "no"):
        return "TAILRACE_TEST_CONTAINERS=0"
    from docker.errors import DockerException  # type: ignore[import-untyped]
    from testcontainers.core.docker_client import DockerClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # without an engine, docker leaves a socket to the collector
        try:
            DockerClient(timeout=_ENGINE_SECONDS).client.close()
        except DockerException:
            answers = False
        else:
            answers = True
        gc.collect()
    return "" if answers else "no Docker engine answers"


def obtain(image: str) -> None:
    """Makes sure that the image, and the reaper's, are on this machine; pulls them where they are not.

    Raises:
        LocalError: they cannot be pulled.
    """
    from docker.errors import DockerException, ImageNotFound
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.docker_client import DockerClient

    reaper = () if testcontainers_config.ryuk_disabled else (testcontainers_config.ryuk_image,)
    client = DockerClient(timeout=_PULL_STALLED_SECONDS).client
    try:
        for name in (image, *reaper):
            try:
                client.images.get(name)
            except ImageNotFound:
                client.images.pull(name)
    except (DockerException, OSError) as error:
        raise LocalError(f"the image {image} cannot be had ({error})") from error
    finally:
        client.close()


@contextmanager
def kafka_container() -> Iterator[str]:
    """A broker in a container; gives its bootstrap address. The port inside is the port outside, as Kafka wants it."""
    port = free_port()
    settings = node_settings(port, port + 1 if port < 65535 else port - 1, Path("/tmp/kraft-logs"), "0.0.0.0")  # noqa: S108 - inside the container
    environment = {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in settings.items()}
    environment["KAFKA_HEAP_OPTS"] = "-Xmx512m -Xms128m"
    with _container(KAFKA_IMAGE, port, port, environment) as container:
        if not wait_until(lambda: serves(port), _START_SECONDS, 0.1):
            raise LocalError(f"Kafka in a container was not ready in time: {_logs(container)}")
        yield f"127.0.0.1:{port}"


@contextmanager
def postgres_container() -> Iterator[str]:
    """A database server in a container; gives the superuser's URL."""
    port, password = free_port(), secrets.token_hex(16)
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    with _container(POSTGRES_IMAGE, 5432, port, {"POSTGRES_PASSWORD": password}, ["-c", "fsync=off"]) as container:
        if not wait_until(lambda: outside_the_loop(_accepts(url)), _START_SECONDS, 0.1):
            raise LocalError(f"PostgreSQL in a container was not ready in time: {_logs(container)}")
        yield url


@contextmanager
def _container(
    image: str, inside: int, outside: int, environment: dict[str, str], command: Sequence[str] = ()
) -> Iterator[Any]:
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    obtain(image)
    container = DockerContainer(image).with_bind_ports(inside, outside).with_envs(**environment)
    if command:
        container = container.with_command(list(command))
    try:
        container.start()
    except (DockerException, OSError) as error:
        raise LocalError(f"a container of {image} cannot be started ({error})") from error
    try:
        yield container
    finally:
        container.stop()


def _logs(container: Any) -> str:
    output, errors = container.get_logs()
    return str((output + errors).decode(errors="replace")[-2000:])


async def _accepts(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=2.0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
