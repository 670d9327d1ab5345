"""The join's state in RocksDB: one folder for each partition, one write batch for each batch of records.

A write reaches the operating system before it returns, so a killed process loses nothing. After a power cut the log may
lack its newest batches; state and offsets are in one batch, so what is left is consistent, and the rest is read again.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from tailrace_runtime.errors import ConfigurationFault

log = structlog.get_logger(__name__)

_WRITE_BUFFER_BYTES = 8 * 1024 * 1024
_CACHE_BYTES = 8 * 1024 * 1024
_BLOOM_BITS = 10.0
_LOG_BYTES = 32 * 1024 * 1024


class RocksStore:
    """One partition's store."""

    def __init__(self, folder: Path) -> None:
        self._db = Rdict(str(folder), _options())

    def get(self, key: bytes) -> bytes | None:
        """The value under a key."""
        found: bytes | None = self._db.get(key)
        return found

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values under these keys, in their order."""
        found: list[bytes | None] = self._db.get(keys) if keys else []
        return found

    def keys(self, first: bytes, before: bytes, limit: int) -> list[bytes]:
        """The first so many keys in [first, before), in their order."""
        inside = itertools.takewhile(lambda key: key < before, self._db.keys(from_key=first))
        return list(itertools.islice(inside, limit))

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put or (None) delete all of these, or none of them."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._db.write(batch)

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()


class RocksStores:
    """The stores of one process, each in its partition's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, partition: int) -> RocksStore:
        """The partition's store. One that cannot be read is put away and made anew: the topics have it all."""
        folder = self._folder / str(partition)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationFault(
                f"the join's state cannot be kept in {self._folder} ({error.strerror}); set TAILRACE_STATE_DIR"
            ) from error
        try:
            return RocksStore(folder)
        except Exception as error:  # rocksdict raises nothing more particular
            if "Corruption" not in str(error):
                raise
            log.exception("join state cannot be read, making it anew", folder=str(folder))
            self.destroy(partition)
            return RocksStore(folder)

    def destroy(self, partition: int) -> None:
        """Forget the partition's store."""
        shutil.rmtree(self._folder / str(partition), ignore_errors=True)


def _options() -> Any:
    options = Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003  # the library's signature
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(_LOG_BYTES)
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(_BLOOM_BITS, block_based=False)  # most ids of predictions are new: no file has them
    blocks.set_block_cache(Cache(_CACHE_BYTES))
    options.set_block_based_table_factory(blocks)
    return options
