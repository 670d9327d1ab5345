"""Envelopes that are damaged, forged, of another release, or hostile."""

from __future__ import annotations

import builtins
import functools
import hashlib
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import river
from hypothesis import given, settings
from hypothesis import strategies as st
from river.tree.splitter.qo_splitter import Slot

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.spec import OnlineLearner
from tailrace_models import (
    RIVER,
    SAFETENSORS,
    ArtefactCorrupt,
    ArtefactIncompatible,
    RiverModel,
    SignatureInvalid,
    envelope,
    load,
    pickling,
)

KEY = b"k" * 32


def spec(feature: str = "wind", **changes: Any) -> ModelSpec:
    """One number."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "o",
            "label": {"name": "rain"},
            "features": [{"name": feature, "type": "numerical", **changes}],
        }
    )


@functools.cache
def written() -> bytes:
    """A sound envelope."""
    model = RiverModel.build(OnlineLearner(), spec())
    model.learn({"wind": 3.0}, 1)
    return model.to_envelope(KEY)


def table_and(code: bytes, *strings: str) -> bytes:
    """A state with this pickle and these strings."""
    table = json.dumps(strings).encode()
    return len(table).to_bytes(4, "big") + table + code


def test_the_signature_covers_everything() -> None:
    """Someone with access to the object store could change what a model answers."""
    with pytest.raises(SignatureInvalid, match="signing_key_file"):
        RiverModel.from_envelope(written(), b"another key")


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_every_damaged_byte_is_found(place: int, change: int) -> None:
    """A damaged artefact would be unpickled."""
    data = bytearray(written())
    data[place % len(data)] ^= change
    with pytest.raises((ArtefactCorrupt, SignatureInvalid)):
        RiverModel.from_envelope(bytes(data), KEY)


@pytest.mark.parametrize("length", [0, 10, 60, 100, -1])
def test_a_cut_envelope_is_corrupt(length: int) -> None:
    """A half-written artefact would be reported as somebody's forgery."""
    with pytest.raises(ArtefactCorrupt, match="again"):
        RiverModel.from_envelope(written()[:length], KEY)


def test_a_forged_digest_does_not_help() -> None:
    """Someone who writes a digest of their own would get past the signature."""
    body = written()[:-64] + b"more"
    forged = body + hashlib.sha256(body).digest() + written()[-32:]
    with pytest.raises(SignatureInvalid):
        RiverModel.from_envelope(forged, KEY)


def test_nothing_is_unpickled_before_the_signature_holds(tmp_path: Path) -> None:
    """The signature would be checked after the damage is done."""
    trace = tmp_path / "trace"
    data = envelope.seal({}, table_and(hostile(os.system, f"touch {trace}")), b"their key")
    with pytest.raises(SignatureInvalid):
        RiverModel.from_envelope(data, KEY)
    assert not trace.exists()


def test_another_river_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade old pickles would fail somewhere inside river."""
    data = written()
    monkeypatch.setattr(river, "__version__", "99.0.0")
    with pytest.raises(ArtefactIncompatible, match=r"written by river .*, this program has 99\.0\.0"):
        RiverModel.from_envelope(data, KEY)


def test_another_format_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older service would misread an envelope of a newer release."""
    with monkeypatch.context() as patch:
        patch.setattr(envelope, "FORMAT_VERSION", 2)
        data = envelope.seal({}, b"", KEY)
    with pytest.raises(ArtefactIncompatible, match="format 2, expected 1"):
        RiverModel.from_envelope(data, KEY)


def test_an_empty_signing_key_is_refused() -> None:
    """A deployment without a key would believe that its artefacts are signed."""
    with pytest.raises(ValueError, match="signing key is empty"):
        RiverModel.build(OnlineLearner(), spec()).to_envelope(b"")


def test_serving_refuses_a_model_of_other_features() -> None:
    """After a change of the spec a model would answer from features that it never saw."""
    with pytest.raises(ArtefactIncompatible, match="other features or classes than model 'rain'"):
        load(RIVER, written(), signing_key=KEY, spec=spec("rainfall"))
    changed = spec(limits={"min": -1, "max": 9}, on_out_of_limits="clip")
    assert load(RIVER, written(), signing_key=KEY, spec=changed).predict([{"wind": 3.0}])


def test_what_cannot_answer_is_refused_by_media_type() -> None:
    """Weights for resuming would be handed to serving and fail in a strange place."""
    with pytest.raises(ArtefactIncompatible, match="safetensors"):
        load(SAFETENSORS, b"", signing_key=KEY, spec=spec())


def hostile(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A pickle that calls a function while it is read."""

    class Call:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return function, arguments

    return pickle.dumps(Call(), protocol=pickling.PROTOCOL)


def asking_for(module: str, name: str) -> bytes:
    """A pickle that asks for a name, as protocol 4 and later write it (dots reach into attributes)."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x05" + texts + b"\x93."


@pytest.mark.parametrize(
    "code",
    [
        hostile(os.system, "true"),
        hostile(builtins.eval, "1"),
        hostile(builtins.__import__, "os"),
        hostile(builtins.getattr, "x", "upper"),
        hostile(builtins.getattr, Slot(1.0, 1.0), "__class__"),
        hostile(builtins.open, "/etc/passwd"),
        hostile(subprocess.Popen, ["true"]),
        hostile(pickle.loads, b""),
        hostile(functools.reduce, "x"),
        b"cos\nsystem\n(S'true'\ntR.",
        b"cposix\nsystem\n(S'true'\ntR.",
    ],
)
def test_hostile_calls_are_refused(code: bytes) -> None:
    """Whoever holds the signing key of one deployment would own every machine that serves its models."""
    with pytest.raises(ArtefactCorrupt, match="river state asks for"):
        pickling.restore(table_and(code))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("river", "datasets"),
        ("river.tree", "base"),
        ("river.drift.adwin", "ADWIN.__init__"),
        ("river.forest.adaptive_random_forest", "random.Random"),
        ("river.forest.adaptive_random_forest", "math"),
        ("river.forest.adaptive_random_forest", "abc"),
        ("river.forest.adaptive_random_forest", "poisson"),
        ("river.forest.adaptive_random_forest", "ADWIN"),
        ("river.stats.base", "abc.sys.modules"),
        ("river.datasets.phishing", "Phishing"),
        ("river.stream.cache", "Cache"),
        ("river.utils.pretty", "humanize_bytes"),
        ("river.optim.base", "__loader__"),
        ("river_of_evil", "Model"),
        ("river.treehouse", "Model"),
        ("tailrace_models.pickling", "restore"),
        ("functools", "partialmethod"),
        ("functools", "partial.func"),
        ("builtins", "type"),
        ("builtins", "object"),
    ],
)
def test_names_beside_rivers_own_classes_are_refused(module: str, name: str) -> None:
    """River's modules import others; through them a pickle would reach the operating system."""
    with pytest.raises(ArtefactCorrupt, match="river state"):
        pickling.restore(table_and(asking_for(module, name)))


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x04null.", b"\x00\x00\x00\x03[1].", b"\xff" * 9]
)
def test_a_state_that_is_none_is_corrupt(data: bytes) -> None:
    """A broken state would end in a traceback of pickle."""
    with pytest.raises(ArtefactCorrupt, match="publish the artefact again"):
        pickling.restore(data)
