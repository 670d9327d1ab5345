"""What happens when a horizon has passed: what waited is let go, labels in vain are refused, old cohorts forgotten.

How long something has waited, and by which clocks, is told in joining.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from tailrace_ingestion.domain.coverage import CohortKey, cohort_of, cohort_prefix, sortable
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.join_records import Refused, refused
from tailrace_ingestion.domain.join_state import (
    EXPIRED,
    LABELS,
    PREDICTIONS,
    Entry,
    Half,
    Keys,
    entry_key,
    wait_key,
    wait_prefix,
)
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.domain.transaction import Transaction
from tailrace_ingestion.domain.wire import decode_label

_EXPIRED_AT_ONCE = 10_000


def expire(transaction: Transaction, model: str, horizon_seconds: float, keys: Keys) -> list[Refused]:
    """Let go of what has waited for too long; the labels among it. `keys` gives index keys in [first, last)."""
    gone: list[Refused] = []
    for kind, awaited in ((PREDICTIONS, LABELS), (LABELS, PREDICTIONS), (EXPIRED, LABELS)):
        own = PREDICTIONS if kind == EXPIRED else kind
        by_other = transaction.progress.newest[awaited].get(model, float("-inf")) - horizon_seconds
        by_own = transaction.progress.newest[own].get(model, float("-inf")) - horizon_seconds
        if max(by_other, by_own) == float("-inf"):
            continue
        prefix = wait_prefix(kind, model)
        found = keys(prefix, prefix + sortable(max(by_other, by_own)), _EXPIRED_AT_ONCE)
        names = {each: each[len(prefix) + 8 :].decode() for each in found}
        transaction.load_keys(entry_key(model, name) for name in names.values())
        for index_key, name in names.items():
            over = by_other > float("-inf") and index_key[: len(prefix) + 8] < prefix + sortable(by_other)
            waiting = _half_of(transaction, kind, entry_key(model, name))
            if waiting is not None and not over and not _waited(transaction, waiting, horizon_seconds):
                break
            transaction.changes[index_key] = None
            if waiting is not None:
                gone.extend(_let_go(transaction, kind, model, name, horizon_seconds))
    return gone


def _half_of(transaction: Transaction, kind: str, key: bytes) -> Half | None:
    """What still waits under an index key; nothing if the index is older than the entry."""
    entry = transaction.entry(key)
    if entry is None or entry.over != (kind == EXPIRED):
        return None
    return entry.label if kind == LABELS else entry.prediction


def _waited(transaction: Transaction, half: Half, horizon_seconds: float) -> bool:
    """Whether a horizon of the broker's clock has passed, too."""
    return half.timestamp_ms + horizon_seconds * 1000 <= transaction.progress.newest_timestamp_ms


def _let_go(transaction: Transaction, kind: str, model: str, name: str, horizon_seconds: float) -> Iterable[Refused]:
    """One entry's horizon is over. One that was joined is let go, too, without being counted."""
    key, counts = entry_key(model, name), transaction.progress.of(model)
    entry = transaction.entry(key) or Entry()
    if kind == PREDICTIONS and entry.label is None:
        counts.expired_predictions += 1
        counts.waiting_predictions -= 1
        transaction.counted(model, entry).expired += 1
    if kind == PREDICTIONS and entry.prediction is not None:
        _remember(transaction, key, entry, entry.prediction, horizon_seconds)
    elif kind == EXPIRED:
        transaction.put(key, None)
    elif entry.prediction is None and entry.label is not None:
        counts.unmatched_labels += 1
        counts.waiting_labels -= 1
        transaction.put(key, None)
        yield _unmatched(transaction, entry.label, horizon_seconds)


def _remember(transaction: Transaction, key: bytes, entry: Entry, prediction: Half, horizon_seconds: float) -> None:
    """Of a prediction that is over, its place and what its label said, for a second horizon."""
    _, model, name = key.decode().split("|", 2)
    base = prediction.base + horizon_seconds
    place = Half(prediction.offset, b"", base, prediction.timestamp_ms + int(horizon_seconds * 1000))
    said = None if entry.label is None else decode_label(entry.label.value).label
    transaction.put(key, Entry(place, None, entry.revision, entry.window, over=True, said=said))
    transaction.changes[wait_key(EXPIRED, model, base, name)] = b""


def _unmatched(transaction: Transaction, half: Half, horizon_seconds: float) -> Refused:
    label = decode_label(half.value)
    _, cohort = transaction.cohort(label.model, label.time.timestamp())
    cohort.unmatched_labels += 1
    cohort.first[LABELS] = min(cohort.first[LABELS], half.offset)
    reason = (
        f"no prediction {label.prediction_id} of model {label.model} came within {horizon_seconds / DAY_SECONDS:g} "
        "days of its label; publish it, then replay this label"
    )
    return refused(label, half, Reason.PREDICTION_NEVER_CAME, reason)


def forget_cohorts(transaction: Transaction, model: str, older_than: float, keys: Keys) -> list[CohortKey]:
    """Drop cohorts that began so long ago that nobody asks any more; gives their keys."""
    prefix = cohort_prefix(model)
    found = keys(prefix, prefix + sortable(older_than), _EXPIRED_AT_ONCE)
    transaction.changes.update(dict.fromkeys(found))
    return [cohort_of(key) for key in found]
