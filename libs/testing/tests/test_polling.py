"""`eventually`: it waits no longer than it must, and says what it saw last."""

from collections.abc import Iterator

import pytest

from tailrace_testing import eventually


async def test_it_returns_the_first_true_value() -> None:
    """Tests would sleep longer than the system needs, or get the wrong value."""
    values: Iterator[object] = iter([0, None, [], "found", "too late"])
    assert await eventually(lambda: next(values), every_seconds=0) == "found"


async def test_it_awaits_coroutines() -> None:
    """Checks that ask a database would never be satisfied, or always."""
    values = iter([False, True])

    async def check() -> bool:
        return next(values)

    assert await eventually(check, every_seconds=0) is True


async def test_a_check_that_only_asserts_is_satisfied_without_a_failure() -> None:
    """A check written with assertions would run into its deadline although all is well."""
    calls: list[int] = []

    async def check() -> None:
        calls.append(1)
        assert len(calls) == 3

    await eventually(check, every_seconds=0)
    assert len(calls) == 3


async def test_the_error_has_the_last_failure() -> None:
    """A failed test would not say what it had waited for."""

    def check() -> None:
        raise AssertionError("17 of 20 records")

    with pytest.raises(AssertionError, match=r"not within 0.01 s; at last it failed with: 17 of 20 records") as caught:
        await eventually(check, seconds=0.01, every_seconds=0.001)
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_the_error_has_the_last_value() -> None:
    """A failed test would not say what the system had answered."""
    with pytest.raises(AssertionError, match=r"at last it returned \[\]"):
        await eventually(list, seconds=0)


async def test_other_errors_pass_at_once() -> None:
    """A mistake in a check would look like a slow system."""

    def check() -> bool:
        raise LookupError("a typo")

    with pytest.raises(LookupError, match="a typo"):
        await eventually(check)
