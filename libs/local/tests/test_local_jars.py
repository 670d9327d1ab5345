"""The jars: fetched once, whole or not at all, and only those that the list names."""

import functools
import hashlib
import multiprocessing
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tailrace_local.errors import LocalError, NoSpace
from tailrace_local.jars import Jar, kafka_jars, listed_jars, missing

CONTENT = b"not really a jar" * 100


class Mirror(ThreadingHTTPServer):
    """A Maven repository on this machine that remembers what was asked for."""

    asked: list[str]


class Handler(SimpleHTTPRequestHandler):
    """Serves files and notes their names."""

    def do_GET(self) -> None:
        """Notes the path, then serves it."""
        assert isinstance(self.server, Mirror)
        self.server.asked.append(self.path.rsplit("/", 1)[-1])
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror that holds `org.example:one:1.0` and `two:2.0`, as the one that Tailrace is told to use."""
    for name, version in (("one", "1.0"), ("two", "2.0")):
        folder = tmp_path / "mirror" / "org" / "example" / name / version
        folder.mkdir(parents=True)
        (folder / f"{name}-{version}.jar").write_bytes(CONTENT)
    server = Mirror(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "mirror")))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("TAILRACE_MAVEN_REPOSITORY", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def jar(coordinate: str, content: bytes = CONTENT) -> Jar:
    """An entry of the list."""
    return Jar(coordinate, len(content), hashlib.sha256(content).hexdigest())


WANTED = [jar("org.example:one:1.0"), jar("org.example:two:2.0")]


def test_the_list_names_the_whole_broker() -> None:
    """The broker would start with a jar missing, or with Kafka jars of different versions."""
    coordinates = [listed.coordinate for listed in listed_jars()]
    kafka = [coordinate for coordinate in coordinates if coordinate.startswith("org.apache.kafka:")]
    assert {coordinate.rsplit(":", 1)[1] for coordinate in kafka} == {"4.3.1"}
    assert {"org.apache.kafka:kafka_2.13:4.3.1", "org.apache.kafka:kafka-clients:4.3.1"} <= set(kafka)
    assert len({listed.file_name for listed in listed_jars()}) == len(coordinates) == 46


def test_jars_are_fetched_once_and_progress_is_told(tmp_path: Path, mirror: Mirror) -> None:
    """Every start would download 45 MB, or a first start would look like a hang."""
    told: list[float | None] = []
    paths = kafka_jars(tmp_path, lambda _text, fraction: told.append(fraction), WANTED)
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]
    assert told[0] is None
    assert told[-1] == 1.0
    asked = len(mirror.asked)
    assert kafka_jars(tmp_path, wanted=WANTED) == paths
    assert len(mirror.asked) == asked


def test_several_processes_fetch_together_once(tmp_path: Path, mirror: Mirror) -> None:
    """Two commands started at the same time would spoil each other's downloads."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        work = [pool.apply_async(kafka_jars, (tmp_path,), {"wanted": WANTED}) for _ in range(2)]
        results = [each.get(30) for each in work]
    assert results[0] == results[1]
    assert sorted(name for name in mirror.asked if name.endswith(".jar")) == ["one-1.0.jar", "two-2.0.jar"]


def test_a_jar_with_another_digest_is_refused(tmp_path: Path, mirror: Mirror) -> None:
    """A tampered jar would run on the user's machine."""
    expected = jar("org.example:one:1.0", b"X" * len(CONTENT))
    with pytest.raises(LocalError, match=r"org.example:one:1.0 could not be fetched .*its sha256 is .* instead of"):
        kafka_jars(tmp_path, wanted=[expected])
    assert missing([expected], tmp_path / "kafka-jars") == [expected]
    assert mirror.asked.count("one-1.0.jar") == 3


@pytest.mark.usefixtures("mirror")
def test_a_jar_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    """A person behind a proxy would not learn what is missing and what to do."""
    with pytest.raises(LocalError, match=r"org.example:three:3.0 could not be fetched .*TAILRACE_MAVEN_REPOSITORY"):
        kafka_jars(tmp_path, wanted=[*WANTED, jar("org.example:three:3.0")])


@pytest.mark.usefixtures("mirror")
def test_what_a_killed_download_left_is_fetched_again(tmp_path: Path) -> None:
    """A download cut off in the middle would break every later start."""
    folder = tmp_path / "kafka-jars"
    (folder / ".partial-old").mkdir(parents=True)
    (folder / "one-1.0.jar").write_bytes(CONTENT[:100])
    assert [path.read_bytes() for path in kafka_jars(tmp_path, wanted=WANTED)] == [CONTENT, CONTENT]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "one-1.0.jar", "two-2.0.jar"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A read-only home folder would end in a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(NoSpace, match="TAILRACE_CACHE"):
        kafka_jars(tmp_path / "file", wanted=WANTED)
