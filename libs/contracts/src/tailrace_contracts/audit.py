"""The audit chain: how an entry is sealed, and how anyone can check that nothing was changed, lost or added.

Every entry carries the digest of the entry before it, so whoever holds the newest digest holds all of them. A digest is
the sha256 of the entry's canonical JSON: keys sorted, no spaces, UTF-8, without `sha256` itself. It is taken of the JSON
as it was published and not of the parsed event: an entry of a later release may carry fields that this one does not know,
and its digest covers them all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from tailrace_contracts.events import AuditRecorded, Event

GENESIS = "0" * 64
"""`previous_sha256` of the first entry."""


EXPORT_FORMAT = "tailrace-audit-export"
_LINK = ("sequence", "previous_sha256", "sha256")


class Link(NamedTuple):
    """The end of a chain: what the next entry is joined to."""

    sequence: int = 0
    sha256: str = GENESIS


class Verification(NamedTuple):
    """What a check of a chain found. `broken_at` is the sequence of the first entry that does not fit."""

    entries: int
    head: Link
    broken_at: int | None = None
    reason: str = ""

    @property
    def intact(self) -> bool:
        """Whether every entry fits the one before it."""
        return self.broken_at is None


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes of an entry that its digest is taken of.

    >>> canonical({"b": 1, "a": "é", "sha256": "left out"}).decode()
    '{"a":"é","b":1}'
    """
    covered = {key: value for key, value in document.items() if key != "sha256"}
    return json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """The sha256 that an entry must carry, in hex."""
    return hashlib.sha256(canonical(document)).hexdigest()


def digest_of(event: Event) -> str:
    """The sha256 by which an audit entry vouches for an event: of its canonical JSON, as an entry's own is."""
    return digest(json.loads(event.encode()))


def seal(entry: AuditRecorded, head: Link) -> AuditRecorded:
    """The entry joined to the chain's end: its sequence and both digests are set here, whatever they were."""
    joined = entry.model_copy(update={"sequence": head.sequence + 1, "previous_sha256": head.sha256})
    return joined.model_copy(update={"sha256": digest(json.loads(joined.encode()))})


def end_of(entry: AuditRecorded) -> Link:
    """The chain's end after this entry."""
    return Link(entry.sequence, entry.sha256)


def _fault(document: Any, head: Link, *, withheld: bool = False) -> str:
    if not isinstance(document, dict):
        return "it is not a JSON object"
    if document.get("sequence") != head.sequence + 1:
        return f"its sequence is {document.get('sequence')!r} where {head.sequence + 1} was expected"
    if document.get("previous_sha256") != head.sha256:
        return f"it follows {document.get('previous_sha256')!r} and the entry before it is {head.sha256}"
    if withheld and not isinstance(document.get("sha256"), str):
        return "it is withheld and carries no digest"
    if not withheld and document.get("sha256") != digest(document):
        return "its content does not have the digest that it carries"
    return ""


class ExportInvalid(ValueError):  # noqa: N818 - named for what is true
    """A file that is no export, or one that was changed. Its text is one sentence for a person."""


def export(values: Iterable[bytes | str], model: str, since: datetime, until: datetime) -> Iterator[str]:
    """The audit of one model in [since, until) as lines of a file that an outsider can check: see `verify_export`.

    `values` are the whole chain, oldest first, as it stands on the topic. The file begins with a line that says what it is.
    Then comes every link of the chain from the model's first entry in that time to its last. Entries of other models are
    withheld: of them there are only the digests that join the chain.
    """
    entries = [json.loads(value) for value in values]
    wanted = [
        each["sequence"]
        for each in entries
        if each["model"] == model and since <= datetime.fromisoformat(each["time"]) < until
    ]
    chain = [each for each in entries if wanted and wanted[0] <= each["sequence"] <= wanted[-1]]
    yield json.dumps(
        {
            "format": EXPORT_FORMAT,
            "format_version": 1,
            "model": model,
            "since": since.isoformat(),
            "until": until.isoformat(),
            "links": len(chain),
            "begins_after_sha256": chain[0]["previous_sha256"] if chain else "",
            "ends_with_sha256": chain[-1]["sha256"] if chain else "",
        }
    )
    for each in chain:
        whole = each["model"] == model
        yield json.dumps(
            each if whole else {name: each[name] for name in _LINK} | {"withheld": True}, ensure_ascii=False
        )


def verify_export(lines: Iterable[str]) -> Verification:
    """Check a file of `export`: that each entry has its digest, and that all links join from the first to the last.

    Raises ExportInvalid for a file that is no export.
    """
    first, *rest = [line for line in lines if line.strip()] or [""]
    head = _parsed(first)
    if not isinstance(head, dict) or head.get("format") != EXPORT_FORMAT:
        raise ExportInvalid("the file is no audit export; make one with `tailrace audit export MODEL`")
    if head.get("format_version") != 1:
        raise ExportInvalid(f"the export is of format version {head.get('format_version')!r}, and this reads version 1")
    link = Link(sha256=str(head.get("begins_after_sha256")))
    for number, line in enumerate(rest):
        document = _parsed(line)
        if number == 0 and isinstance(document, dict) and isinstance(document.get("sequence"), int):
            link = Link(document["sequence"] - 1, link.sha256)
        withheld = isinstance(document, dict) and document.get("withheld") is True
        fault = _fault(document, link, withheld=withheld)
        if fault:
            at = link.sequence + 1
            return Verification(number, link, at, f"audit entry {at} was changed, lost or added: {fault}")
        link = Link(document["sequence"], document["sha256"])
    if len(rest) != head.get("links") or (rest and link.sha256 != head.get("ends_with_sha256")):
        return Verification(len(rest), link, link.sequence + 1, "the file does not end where its first line says")
    return Verification(len(rest), link)


def _parsed(value: bytes | str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None


def each_once(values: Iterable[bytes]) -> list[bytes]:
    """The entries of a topic, without those that a registry sent again after a crash: the very bytes of one before.

    An entry that differs in a single byte from the one that it repeats stays, and breaks the chain.
    """
    return list(dict.fromkeys(values))


def verify_chain(values: Iterable[bytes | str], after: Link = Link()) -> Verification:  # noqa: B008 - an immutable value
    """Check entries as they stand on the topic `audit-entries` (or in a file, one JSON object a line), oldest first.

    `after` is the end of what was checked before, so that a long chain can be checked in pieces. Stops at the first
    entry that does not fit: what comes behind a break proves nothing.
    """
    head = after
    entries = 0
    for value in values:
        document = _parsed(value)
        fault = _fault(document, head)
        if fault:
            at = head.sequence + 1
            return Verification(entries, head, at, f"audit entry {at} was changed, lost or added: {fault}")
        head = Link(document["sequence"], document["sha256"])
        entries += 1
    return Verification(entries, head)
