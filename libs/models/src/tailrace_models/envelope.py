"""The signed envelope: how the state of an online learner is written and read.

    magic | header length (4 bytes) | header (JSON) | state (pickle) | sha256 | HMAC-SHA256

The sha256 covers everything before it and tells damage from forgery. The HMAC, under the deployment's signing key,
covers everything before it, the digest too. Reading goes in that order: format, digest, signature, versions, and only
then is the state unpickled, by an unpickler that knows river's classes and nothing else (`pickling`). The same header
and state give the same bytes, on any machine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, NamedTuple

import river

from tailrace_models.errors import ArtefactCorrupt, ArtefactIncompatible, SignatureInvalid

MAGIC = b"TAILRACE RIVER\n"
FORMAT_VERSION = 1
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32


class Envelope(NamedTuple):
    """A verified envelope: what the header says, and the state, still pickled."""

    header: dict[str, Any]
    state: bytes


def seal(header: dict[str, Any], state: bytes, signing_key: bytes) -> bytes:
    """The envelope's bytes. The header is JSON; format and river version are added to it."""
    if not signing_key:
        raise ValueError("the signing key is empty; set signing_key_file to a file with at least 32 random bytes")
    full = {**header, "format_version": FORMAT_VERSION, "river_version": river.__version__}
    text = json.dumps(full, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    body = MAGIC + len(text).to_bytes(_LENGTH_BYTES, "big") + text + state
    digested = body + hashlib.sha256(body).digest()
    return digested + _signature(digested, signing_key)


def unseal(data: bytes, signing_key: bytes) -> Envelope:
    """The envelope in these bytes.

    Raises ArtefactCorrupt (not an envelope, or damaged), SignatureInvalid (not signed with this key) or
    ArtefactIncompatible (written by another format or another river).
    """
    least = len(MAGIC) + _LENGTH_BYTES + 2 * _DIGEST_BYTES
    if len(data) < least or not data.startswith(MAGIC):
        raise ArtefactCorrupt(f"river artefact of {len(data)} bytes is not in the signed envelope; publish it again")
    digested, signature = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    body, digest = digested[:-_DIGEST_BYTES], digested[-_DIGEST_BYTES:]
    if not hmac.compare_digest(hashlib.sha256(body).digest(), digest):
        raise ArtefactCorrupt(f"river artefact of {len(data)} bytes does not match its own sha256; fetch it again")
    if not hmac.compare_digest(_signature(digested, signing_key), signature):
        raise SignatureInvalid(
            "river artefact is not signed with this deployment's signing key; "
            "give every service the same signing_key_file, and load nothing that others wrote"
        )
    return _opened(body)


def _opened(body: bytes) -> Envelope:
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(MAGIC) : start], "big")
    header = json.loads(body[start:end])
    if header["format_version"] != FORMAT_VERSION:
        raise ArtefactIncompatible(
            f"river artefact has envelope format {header['format_version']}, expected {FORMAT_VERSION}; "
            "let the training service of this release publish a new revision"
        )
    if header["river_version"] != river.__version__:
        raise ArtefactIncompatible(
            f"river artefact was written by river {header['river_version']}, this program has {river.__version__}; "
            "run the same release in training and serving, or train anew"
        )
    return Envelope(header, body[end:])


def _signature(digested: bytes, signing_key: bytes) -> bytes:
    return hmac.new(signing_key, digested, hashlib.sha256).digest()
