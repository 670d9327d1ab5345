"""What training keeps in the object store beside artefacts: a batch run's files, under `training/<run id>/`."""

from __future__ import annotations

from urllib.parse import quote

from tailrace_runtime.errors import ObjectMissing
from tailrace_runtime.objects import ObjectStore


class StoredRunFiles:
    """Run files in the object store, where any process of this service finds them."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def read(self, run_id: str, name: str) -> bytes | None:
        """The file, or None."""
        try:
            return await self._objects.get(_key(run_id, name))
        except ObjectMissing:
            return None

    async def write(self, run_id: str, name: str, data: bytes) -> None:
        """Keep or replace the file."""
        await self._objects.put(_key(run_id, name), data)

    async def remove(self, run_id: str, name: str) -> None:
        """Let the file go, if it is there."""
        await self._objects.delete(_key(run_id, name))


def _key(run_id: str, name: str) -> str:
    """A run id is a stranger's word: nothing of it may be read as a path."""
    return f"training/{quote(run_id, safe='').replace('.', '%2E')}/{name}"
