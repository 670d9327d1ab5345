"""The registry's HTTP API answers every question that its description allows, in the form that it describes."""

from __future__ import annotations

import asyncio
from typing import Any

import schemathesis
from hypothesis import settings

from tailrace_contracts.events import ApplySpec
from tailrace_registry.app import batch_handlers
from tailrace_registry.http import create_api
from tailrace_registry.main import TOPICS_IN
from tailrace_registry.testing import NOON, FixedKeyring, MemoryBooks, a_candidate, a_command, a_desk, a_spec
from tailrace_runtime.testing import FixedClock, record

TOKEN = "x" * 40


def some_books() -> MemoryBooks:
    """Books with one model and one version."""
    books = MemoryBooks()
    handlers = batch_handlers(TOPICS_IN, books, FixedClock(NOON))

    async def fill() -> None:
        apply = a_command(ApplySpec(spec=a_spec()), command_id="apply")
        await handlers["registry-commands"]([record(apply, "registry-commands")])
        await handlers["candidate-trained"]([record(a_candidate("a"), "candidate-trained")])

    asyncio.run(fill())
    return books


schema = schemathesis.openapi.from_asgi("/openapi.json", create_api(some_books(), a_desk(FixedKeyring(ada=TOKEN))))


@schema.parametrize()
@settings(max_examples=25, deadline=None)
def test_api_keeps_its_description(case: Any) -> None:
    """A generated client would meet answers, statuses or crashes that the description does not have."""
    case.call_and_validate(headers={"authorization": f"Bearer {TOKEN}"})
