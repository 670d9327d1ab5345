"""The fixtures, and the line at the top of a test run that says which broker and which database it uses.

Each server comes from the first of these that works: the address in a setting (TAILRACE_TEST_KAFKA_BOOTSTRAP,
TAILRACE_TEST_DATABASE_URL), a container where a Docker engine answers (unless TAILRACE_TEST_CONTAINERS=0), an embedded
server in a temporary folder. None is started before a test asks for it, and none is left when the run ends, whether it
ends well, by Ctrl-C or by a kill.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tailrace_local import EmbeddedKafka, EmbeddedPostgres, LocalError, shown
from tailrace_local.jars import cache_folder, kafka_jars, listed_jars, missing
from tailrace_testing.broker import Broker, OwnBroker
from tailrace_testing.containers import kafka_container, no_engine, postgres_container
from tailrace_testing.database import Postgres

_PREFIX = "tailrace-test"
_BOOTSTRAP = "TAILRACE_TEST_KAFKA_BOOTSTRAP"
_DATABASE = "TAILRACE_TEST_DATABASE_URL"
_BROKER_FIXTURES = {"kafka", "broker_of_its_own"}
_NOTES = pytest.StashKey[list[str]]()
_REFUSAL = pytest.StashKey[str]()


def pytest_report_header(config: pytest.Config) -> str:
    """Says where the broker and the database come from."""
    return f"tailrace: Kafka {_source(config, _BOOTSTRAP)}, PostgreSQL {_source(config, _DATABASE)}"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetches Kafka's jars before the first test that needs them, so that no test's time limit pays for a download."""
    needed = {name for item in session.items for name in getattr(item, "fixturenames", ())} & _BROKER_FIXTURES
    if session.config.option.collectonly or not needed or (_given(_BOOTSTRAP) and needed == {"kafka"}):
        return
    if not missing(listed_jars(), cache_folder() / "kafka-jars"):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        if capture is not None:
            stack.enter_context(capture.global_and_fixture_disabled())
        with suppress(LocalError), shown() as report:  # the fixture that needs them fails with the same sentence
            kafka_jars(report=report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says when a server did not come from where the header had promised."""
    for note in config.stash.get(_NOTES, []):
        terminalreporter.write_line(f"tailrace: {note}", yellow=True)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The session's broker: `.bootstrap`, `.unique(name)`, `await .create_topic(name, partitions, config)`."""
    given = _given(_BOOTSTRAP)
    if given:
        yield Broker(given)
        return
    with _first_that_works(pytestconfig, kafka_container, _embedded_kafka) as bootstrap:
        yield Broker(bootstrap)


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[Postgres]:
    """The session's database server: `.admin_url`."""
    given = _given(_DATABASE)
    if given:
        yield Postgres(given)
        return
    with _first_that_works(pytestconfig, postgres_container, _embedded_postgres) as admin_url:
        yield Postgres(admin_url)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh, empty database, dropped after the test."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def broker_of_its_own() -> Iterator[Callable[[], OwnBroker]]:
    """Makes brokers that the test may stop, kill and start again; each call gives one, ready in 3 s."""
    with ExitStack() as stack:

        def make() -> OwnBroker:
            folder = Path(stack.enter_context(_folder("kafka")))
            return OwnBroker(stack.enter_context(EmbeddedKafka(folder, heap_megabytes=256)))

        yield make


@pytest.fixture
def database_of_its_own() -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Makes database servers that the test may stop, kill and start again; each call gives one, ready in 1 s."""
    with ExitStack() as stack:

        def make() -> EmbeddedPostgres:
            folder = Path(stack.enter_context(_folder("postgres")))
            return stack.enter_context(EmbeddedPostgres(folder, durable=False))

        yield make


def _given(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _source(config: pytest.Config, variable: str) -> str:
    if _given(variable):
        return f"from {variable}"
    refusal = _refusal(config)
    return f"embedded ({refusal})" if refusal else "in a container"


def _refusal(config: pytest.Config) -> str:
    """Why containers are not used, asked once for each run."""
    if _REFUSAL not in config.stash:
        config.stash[_REFUSAL] = no_engine()
    return config.stash[_REFUSAL]


@contextmanager
def _first_that_works(
    config: pytest.Config,
    container: Callable[[], AbstractContextManager[str]],
    embedded: Callable[[], AbstractContextManager[str]],
) -> Iterator[str]:
    """The container's address where that can be started, else the embedded server's."""
    with ExitStack() as stack:
        address = ""
        if not _refusal(config):
            try:
                address = stack.enter_context(container())
            except LocalError as error:
                config.stash.setdefault(_NOTES, []).append(f"{error}; the embedded server is used instead")
        yield address or stack.enter_context(embedded())


@contextmanager
def _embedded_kafka() -> Iterator[str]:
    with _folder("kafka") as folder, EmbeddedKafka(Path(folder)) as server:
        yield server.bootstrap


@contextmanager
def _embedded_postgres() -> Iterator[str]:
    with _folder("postgres") as folder, EmbeddedPostgres(Path(folder), durable=False) as server:
        yield server.admin_url


def _folder(name: str) -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder for a server's data; those of test runs that were killed are removed on the way."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-{name}-*-*"):
        pid = left.name.split("-")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}-{name}-{os.getpid()}-", ignore_cleanup_errors=True)
