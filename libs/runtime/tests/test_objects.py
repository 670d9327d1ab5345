"""The object store, in a folder and in memory: what is stored comes back, and corrupt bytes never do."""

from pathlib import Path

import pytest

from tailrace_contracts.events import ClaimCheck
from tailrace_runtime.errors import ArtefactCorrupt, ConfigurationFault, ObjectMissing
from tailrace_runtime.objects import ObjectStore


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Each kind of store, empty."""
    url = (tmp_path / "objects").as_uri() if request.param == "file" else "memory:///"
    return ObjectStore.from_url(url)


async def test_an_artefact_comes_back_whole(store: ObjectStore) -> None:
    """A model could not be loaded by who follows the topics."""
    claim = await store.put_artefact(b"weights", "application/vnd.onnx")
    again = await store.put_artefact(b"weights", "application/vnd.onnx")
    assert claim == again
    assert claim.size_bytes == 7
    assert await store.get_artefact(claim) == b"weights"


async def test_a_corrupt_artefact_is_refused(store: ObjectStore) -> None:
    """A damaged or replaced model would be served."""
    claim = await store.put_artefact(b"weights", "application/vnd.onnx")
    await store.put(claim.key, b"weightz")
    with pytest.raises(ArtefactCorrupt, match=r"is corrupt: its sha256 is [0-9a-f]{64}, 7 bytes"):
        await store.get_artefact(claim)


async def test_a_claim_cannot_point_elsewhere(store: ObjectStore) -> None:
    """A forged claim check would read any object of the store."""
    await store.put("secrets/key", b"k")
    claim = ClaimCheck(key="secrets/key", sha256="0" * 64, size_bytes=1, media_type="x")
    with pytest.raises(ArtefactCorrupt, match="not its place"):
        await store.get_artefact(claim)


async def test_what_is_not_there_is_said_by_name(store: ObjectStore) -> None:
    """An operator would not know which object is missing."""
    with pytest.raises(ObjectMissing, match="nothing under 'models/none'"):
        await store.get("models/none")


async def test_keys_are_listed_by_folder(store: ObjectStore) -> None:
    """The archive would not find its files."""
    for key in ("a/2", "a/1", "ab/3"):
        await store.put(key, b"x")
    assert await store.list("a") == ["a/1", "a/2"]
    await store.delete("a/1")
    await store.delete("a/1")
    assert await store.list("a") == ["a/2"]
    assert await store.list("none") == []


def test_a_store_that_cannot_be_used_is_one_sentence() -> None:
    """A typing error in a setting would be a traceback."""
    with pytest.raises(ConfigurationFault, match="TAILRACE_OBJECT_STORE 'ftp://x/y' cannot be used"):
        ObjectStore.from_url("ftp://x/y")
