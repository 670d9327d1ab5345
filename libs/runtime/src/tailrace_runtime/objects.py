"""The object store: artefacts under their sha256, and plain objects under keys, in a folder or in a cloud's bucket.

An artefact's bytes are verified against the claim check before anybody sees them. A store that is away is
`RetryLater`, so a handler needs to do nothing about it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from tailrace_contracts.events import ClaimCheck
from tailrace_runtime.errors import ArtefactCorrupt, ConfigurationFault, ObjectMissing, RetryLater


def artefact_key(sha256: str) -> str:
    """Where an artefact lies."""
    return f"sha256/{sha256}"


def claim_for(data: bytes, media_type: str) -> ClaimCheck:
    """The claim check of these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    return ClaimCheck(key=artefact_key(digest), sha256=digest, size_bytes=len(data), media_type=media_type)


class ObjectStore:
    """Objects by key. Writing is atomic: a reader sees the old bytes or the new ones."""

    def __init__(self, store: Any, url: str) -> None:
        self._store = store
        self._url = url

    @classmethod
    def from_url(cls, url: str) -> ObjectStore:
        """The store at `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…` or `memory:///`.

        Raises:
            ConfigurationFault: the URL names no store, or the folder cannot be made.
        """
        try:
            store = from_url(url, mkdir=True) if url.startswith("file:") else from_url(url)
        except (BaseError, OSError, ValueError) as error:
            raise ConfigurationFault(f"TAILRACE_OBJECT_STORE {url!r} cannot be used: {error}") from error
        return cls(store, url)

    async def put_artefact(self, data: bytes, media_type: str) -> ClaimCheck:
        """Store bytes under their digest; storing them again changes nothing."""
        claim = claim_for(data, media_type)
        await self.put(claim.key, data)
        return claim

    async def get_artefact(self, claim: ClaimCheck) -> bytes:
        """The bytes of a claim check, verified.

        Raises:
            ArtefactCorrupt: the bytes are others, or the claim names another place than its digest's.
            ObjectMissing: there is nothing.
        """
        if claim.key != artefact_key(claim.sha256):
            raise ArtefactCorrupt(f"artefact {claim.sha256} is claimed to lie at {claim.key!r}, which is not its place")
        data = await self.get(claim.key)
        found = hashlib.sha256(data).hexdigest()
        if found != claim.sha256:
            raise ArtefactCorrupt(
                f"artefact {claim.key} in {self._url} is corrupt: its sha256 is {found}, {len(data)} bytes;"
                f" {claim.size_bytes} bytes were expected"
            )
        return data

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        with self._away_means_later():
            await obstore.put_async(self._store, key, data)

    async def get(self, key: str) -> bytes:
        """Read an object.

        Raises:
            ObjectMissing: there is nothing under this key.
        """
        with self._reading(key):
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())

    async def put_file(self, key: str, path: Path) -> None:
        """Write an object from a file, in parts where it is large: it never lies in memory whole."""
        with self._away_means_later():
            await obstore.put_async(self._store, key, path)

    def open(self, key: str) -> io.RawIOBase:
        """An object as a file that fetches what is read of it and no more. It blocks: use it in a thread.

        Opening and reading raise ObjectMissing when there is nothing under this key, and RetryLater.
        """
        with self._reading(key):
            size = obstore.head(self._store, key)["size"]
        return _Ranges(size, partial(self._range, key))

    def _range(self, key: str, start: int, end: int) -> bytes:
        with self._reading(key):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    async def list(self, prefix: str) -> list[str]:
        """The keys under a prefix (a folder, without the last slash), sorted."""
        return sorted(await self.sizes(prefix))

    async def sizes(self, prefix: str) -> dict[str, int]:
        """The keys under a prefix (a folder, without the last slash), with the bytes of each."""
        with self._away_means_later():
            found = [entry async for chunk in obstore.list(self._store, prefix) for entry in chunk]
        return {entry["path"]: entry["size"] for entry in found}

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._away_means_later():
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                return

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        with self._away_means_later():
            try:
                yield
            except FileNotFoundError as error:
                raise ObjectMissing(f"the object store {self._url} has nothing under {key!r}") from error

    @contextmanager
    def _away_means_later(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise RetryLater(f"the object store {self._url} is away: {error}", 1.0) from error


class _Ranges(io.RawIOBase):
    """A file whose reads are requests for ranges."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        found = self._fetch(self._at, end) if end > self._at else b""
        self._at += len(found)
        return found
