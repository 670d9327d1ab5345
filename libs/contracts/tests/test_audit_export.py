"""An export of the audit chain can be checked by somebody who has nothing else."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace_contracts.audit import (
    ExportInvalid,
    Link,
    each_once,
    end_of,
    export,
    seal,
    verify_chain,
    verify_export,
)
from tailrace_contracts.events import AuditRecorded

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "audit-export.md"


def chain(*models: str) -> list[bytes]:
    """A chain with an entry for each of these models, an hour apart."""
    head, values = Link(), []
    for hour, model in enumerate(models):
        entry = AuditRecorded(
            sequence=1,
            model=model,
            actor="ann",
            action="promote",
            subject="version 3",
            outcome="done",
            reason="größer is better",
            time=NOON + timedelta(hours=hour),
            previous_sha256="",
            sha256="",
        )
        sealed = seal(entry, head)
        head = end_of(sealed)
        values.append(sealed.encode())
    return values


def exported(*models: str, since: int = 0, until: int = 100) -> list[str]:
    """The export of `rain` between two hours."""
    return list(export(chain(*models), "rain", NOON + timedelta(hours=since), NOON + timedelta(hours=until)))


def test_an_export_has_the_models_entries_and_withholds_the_others() -> None:
    """An auditor of one model would be handed the business of another."""
    head, *links = [json.loads(line) for line in exported("snow", "rain", "snow", "rain", "snow", since=1)]
    assert [(link["sequence"], link.get("withheld", False)) for link in links] == [(2, False), (3, True), (4, False)]
    assert (head["links"], head["ends_with_sha256"]) == (3, links[-1]["sha256"])
    assert set(links[1]) == {"sequence", "previous_sha256", "sha256", "withheld"}


def test_an_untouched_export_is_intact() -> None:
    """An honest file would be called forged."""
    found = verify_export(exported("snow", "rain", "snow", "rain", since=1))
    assert (found.intact, found.entries, found.head.sequence) == (True, 3, 4)


CHANGES: dict[str, Callable[[list[Any]], None]] = {
    "a word was changed": lambda lines: lines[2].update(reason="worse"),
    "an entry was left out": lambda lines: lines.pop(2),
    "an entry was put elsewhere": lambda lines: lines.insert(1, lines.pop(2)),
    "an entry was withheld in part": lambda lines: lines[2].update(previous_sha256="0" * 64, withheld=True),
    "the end was cut off": lambda lines: lines.pop(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_export_is_found_out(change: Callable[[list[Any]], None]) -> None:
    """A file could be doctored on its way to the auditor."""
    lines = [json.loads(line) for line in exported("rain", "rain", "snow", "rain")]
    change(lines)
    assert not verify_export([json.dumps(line) for line in lines]).intact


@pytest.mark.parametrize("lines", [[], ["{}"], ["no JSON"], [json.dumps({"format": "tailrace-audit-export"})]])
def test_another_file_is_refused_with_a_sentence(lines: list[str]) -> None:
    """Somebody who names the wrong file would see a traceback, or be told that it is intact."""
    with pytest.raises(ExportInvalid):
        verify_export(lines)


def test_entries_that_were_sent_again_after_a_crash_count_once() -> None:
    """Every crash of the registry's relay would look like tampering."""
    entries = chain("rain", "rain", "snow")
    again = [*entries[:2], *entries]
    assert not verify_chain(again).intact
    assert verify_chain(each_once(again)) == verify_chain(entries)
    changed = entries[1].replace(b"rain", b"hail")
    assert not verify_chain(each_once([*entries[:2], changed, entries[2]])).intact


def test_the_script_on_the_page_checks_an_export() -> None:
    """The outsider's own check would not work, or would find everything intact."""
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    names: dict[str, Any] = {}
    exec(script[1], names)  # noqa: S102  # the page's own script is what is tested
    lines = exported("rain", "snow", "rain")
    names["check"](lines)
    with pytest.raises(AssertionError):
        names["check"]([line.replace("ann", "bob") for line in lines])
