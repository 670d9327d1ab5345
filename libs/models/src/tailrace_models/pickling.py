"""River's state as bytes: the same state gives the same bytes, and the bytes can only make river's own objects.

river's models hold Rust and Cython state, which nothing but pickle writes. Pickle has two flaws for us.

It remembers objects by identity: two equal strings are written twice, one string used twice is written once. A model
that has been restored shares other strings than the one that never stopped, so equal states would differ in bytes.
Here strings are written by value, as numbers in a table that goes before the pickle. Sets, whose order depends on the
process, are written sorted. (No learner depends on that order: river's trees walk through a leaf's words only to
find a two-way split better than the split into all words, and two of equal merit are both worth nothing.)

It can call anything. Here every name it asks for must be one of a short list of modules of river, and there a class
that this module itself defines; or one of a few harmless names of the standard library. Attributes of such classes,
functions and other modules cannot be reached: dotted names are refused, and `getattr` gives one method of one class.
"""

from __future__ import annotations

import collections
import functools
import importlib
import io
import json
import pickle
import random
import statistics
from typing import Any

from river.proba.base import Distribution
from river.tree.splitter.qo_splitter import Slot

from tailrace_models.errors import ArtefactCorrupt

PROTOCOL = 5
_LENGTH_BYTES = 4

_PACKAGES = ("drift", "forest", "linear_model", "metrics", "optim", "preprocessing", "proba", "stats", "tree")
_MODULES = tuple(f"river.{package}" for package in (*_PACKAGES, "_river_rust"))

_NAMES: dict[tuple[str, str], Any] = {
    ("builtins", "bool"): bool,
    ("builtins", "dict"): dict,
    ("builtins", "float"): float,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "int"): int,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "str"): str,
    ("builtins", "tuple"): tuple,
    ("collections", "Counter"): collections.Counter,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "deque"): collections.deque,
    ("functools", "partial"): functools.partial,
    ("random", "Random"): random.Random,
    ("statistics", "NormalDist"): statistics.NormalDist,
}


def _method_of_a_slot(owner: Any, name: Any) -> Any:
    """What stands in for `getattr`, by which pickle writes bound methods: regression trees' slots hold this one."""
    if type(owner) is Slot and name == "_update_estimator_univariate":
        return owner._update_estimator_univariate  # noqa: SLF001  # river's own field for it is private too
    raise ArtefactCorrupt(
        f"river state asks for attribute {name!r} of a {type(owner).__name__}, which no learner of ours does; "
        "do not load it, and find out who wrote it"
    )


_NAMES["builtins", "getattr"] = _method_of_a_slot


class _Pickler(pickle.Pickler):
    """Writes a string as its number in `strings`, and a set as the tuple of its sorted members."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self.strings: dict[str, int] = {}

    def persistent_id(self, obj: Any) -> int | tuple[Any, ...] | None:
        if type(obj) is str:
            return self.strings.setdefault(obj, len(self.strings))
        if type(obj) is set:
            return tuple(sorted(obj, key=lambda member: (type(member).__name__, member)))
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Leave out the random generator that every unseeded distribution of a tree's leaves carries.

        It starts from the machine's entropy, so equal learners would differ; it is 2.5 kB each; and only `sample`,
        which no learner calls, asks it.
        """
        if not isinstance(obj, Distribution) or obj.seed is not None:
            return NotImplemented
        make, arguments, state, *rest = obj.__reduce_ex__(PROTOCOL)
        return (make, arguments, {**state, "_rng": None}, *rest)


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote, and makes nothing but river's objects and plain containers."""

    def __init__(self, file: io.BytesIO, strings: list[str]) -> None:
        super().__init__(file)
        self._strings = strings

    def persistent_load(self, pid: Any) -> str | set[Any]:
        return set(pid) if isinstance(pid, tuple) else str(self._strings[pid])

    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module, name))
        if known is not None:
            return known
        ours = module.startswith(tuple(f"{each}." for each in _MODULES)) or module in _MODULES
        found = getattr(importlib.import_module(module), name, None) if ours and "." not in name else None
        if not isinstance(found, type) or found.__module__ != module:
            raise ArtefactCorrupt(
                f"river state asks for {module}.{name}, which no learner of ours is made of; "
                "do not load it, and find out who wrote it"
            )
        return found


def dump(state: Any) -> bytes:
    """The state's bytes: a table of strings, then the pickle."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(state)
    table = json.dumps(list(pickler.strings), separators=(",", ":")).encode()
    return len(table).to_bytes(_LENGTH_BYTES, "big") + table + file.getvalue()


def restore(data: bytes) -> Any:
    """The state in bytes of `dump`. Only for bytes whose signature was verified. Raises ArtefactCorrupt."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    try:
        strings = json.loads(data[_LENGTH_BYTES:end])
        if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
            raise ArtefactCorrupt("river state has a damaged table of strings; publish the artefact again")
        return _Unpickler(io.BytesIO(data[end:]), strings).load()
    except (ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError, pickle.UnpicklingError) as error:
        raise ArtefactCorrupt(f"river state cannot be read ({error}); publish the artefact again") from None
