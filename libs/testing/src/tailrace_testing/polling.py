"""Waiting in tests: ask again and again until a deadline, never sleep and hope."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    check: Callable[[], Coroutine[Any, Any, T]], seconds: float = ..., every_seconds: float = ...
) -> T: ...


@overload
async def eventually(check: Callable[[], T], seconds: float = ..., every_seconds: float = ...) -> T: ...


async def eventually(check: Callable[[], Any], seconds: float = 60.0, every_seconds: float = 0.05) -> Any:
    """Calls `check` until it is satisfied and returns what it returned.

    It is satisfied when it returns something true; one that is annotated `-> None` speaks by assertions and is
    satisfied when it raises none. Any error but an AssertionError passes through at once.

    Args:
        check: a function or a coroutine function without arguments.
        seconds: how long to go on asking.
        every_seconds: the pause between two calls.

    Raises:
        AssertionError: the time is over; the message has the last failure or the last value.
    """
    asserts_only = getattr(check, "__annotations__", {}).get("return", ...) in (None, "None")
    deadline = time.monotonic() + seconds
    while True:
        failure: AssertionError | None = None
        try:
            found = check()
            value = await found if inspect.isawaitable(found) else found
            if value or asserts_only:
                return value
            last = f"it returned {value!r}"
        except AssertionError as error:
            failure, last = error, f"it failed with: {error or 'a bare assertion'}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s; at last {last}") from failure
        await asyncio.sleep(every_seconds)
