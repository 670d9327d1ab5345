"""The registry's HTTP API: what people and tools can read, and that it is all they can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest

from tailrace_contracts.events import ApplySpec, Event, MuteAlerts, PromoteVersion
from tailrace_contracts.ranges import LogRanges
from tailrace_registry.app import batch_handlers
from tailrace_registry.domain.model import Model
from tailrace_registry.http import create_api
from tailrace_registry.main import TOPICS_IN
from tailrace_registry.testing import (
    EXAMPLES,
    NOON,
    MemoryBooks,
    a_candidate,
    a_command,
    a_comparison,
    a_desk,
    a_spec,
    an_alert,
)
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.testing import FixedClock, record


async def told(books: MemoryBooks, *facts: tuple[str, Event]) -> None:
    """Books after these events."""
    handlers = batch_handlers(TOPICS_IN, books, FixedClock(NOON))
    for offset, (topic, event) in enumerate(facts):
        await handlers[topic]([record(event, topic, offset=offset)])


def reading(books: MemoryBooks) -> httpx.AsyncClient:
    """A client of the API over these books."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_api(books, a_desk())), base_url="http://registry")


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    """The API over a model with a champion, a canary and a refused command."""
    books = MemoryBooks()
    await told(
        books,
        ("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply")),
        ("candidate-trained", a_candidate("a")),
        ("candidate-trained", a_candidate("b")),
        ("alerts", an_alert("x")),
        ("evaluations", a_comparison(2, 1, "better", evaluation_id="e-1")),
        ("registry-commands", a_command(PromoteVersion(version=9), command_id="wrong")),
    )
    async with reading(books) as client:
        yield client


async def test_models_are_listed_with_who_answers(api: httpx.AsyncClient) -> None:
    """`tailrace models` could not say which version answers."""
    (line,) = (await api.get("/v1/models")).json()["models"]
    assert (line["model"], line["champion"], line["canary"], line["shadows"], line["versions"]) == (
        "rain",
        1,
        {"version": 2, "percent": 20},
        [],
        2,
    )


async def test_model_page_has_spec_and_deployment(api: httpx.AsyncClient) -> None:
    """Nobody could read which spec applies and why the present versions answer."""
    page = (await api.get("/v1/models/rain")).json()
    assert page["spec"]["label"]["name"] == "rain"
    assert [applied["spec_revision"] for applied in page["spec_history"]] == [1]
    assert page["deployment"]["evidence"][0]["event_id"] == "e-1"


async def test_versions_newest_first(api: httpx.AsyncClient) -> None:
    """Versions could not be compared at a glance."""
    lines = (await api.get("/v1/models/rain/versions")).json()["versions"]
    assert [(line["version"], line["stage"], line["examples"]) for line in lines] == [
        (2, "canary", 500),
        (1, "champion", 500),
    ]


async def test_version_page_has_lineage_and_moves(api: httpx.AsyncClient) -> None:
    """An auditor could not tell from which records a version was made, nor what it was moved on."""
    page = (await api.get("/v1/models/rain/versions/2")).json()
    assert LogRanges.model_validate(page["version"]["lineage"]["trained_on"]) == EXAMPLES
    assert [entry["action"] for entry in page["history"]] == ["registered", "shadow", "canary"]
    assert page["history"][-1]["evidence"][0]["event_id"] == "e-1"


async def test_versions_can_be_paged_and_found_by_a_record(api: httpx.AsyncClient) -> None:
    """Of many versions people could see only the newest, or not those that learned from one person's data."""

    async def numbers(**query: object) -> list[int]:
        answer = await api.get("/v1/models/rain/versions", params={name: str(value) for name, value in query.items()})
        return [line["version"] for line in answer.json()["versions"]]

    place = next(iter(EXAMPLES))
    assert await numbers(limit=1) == [2]
    assert await numbers(before=2) == [1]
    assert await numbers(saw=f"{place.topic}[{place.partition}]@{place.from_offset}") == [2, 1]
    assert await numbers(saw=f"{place.topic}[{place.partition}]@{place.through_offset + 1}") == []


async def test_two_versions_side_by_side(api: httpx.AsyncClient) -> None:
    """Whoever has to choose between two versions would compare them by hand."""
    page = (await api.get("/v1/models/rain/versions/1/compare/2")).json()
    assert (page["a"]["version"], page["b"]["version"]) == (1, 2)
    assert page["metrics"] == {"accuracy": [0.8, 0.8]}
    assert (page["parameters"], page["only_a_saw"], page["only_b_saw"]) == ({}, [], [])
    assert [each["evaluation_id"] for each in page["comparisons"]] == ["e-1"]


async def test_deployments_as_of_a_moment(api: httpx.AsyncClient) -> None:
    """Who answered on a given day could not be found out."""
    everything = (await api.get("/v1/models/rain/deployments")).json()["deployments"]
    assert [each["sequence"] for each in everything] == [3, 2, 1]
    earlier = await api.get("/v1/models/rain/deployments", params={"as_of": "2020-01-01T00:00:00Z"})
    assert earlier.json()["deployments"] == []


async def test_evidence_and_audit(api: httpx.AsyncClient) -> None:
    """An alert or a refused command would leave no trace that people can read."""
    evidence = (await api.get("/v1/models/rain/evidence")).json()["evidence"]
    assert sorted(line["event_id"] for line in evidence) == ["e-1", "x"]
    audit = (await api.get("/v1/models/rain/audit", params={"after": 2, "limit": 3})).json()["entries"]
    assert [entry["sequence"] for entry in audit] == [3, 4, 5]
    last = (await api.get("/v1/models/rain/audit")).json()["entries"][-1]
    assert (last["command_id"], last["outcome"]) == ("wrong", "refused")


async def test_chain_is_verified(api: httpx.AsyncClient) -> None:
    """Nobody could check that the audit log was not changed."""
    check = (await api.get("/v1/audit/verify")).json()
    assert (check["intact"], check["entries"], check["head_sequence"], check["broken_at"]) == (True, 8, 8, None)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models/snow", "there is no model snow"),
        ("/v1/models/snow/versions", "there is no model snow"),
        ("/v1/models/snow/deployments", "there is no model snow"),
        ("/v1/models/snow/evidence", "there is no model snow"),
        ("/v1/models/snow/audit", "there is no model snow"),
        ("/v1/models/rain/versions/9", "rain has no version 9"),
        ("/v1/models/rain/versions/1/compare/9", "rain has no version 9"),
        ("/v1/models/snow/versions/1/compare/1", "there is no model snow"),
        ("/v1/nothing", "Not Found"),
        ("/docs", "Not Found"),
    ],
)
async def test_missing_is_404_with_a_sentence(api: httpx.AsyncClient, path: str, error: str) -> None:
    """A typing error would be answered with an empty list, or with a page that nobody asked for."""
    answer = await api.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": error})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/rain/versions/Two",
        "/v1/models/rain/versions/0",
        "/v1/models/rain/versions?saw=labels",
        "/v1/models/rain/versions?before=0",
        "/v1/models/rain/audit?limit=0",
        "/v1/models/rain/audit?after=x",
        "/v1/models/rain/deployments?as_of=yesterday",
        "/v1/models/rain/deployments?as_of=2026-01-01T00:00:00",
    ],
)
async def test_bad_question_is_422_with_a_sentence(api: httpx.AsyncClient, path: str) -> None:
    """A mistyped number or time would end in a traceback."""
    answer = await api.get(path)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_can_be_changed_over_http(api: httpx.AsyncClient, method: str) -> None:
    """A change could come in by a door that leaves no audit entry."""
    answer = await api.request(method, "/v1/models/rain", json={"owner": "mallory"})
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})


async def test_database_that_is_away_is_503() -> None:
    """A reader would get a traceback while the database restarts, and no hint to come again."""

    @dataclass
    class Away(MemoryBooks):
        async def models(self) -> list[Model]:
            raise RetryLater("the registry's database does not answer")

    async with reading(Away()) as client:
        answer = await client.get("/v1/models")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the registry's database does not answer; try again"}
    assert answer.headers["retry-after"] == "1"


async def test_mutes_can_be_read(api: httpx.AsyncClient) -> None:
    """Whoever wonders about the silence could not find out who wanted it."""
    assert (await api.get("/v1/models/rain/mutes")).json() == {"model": "rain", "sequence": 0, "mutes": []}
    assert (await api.get("/v1/models/snow/mutes")).status_code == 404
    books = MemoryBooks()
    mute = MuteAlerts(owner="ada", until=NOON + timedelta(days=1))
    await told(
        books,
        ("registry-commands", a_command(ApplySpec(spec=a_spec()), command_id="apply")),
        ("registry-commands", a_command(mute, command_id="m", reason="a fair")),
    )
    async with reading(books) as client:
        found = (await client.get("/v1/models/rain/mutes")).json()
    assert (found["sequence"], found["mutes"][0]["owner"], found["mutes"][0]["reason"]) == (1, "ada", "a fair")
