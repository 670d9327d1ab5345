"""The console over HTTP: what it serves, what it refuses, and how safely."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tailrace_monitoring.http import FILES, create_app, script_safe
from tailrace_runtime.errors import RetryLater


class FixedPage:
    """A read model of one model with a hostile name in its description."""

    def __init__(self) -> None:
        self.away = False

    async def models(self) -> list[dict[str, Any]]:
        """The one model."""
        if self.away:
            raise RetryLater("the database is away")
        return [{"model": "tide", "description": "</script><script>alert(1)</script>"}]

    async def model(self, name: str) -> dict[str, Any] | None:
        """The one model."""
        return {"model": "tide", "owner": "harbour"} if name == "tide" else None


@pytest.fixture
def page() -> FixedPage:
    """What the console shows."""
    return FixedPage()


@pytest.fixture
async def client(page: FixedPage) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application itself."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=create_app(page)), base_url="http://console"
    ) as opened:
        yield opened


async def test_the_page_is_there_and_marks_the_chosen_model(client: httpx.AsyncClient) -> None:
    """A person would open the console and see nothing."""
    answer = await client.get("/?model=tide")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert '<a href="/?model=tide" aria-current="page">tide</a>' in answer.text


async def test_what_producers_write_cannot_become_script(client: httpx.AsyncClient) -> None:
    """A model's description could run code in the browser of whoever looks."""
    text = (await client.get("/")).text
    assert "<script>alert" not in text
    assert "\\u003c/script\\u003e" in text
    assert script_safe('"<!--"') == '"\\u003c!--"'


@pytest.mark.parametrize("path", ["/", "/api/models", "/static/console.js", "/nothing"])
async def test_every_answer_carries_safe_headers(client: httpx.AsyncClient, path: str) -> None:
    """The page could be framed, sniffed, or load what others wrote."""
    headers = (await client.get(path)).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_the_page_loads_only_its_own_files(client: httpx.AsyncClient) -> None:
    """A console without access to the internet would be blank."""
    for name in FILES:
        assert (await client.get(f"/static/{name}")).status_code == 200
    text = (await client.get("/")).text + (await client.get("/static/console.css")).text
    assert "https://" not in text
    assert "http://" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/static/..%2Fconsole.html", 404),
        ("GET", "/static/console.html", 404),
        ("GET", "/api/models/unknown", 404),
        ("POST", "/api/models", 405),
        ("DELETE", "/", 405),
    ],
)
async def test_everything_else_is_refused_in_one_sentence(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """A forgotten route would be open, or a person would read a traceback."""
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


async def test_an_unknown_model_is_a_page_that_says_so(client: httpx.AsyncClient) -> None:
    """An old bookmark would show an error in JSON."""
    answer = await client.get("/?model=gone")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


async def test_without_a_database_the_answer_says_try_again(client: httpx.AsyncClient, page: FixedPage) -> None:
    """A restart of the database would look like a broken console."""
    page.away = True
    answer = await client.get("/api/models")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"error": "the database is away; try again"}
