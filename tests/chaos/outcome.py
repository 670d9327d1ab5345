"""What a run of rollouts left on the topics, compared with what callers and commanders have in hand.

answers       every one is a prediction event with the same content, or (buffered) is counted as lost
labels        every answer of the model that loses none became one labelled example, which monitoring counted once
transitions   the audit chain is whole; each command has one answer; each version moves as it may, from where it was
deployments   numbered without gap or double; the last one is what the registry itself says
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from tailrace_contracts.audit import each_once, verify_chain
from tailrace_contracts.events import AuditRecorded, BooksWritten, DeploymentChanged, PredictionMade
from tailrace_registry.domain.model import LEGAL
from tailrace_runtime.records import Record
from tests.chaos.fleet import Fleet
from tests.chaos.readout import Logs, Readout, Row
from tests.chaos.world import CAPTURES, MODELS, Told, World

READ = ("prediction-events", "labelled-examples", "audit-entries", "deployments", "registry-journal")


async def judged(readout: Readout, fleet: Fleet, world: World) -> list[Row]:
    """The verdict as it stands now."""
    async with httpx.AsyncClient(timeout=10) as client:
        monitoring = {model: await _page(client, fleet, model) for model in MODELS}
        registry = {model: await _deployment(client, fleet, model) for model in MODELS}
    logs = await readout.catch_up()
    lost = lost_by_kills(fleet.processes["serving"].written())
    return [
        *(_captured(model, world.answers[model], logs, lost[model]) for model in MODELS),
        *(_labelled(model, world.answers[model], logs, monitoring[model]) for model in MODELS),
        *_audited(world, logs),
        *(_deployed(model, logs, registry[model]) for model in MODELS),
    ]


async def _page(client: httpx.AsyncClient, fleet: Fleet, model: str) -> int:
    answer = await client.get(f"{fleet.processes['monitoring'].base}/api/models/{model}")
    return int(answer.json().get("labelled_examples", 0)) if answer.status_code == httpx.codes.OK else -1


async def _deployment(client: httpx.AsyncClient, fleet: Fleet, model: str) -> dict[str, Any]:
    answer = await client.get(f"{fleet.processes['registry'].base}/v1/models/{model}/deployments", params={"limit": 1})
    found: list[dict[str, Any]] = answer.json()["deployments"] if answer.status_code == httpx.codes.OK else []
    return found[0] if found else {}


def values(logs: Logs, topic: str) -> Iterator[Record]:
    """The records of a topic, log by log."""
    for records in logs[topic].values():
        yield from records


# ---------------------------------------------------------------- answers


def lost_by_kills(log: str) -> Counter[str]:
    """What serving says that it lost, by model: its log outlives its counters."""
    found: Counter[str] = Counter()
    for line in log.splitlines():
        if '"prediction events are lost"' in line:
            said = json.loads(line)
            found[said["model"]] += said["lost"]
    return found


def _captured(model: str, answers: Mapping[str, Told], logs: Logs, lost: int) -> Row:
    """Every answer on the topic as it was given; of a buffered model as many may be missing as were counted."""
    said: dict[str, list[Told]] = {}
    for record in values(logs, "prediction-events"):
        event = PredictionMade.model_validate_json(record.value or b"")
        if event.model == model and event.served is not None and event.served.version is not None:
            told = Told(event.served.prediction, event.served.version, event.served.arm)
            said.setdefault(event.prediction_id, []).append(told)
    missing = [name for name, told in answers.items() if told not in said.get(name, [])]
    allowed = lost if CAPTURES[model] == "buffered" else 0
    differences = () if len(missing) <= allowed else tuple(f"{name}: {answers[name]}" for name in missing[:3])
    what = f"{model} ({CAPTURES[model]}): {len(missing)} missing, {lost} counted"
    return Row(what, len(answers), len(answers) - len(missing) + min(len(missing), allowed), differences)


def _labelled(model: str, answers: Mapping[str, Told], logs: Logs, counted: int) -> Row:
    """Each captured answer's label made one example, whatever was published twice; monitoring counted each once."""
    examples = {
        json.loads(record.value or b"{}")["prediction_id"]
        for record in values(logs, "labelled-examples")
        if record.key == model.encode()
    }
    captured = {
        (record.key or b"").decode()
        for record in values(logs, "prediction-events")
        if (record.key or b"").startswith(model.encode())
    }
    missing = sorted((answers.keys() & captured) - examples)
    differences = tuple(f"{name} has no example" for name in missing[:3])
    return Row(f"{model}: examples, counted by monitoring", len(examples), counted, differences)


# ---------------------------------------------------------------- transitions


def _audited(world: World, logs: Logs) -> Iterator[Row]:
    texts = each_once(record.value or b"" for record in values(logs, "audit-entries"))
    whole = verify_chain(texts)
    yield Row(
        "audit entries, each joined to the one before", len(texts), whole.entries, (whole.reason,) * bool(whole.reason)
    )
    entries = [AuditRecorded.model_validate_json(text) for text in texts]
    answers = Counter(entry.command_id for entry in entries if entry.command_id)
    asked = set(world.commands)
    wrong = [f"command {name}: {answers[name]} answers" for name in asked if answers[name] != 1]
    yield Row("commands, each answered once", len(asked), len(answers.keys() & asked), tuple(wrong[:3]))
    moves = [entry for entry in entries if entry.action in LEGAL]
    yield Row("moves, each from where the version was", len(moves), *walked(moves))
    journal = [BooksWritten.model_validate_json(record.value or b"") for record in values(logs, "registry-journal")]
    numbers = sorted({change.number for change in journal})
    yield Row("changes in the journal, without a gap", numbers[-1] if numbers else 0, len(numbers))


def walked(moves: Sequence[AuditRecorded]) -> tuple[int, tuple[str, ...]]:
    """How many moves begin where the one before ended and go where they may; and the first that do not."""
    stands: dict[tuple[str, str], Any] = {}
    wrong: list[str] = []
    for entry in moves:
        place = entry.model, entry.subject
        before = stands.get(place)
        came = entry.reason.partition(":")[0]
        expected = f"from {before} to {entry.action}" if before else "registered"
        if came != expected or entry.action not in LEGAL[before]:
            wrong.append(f"entry {entry.sequence}: {entry.model} {entry.subject} {came}, and it was {before}")
        stands[place] = entry.action
    return len(moves) - len(wrong), tuple(wrong[:3])


def _deployed(model: str, logs: Logs, registry: Mapping[str, Any]) -> Row:
    """By number: each once, whatever was published twice, and the last one as the registry has it."""
    found: dict[int, set[bytes]] = {}
    for record in values(logs, "deployments"):
        event = DeploymentChanged.model_validate_json(record.value or b"")
        if event.model == model:
            found.setdefault(event.sequence, set()).add(record.value or b"")
    differences = [f"deployment {number} says different things" for number, said in found.items() if len(said) > 1]
    last = json.loads(next(iter(found[max(found)]))) if found else {}
    if last != registry:
        differences.append(
            f"the last on the topic is {last.get('sequence')}, the registry's {registry.get('sequence')}"
        )
    return Row(f"{model}: deployments", max(found, default=0), len(found), tuple(differences[:3]))
