"""The Kafka jars: fetched once from Maven Central, checked against the digests in `kafka-jars.txt`, kept for all.

The list is the whole tree of the broker, with sizes and sha256, so nothing is resolved at run time and nobody can slip
in another jar. jgo fetches each one into a folder of its own; only when its digest is right does it move to its final
name, so a jar under its final name is complete however often the work was interrupted. A file lock lets one process
fetch while the others wait. `python -m tailrace_local.jars` resolves the tree again and rewrites the list.
"""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from tailrace_local.disk import require_space
from tailrace_local.errors import LocalError
from tailrace_local.lock import locked
from tailrace_local.progress import Report, silent

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
_LIST = Path(__file__).with_name("kafka-jars.txt")
_TEXT = "Fetching Kafka (once, 45 MB)"


@dataclass(frozen=True)
class Jar:
    """One file of Maven Central."""

    coordinate: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The file's name in Maven Central and in the cache."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache_folder() -> Path:
    """Where downloads are kept for every project of this user: TAILRACE_CACHE, else the platform's cache folder."""
    chosen = os.environ.get("TAILRACE_CACHE")
    return Path(chosen) if chosen else user_cache_path("tailrace")


def listed_jars() -> list[Jar]:
    """The jars that the broker needs."""
    lines = [line.split() for line in _LIST.read_text().splitlines() if not line.startswith("#")]
    return [Jar(coordinate, int(size), sha256) for coordinate, size, sha256 in lines]


def kafka_jars(folder: Path | None = None, report: Report = silent, wanted: Sequence[Jar] | None = None) -> list[Path]:
    """The broker's jars on this machine, fetched if need be; safe in several processes at once.

    Raises:
        NoSpace: the cache folder cannot be written, or has too little space left.
        LocalError: a jar could not be fetched, or is not the one that the list names.
    """
    folder = (folder or cache_folder()) / "kafka-jars"
    jars = listed_jars() if wanted is None else list(wanted)
    if missing(jars, folder):
        require_space(folder, 100, "TAILRACE_CACHE")
        report(_TEXT, None)
        with locked(folder / ".lock"):
            fetch(missing(jars, folder), folder, report)
        report(_TEXT, 1.0)
    return [folder / jar.file_name for jar in jars]


def missing(jars: Iterable[Jar], folder: Path) -> list[Jar]:
    """Those that are not in the folder, or not whole."""
    return [jar for jar in jars if not _is_whole(folder / jar.file_name, jar.size_bytes)]


def fetch(jars: Sequence[Jar], folder: Path, report: Report) -> None:
    """Fetches the jars, six at a time, and reports the share of all bytes that has come."""
    from jgo.maven import MavenContext, PythonResolver

    for unfinished in folder.glob(".partial-*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(unfinished, ignore_errors=True)
    total = sum(jar.size_bytes for jar in jars) or 1
    count = _Count()

    @contextmanager
    def counted(_name: str, _size: int) -> Iterator[object]:
        yield lambda more: report(_TEXT, min(count.add(more) / total, 0.999))

    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        resolver = PythonResolver(progress_callback=counted)
        maven = MavenContext(resolver, Path(partial), local_repos=[], remote_repos=repositories(), timeout=60)
        pool = ThreadPoolExecutor(6)
        try:
            for jar, path in zip(jars, pool.map(lambda jar: _download(maven, jar), jars), strict=True):
                path.replace(folder / jar.file_name)
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C only what is on its way is waited for


def repositories() -> dict[str, str] | None:
    """The repository in TAILRACE_MAVEN_REPOSITORY, for networks that have a mirror of their own; None: Maven Central."""
    mirror = os.environ.get("TAILRACE_MAVEN_REPOSITORY", "").rstrip("/")
    return {"mirror": mirror} if mirror else None


def _download(maven: object, jar: Jar, attempts: int = 3) -> Path:
    """Fetches one jar and checks its digest; a broken download is tried again."""
    group, artifact, version = jar.coordinate.split(":")
    reason = ""
    for _ in range(attempts):
        wanted = maven.project(group, artifact).at_version(version).artifact()  # type: ignore[attr-defined]
        try:
            path: Path = wanted.resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's "not found" a RuntimeError
            reason = str(error)
            wanted.cached_path.unlink(missing_ok=True)
            continue
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found == jar.sha256:
            return path
        reason = f"its sha256 is {found} instead of {jar.sha256}"
        path.unlink()
    raise LocalError(
        f"Kafka's jar {jar.coordinate} could not be fetched from Maven Central ({reason}); "
        f"check this machine's network, or name a mirror in TAILRACE_MAVEN_REPOSITORY, and try again"
    )


class _Count:
    """A sum that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = 0

    def add(self, more: int) -> int:
        with self._lock:
            self._sum += more
            return self._sum


def _is_whole(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def resolve() -> list[str]:
    """The lines of `kafka-jars.txt`, from a fresh resolution of the broker's tree by jgo."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as folder:
        maven = MavenContext(repo_cache=Path(folder), local_repos=[], timeout=60)
        # Alone: beside another root, jgo would let that root's dependency management choose Kafka's versions.
        root, tree = maven.resolver.get_dependency_list([maven.create_dependency(KAFKA)])
        artifacts = [node.dep.artifact for node in [*root.children, *tree]]
        artifacts.append(maven.create_dependency(LOGGING).artifact)
        return sorted(_line(artifact.component, artifact.resolve()) for artifact in artifacts)


def _line(component: object, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    coordinate = f"{component.groupId}:{component.artifactId}:{component.version}"  # type: ignore[attr-defined]
    return f"{coordinate} {path.stat().st_size} {digest}"


if __name__ == "__main__":
    _header = "# Every jar that the broker needs: coordinate, bytes, sha256. Written by: python -m tailrace_local.jars"
    _LIST.write_text("\n".join([_header, *resolve()]) + "\n")
