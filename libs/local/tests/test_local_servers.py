"""The embedded Kafka and PostgreSQL: up, down, up again with their data, and nothing left behind."""

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tailrace_local import EmbeddedKafka, EmbeddedPostgres, FolderInUse, NoSpace, PortInUse, ProcessId, StartFailed
from tailrace_local.kafka import serves
from tailrace_local.ports import port_is_free
from tailrace_local.postgres import forget_dead_server, program
from tailrace_local.process import wait_until


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker that these tests share."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), heap_megabytes=256) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A database server that these tests share."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


def sql(server: EmbeddedPostgres, statement: str) -> str:
    """What psql prints for a statement."""
    command = [str(program("psql")), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, server.admin_url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def identity(server: EmbeddedKafka) -> str:
    """The cluster id in the broker's data."""
    lines = (server.folder / "data" / "meta.properties").read_text().splitlines()
    return next(line for line in lines if line.startswith("cluster.id="))


def test_a_broker_serves_and_is_small(kafka: EmbeddedKafka) -> None:
    """A laptop with 8 GB could not run Tailrace."""
    assert kafka.process is not None
    assert serves(int(kafka.bootstrap.split(":")[1]))
    assert psutil.Process(kafka.process.id.pid).memory_info().rss < 500_000_000


def test_starting_a_running_server_changes_nothing(kafka: EmbeddedKafka, postgres: EmbeddedPostgres) -> None:
    """A second start would take the server away from those who use it."""
    before = kafka.process, postgres.process
    kafka.start()
    postgres.start()
    assert (kafka.process, postgres.process) == before


def test_a_second_broker_on_the_same_folder_is_refused(kafka: EmbeddedKafka) -> None:
    """Two brokers would write one metadata log and destroy it."""
    with pytest.raises(FolderInUse, match="is in use by another running kafka; stop that one or use another folder"):
        EmbeddedKafka(kafka.folder, heap_megabytes=256).start()
    assert serves(int(kafka.bootstrap.split(":")[1]))


def test_a_second_database_server_on_the_same_folder_is_refused(postgres: EmbeddedPostgres) -> None:
    """Two servers would write one database and destroy it."""
    with pytest.raises(FolderInUse, match="is in use by another running PostgreSQL"):
        EmbeddedPostgres(postgres.folder).start()
    assert sql(postgres, "SELECT 1") == "1"


def test_a_wanted_port_in_use_is_one_sentence(kafka: EmbeddedKafka, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """A second Tailrace, or another Kafka on 9092, would fail with a Java stack trace."""
    with pytest.raises(PortInUse, match=rf"Kafka cannot listen on 127.0.0.1:{postgres.port} "):
        EmbeddedKafka(tmp_path / "k", port=postgres.port).start()
    with pytest.raises(PortInUse, match=rf"PostgreSQL cannot listen on 127.0.0.1:{kafka.port} "):
        EmbeddedPostgres(tmp_path / "p", port=kafka.port).start()


def test_missing_space_is_said_before_anything_starts(tmp_path: Path) -> None:
    """A full disk would show as a broken broker, minutes later."""
    for server in (
        EmbeddedKafka(tmp_path / "k", min_free_megabytes=99_999_999_999),
        EmbeddedPostgres(tmp_path / "p", min_free_megabytes=99_999_999_999),
    ):
        with pytest.raises(NoSpace):
            server.start()
        assert server.process is None


def test_a_broker_comes_back_with_its_identity_and_its_port(tmp_path: Path) -> None:
    """After a restart the clients would find no broker, or one that does not know them."""
    server = EmbeddedKafka(tmp_path, heap_megabytes=256)
    with server:
        address, cluster, first = server.bootstrap, identity(server), server.process
        server.kill()
        assert not serves(int(address.split(":")[1]))
        server.start()
        assert (server.bootstrap, identity(server)) == (address, cluster)
        assert server.process != first
    assert server.process is not None
    assert not server.process.id.alive()


def test_rows_survive_stop_and_kill(tmp_path: Path) -> None:
    """Registered models would be lost at every restart."""
    with EmbeddedPostgres(tmp_path) as server:
        url = server.admin_url
        sql(server, "CREATE TABLE kept AS SELECT 1 AS x")
        server.stop()
        server.start()
        sql(server, "INSERT INTO kept VALUES (2)")
        server.kill()
        server.start()
        assert sql(server, "SELECT sum(x) FROM kept") == "3"
        assert server.admin_url == url


def test_an_idle_connection_does_not_hold_up_the_stop(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """`tailrace down` would hang while somebody has psql open."""
    with EmbeddedPostgres(tmp_path) as server:
        client = subprocess.Popen(
            [str(program("psql")), "-X", server.admin_url], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql'"
        assert wait_until(lambda: sql(server, asked) == "2", 10.0)
        server.stop()
        assert server.process is not None
        assert server.process.exit_code() == 0
        client.communicate(timeout=10)
    assert sql(postgres, "SELECT 1") == "1"


def test_the_database_asks_for_a_password_that_only_its_owner_can_read(postgres: EmbeddedPostgres) -> None:
    """Every user of the machine could read and change what is registered."""
    assert stat.S_IMODE((postgres.folder / "password").stat().st_mode) == 0o600
    wrong = postgres.admin_url.replace(postgres.password, "wrong")
    refused = subprocess.run([program("psql"), "-c", "SELECT 1", wrong], capture_output=True, check=False, timeout=20)
    assert b"password authentication failed" in refused.stderr


def test_the_database_does_not_run_as_root(postgres: EmbeddedPostgres) -> None:
    """In a container, where people are root, the database would refuse to start."""
    assert postgres.process is not None
    owner = psutil.Process(postgres.process.id.pid).uids().effective
    assert owner != 0
    assert owner == (os.geteuid() or postgres.data.stat().st_uid)


def test_a_pid_file_of_a_dead_server_is_no_obstacle(tmp_path: Path) -> None:
    """After a power cut the database would not start because its old number belongs to another program now."""
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    forget_dead_server(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_a_half_made_database_is_made_again(tmp_path: Path) -> None:
    """A first start that was killed would break every later one."""
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as server:
        assert sql(server, "SELECT 1") == "1"
        assert not (tmp_path / "data.unfinished").exists()


def test_a_server_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    """A person would not learn why the database does not come up."""
    with EmbeddedPostgres(tmp_path) as server:
        server.stop()
        (server.data / "postgresql.conf").write_text("no_such_setting = on\n")
        with pytest.raises(StartFailed, match=r"(?s)ended while it started; the end of .*no_such_setting"):
            server.start()


def test_two_servers_of_each_kind_start_at_the_same_time(tmp_path: Path) -> None:
    """Two test runs, or a demo beside a test run, would take each other's ports."""
    brokers = [EmbeddedKafka(tmp_path / f"k{n}", heap_megabytes=256) for n in range(2)]
    databases = [EmbeddedPostgres(tmp_path / f"p{n}") for n in range(2)]
    servers: list[EmbeddedKafka | EmbeddedPostgres] = [*brokers, *databases]
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        list(pool.map(stack.enter_context, servers))
        assert len({server.port for server in servers}) == 4
        assert [sql(server, "SELECT 1") for server in databases] == ["1", "1"]
        assert all(serves(int(server.bootstrap.split(":")[1])) for server in brokers)


def test_a_killed_parent_leaves_no_server(tmp_path: Path) -> None:
    """A killed demo would leave a JVM and a database behind, and their ports taken."""
    code = f"""
        import time
        from pathlib import Path
        from tailrace_local import EmbeddedKafka, EmbeddedPostgres
        folder = Path({str(tmp_path)!r})
        servers = [EmbeddedKafka(folder / "k", heap_megabytes=256), EmbeddedPostgres(folder / "p")]
        for server in servers:
            server.start()
        (folder / "new").write_text(" ".join(f"{{s.process.id.pid}} {{s.port}}" for s in servers))
        (folder / "new").rename(folder / "started")
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    assert wait_until((tmp_path / "started").exists, 60.0)
    kafka_pid, kafka_port, postgres_pid, postgres_port = map(int, (tmp_path / "started").read_text().split())
    members = [kafka_pid, postgres_pid, *(child.pid for child in psutil.Process(postgres_pid).children())]
    family = [found for pid in members if (found := ProcessId.of(pid))]
    assert len(family) > 3
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not any(member.alive() for member in family), 15.0)
    assert port_is_free(kafka_port)
    assert port_is_free(postgres_port)
