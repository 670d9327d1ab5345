"""The gates of a rollout: what a candidate has to pass beside being better, judged from a comparison's own numbers.

A gate *fails* where even the mildest value that the evidence allows breaks its limit; it *passes* where the value itself
keeps the limit, on enough evidence; between the two, and without evidence, it *waits*. Each says so by name, with the
numbers and the log ranges that they are from. Nothing is remembered here: the same comparison is judged the same again,
and a gate that failed can pass once later evidence says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tailrace_contracts.events import AnswersMeasured, ArmsCompared, GateJudged, GroupWorsened
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import DataQualityGate, ErrorsGate, FairnessGate, Gates, LatencyGate
from tailrace_registry.domain.model import Model

State = Literal["passed", "failed", "waiting"]
Found = tuple[State, str]
"""A gate's state, and why."""

RARE_SHARE = 0.05
"""A group with fewer of the examples is judged when it has enough of them, and not waited for."""

PASSED: State = "passed"
FAILED: State = "failed"
WAITING: State = "waiting"


def judged(model: Model, compared: ArmsCompared) -> tuple[GateJudged, ...]:
    """How a candidate stands at each gate that the spec names, in the spec's order."""
    return tuple(_judged(model.spec.rollout.gates, compared))


def unpassed(gates: tuple[GateJudged, ...]) -> tuple[GateJudged, ...]:
    """The gates that hold a candidate back."""
    return tuple(gate for gate in gates if gate.state != PASSED)


def words_of(gates: tuple[GateJudged, ...]) -> str:
    """Gates in a sentence for people, each by its name."""
    verbs = {PASSED: "is passed", FAILED: "failed", WAITING: "waits"}
    return "; ".join(f"the {gate.gate} gate {verbs[gate.state]}: {gate.reason}" for gate in gates)


def _judged(gates: Gates, compared: ArmsCompared) -> Iterator[GateJudged]:
    if gates.fairness is not None:
        state, reason = _fairness(gates.fairness, compared)
        yield GateJudged(gate="fairness", state=state, reason=reason, derived_from=compared.derived_from)
    if gates.data_quality is not None:
        state, reason = _data_quality(gates.data_quality, compared)
        ranges = compared.input.derived_from if compared.input else LogRanges()
        yield GateJudged(gate="data-quality", state=state, reason=reason, derived_from=ranges)
    if gates.latency is not None:
        state, reason = _latency(gates.latency, compared)
        yield GateJudged(gate="latency", state=state, reason=reason, derived_from=compared.answers_from)
    if gates.errors is not None:
        state, reason = _errors(gates.errors, compared)
        yield GateJudged(gate="errors", state=state, reason=reason, derived_from=compared.answers_from)


# ---------------------------------------------------------------- fairness


def _fairness(gate: FairnessGate, compared: ArmsCompared) -> Found:
    groups = compared.groups
    if not groups:
        return WAITING, "no example of a protected group has been compared yet"
    excluded = [each for each in groups if each.interval.lower > gate.margin]
    if excluded:
        return FAILED, _worst(excluded, gate, compared)
    waited = [each for each in groups if each.examples < gate.min_group_examples and not _rare(each, groups)]
    if waited:
        fewest = min(waited, key=lambda each: each.examples)
        return WAITING, (
            f"{_name(fewest)} has {fewest.examples:,} of the {gate.min_group_examples:,} examples that it is judged on"
        )
    enough = [each for each in groups if each.examples >= gate.min_group_examples]
    if not enough:
        return WAITING, f"no group has the {gate.min_group_examples:,} examples that it is judged on"
    beyond = [each for each in enough if each.worsening > gate.margin]
    if beyond:
        return WAITING, f"{_worst(beyond, gate, compared)}, and chance may explain it so far"
    few = [_name(each) for each in groups if each.examples < gate.min_group_examples]
    unjudged = f"; too rare to be judged: {', '.join(few)}" if few else ""
    return PASSED, f"{_worst(enough, gate, compared)}{unjudged}"


def _rare(group: GroupWorsened, groups: tuple[GroupWorsened, ...]) -> bool:
    total = sum(each.examples for each in groups if each.attribute == group.attribute)
    return group.examples < RARE_SHARE * total


def _worst(groups: list[GroupWorsened], gate: FairnessGate, compared: ArmsCompared) -> str:
    worst = max(groups, key=lambda each: each.worsening)
    metric = (compared.group_metric or "metric").replace("_", " ")
    lower, upper = worst.interval.lower, worst.interval.upper
    ends = f"{lower:+.3f} to {1.0 if upper is None else upper:+.3f}"
    return (
        f"the {metric} of {_name(worst)} is {worst.candidate:.4g} and the champion's {worst.champion:.4g}, "
        f"worse by {worst.worsening:+.3f} ({ends}) over {worst.examples:,} examples; the spec allows {gate.margin:g}"
    )


def _name(group: GroupWorsened) -> str:
    return f"{group.attribute}={group.group}"


# ---------------------------------------------------------------- data quality


def _data_quality(gate: DataQualityGate, compared: ArmsCompared) -> Found:
    found = compared.input
    if found is None:
        return WAITING, "no window in which it answered has been summarised yet"
    if found.events < gate.min_events:
        return WAITING, f"{found.events:,} of the {gate.min_events:,} events that it is judged on have come in"
    sides = [(gate.max_invalid_rate, found.invalid_rates, "invalid")]
    if gate.max_missing_rate is not None:
        sides.append((gate.max_missing_rate, found.missing_rates, "missing"))
    said = [_worst_column(limit, rates, what) for limit, rates, what in sides]
    over = [sentence for sentence, breaks in said if breaks]
    reason = "; ".join(over or [sentence for sentence, _ in said])
    return FAILED if over else PASSED, f"{reason}, over {found.events:,} events"


def _worst_column(limit: float, rates: dict[str, float], what: str) -> tuple[str, bool]:
    if not rates:
        return f"no value is {what}", False
    name = max(rates, key=lambda each: rates[each])
    return f"{rates[name]:.2%} of {name} are {what}; the spec allows {limit:.2%}", rates[name] > limit


# ---------------------------------------------------------------- answers


def _answers(compared: ArmsCompared, version: int) -> AnswersMeasured | None:
    return next((each for each in compared.answers if each.version == version), None)


def _latency(gate: LatencyGate, compared: ArmsCompared) -> Found:
    mine = _answers(compared, compared.candidate)
    if mine is None or mine.timed < gate.min_calls:
        timed = mine.timed if mine else 0
        return WAITING, f"{timed:,} of the {gate.min_calls:,} calls that it is judged on have been timed"
    beside = _beside_champion(gate, compared, mine) if gate.max_ratio is not None else None
    alone = _by_itself(mine, gate.max_p99_ms) if gate.max_p99_ms is not None else None
    return _strictest([each for each in (alone, beside) if each])


def _by_itself(mine: AnswersMeasured, limit: float) -> Found:
    value, interval = mine.p99_ms or 0.0, mine.p99_interval
    ends = f" ({interval.lower:.3g} to {interval.upper or value:.3g})" if interval else ""
    said = f"its 99th percentile is {value:.3g} ms{ends} over {mine.timed:,} calls, and the spec allows {limit:g} ms"
    return _side(value, interval.lower if interval else value, limit, said)


def _beside_champion(gate: LatencyGate, compared: ArmsCompared, mine: AnswersMeasured) -> Found:
    other, limit = _answers(compared, compared.champion), gate.max_ratio or 1.0
    if other is None or other.timed < gate.min_calls or not other.p99_ms:
        timed = other.timed if other else 0
        return WAITING, f"{timed:,} of the champion's {gate.min_calls:,} calls to compare with have been timed"
    value = mine.p99_ms or 0.0
    low, high = mine.p99_interval, other.p99_interval
    mildest = (low.lower if low else value) / ((high.upper if high else None) or other.p99_ms)
    said = (
        f"its 99th percentile is {value:.3g} ms and the champion's {other.p99_ms:.3g} ms, {value / other.p99_ms:.2f} times "
        f"as long, and the spec allows {limit:g} times"
    )
    return _side(value / other.p99_ms, mildest, limit, said)


def _side(value: float, mildest: float, limit: float, said: str) -> Found:
    if mildest > limit:
        return FAILED, said
    return (PASSED, said) if value <= limit else (WAITING, f"{said}; chance may explain it so far")


def _strictest(found: list[Found]) -> Found:
    states = {each for each, _ in found}
    state = next(state for state in (FAILED, WAITING, PASSED) if state in states)
    return state, "; ".join(said for each, said in found if each == state)


def _errors(gate: ErrorsGate, compared: ArmsCompared) -> Found:
    mine = _answers(compared, compared.candidate)
    asked = mine.answered + mine.failed if mine else 0
    if mine is None or asked < gate.min_rows:
        return WAITING, f"it was asked {asked:,} of the {gate.min_rows:,} rows that it is judged on"
    rate, interval = mine.failed / asked, mine.failed_interval
    said = f"it failed on {mine.failed:,} of {asked:,} rows, {rate:.2%}, and the spec allows {gate.max_error_rate:.2%}"
    return _side(rate, interval.lower if interval else rate, gate.max_error_rate, said)
