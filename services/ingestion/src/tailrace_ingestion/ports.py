"""What ingestion needs from the world, by role. Whoever implements them raises RetryLater while the world is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace_contracts.events import SpecTookEffect
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion.domain.model import Model
from tailrace_runtime.records import Record


class Specs(Protocol):
    """The specs of all models as they stand now, compiled."""

    def models(self) -> Mapping[str, Model]:
        """Every model by name."""
        ...

    async def refresh(self) -> None:
        """Learn of specs that were applied a moment ago. May do nothing when it was called just before."""
        ...


class ModelsAt(Protocol):
    """The models by which the events of one log are checked."""

    async def of(self, names: Collection[str], offset: int) -> Mapping[str, Model]:
        """Those of the names that have a spec, as it is in force from this offset on."""
        ...


Compile = Callable[[ModelSpec, int], Model]
"""Makes a revision of a spec ready for the checks."""


class PublishedEffects(Protocol):
    """What took effect, on its topic."""

    async def all(self) -> list[SpecTookEffect]:
        """Everything that was ever written down, in order."""
        ...


class PublishedPartials(Protocol):
    """Partials on their topic."""

    async def of_sources(self, partitions: Iterable[int]) -> Mapping[int, list[bytes]]:
        """For each source partition, every partial that is on the topic, in the order of publication."""
        ...


class Places(NamedTuple):
    """Offsets of one log: its first, the group's committed one (the next to read), and its end."""

    first: int
    committed: int
    end: int


class Offsets(Protocol):
    """Where a consumer group stands, and the records that it has behind it."""

    async def places(self, logs: Iterable[Log]) -> Mapping[Log, Places]:
        """The places of each log."""
        ...

    def records(self, log: Log, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """The records of a log from `start` on and before `end`, in batches. They are there: retention kept them."""
        ...


class Store(Protocol):
    """An ordered key-value store; one for each partition of the join."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key."""
        ...

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values under these keys, in their order."""
        ...

    def keys(self, first: bytes, before: bytes, limit: int) -> list[bytes]:
        """The first so many keys in [first, before), in their order."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put or (None) delete all of these, or none of them."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Stores(Protocol):
    """Where the stores are."""

    def open(self, partition: int) -> Store:
        """The partition's store; empty when there was none or it cannot be read."""
        ...

    def destroy(self, partition: int) -> None:
        """Forget the partition's store."""
        ...


class Objects(Protocol):
    """The object store, as far as the archive uses it."""

    async def put(self, key: str, data: bytes) -> None:
        """Store the bytes under the key."""
        ...

    async def sizes(self, prefix: str) -> Mapping[str, int]:
        """The keys in a folder, with the bytes of each."""
        ...

    async def delete(self, key: str) -> None:
        """Remove what is under the key, if anything is."""
        ...
