"""The bounded buffer: what it keeps, what it loses, and that it counts both."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace_serving.domain.buffer import CaptureBuffer, Captured
from tailrace_serving.testing import THEN


def event(number: int, size: int = 1, model: str = "rain") -> Captured:
    """An event of so many bytes."""
    return Captured(model, str(number).encode(), b"x" * size, THEN)


def test_full_by_count() -> None:
    """If it failed, a broker that is away would fill the memory."""
    buffer = CaptureBuffer(2, 1000)
    assert [buffer.offer(event(number)) for number in range(3)] == [True, True, False]
    assert buffer.lost == {"rain": 1}


def test_full_by_bytes_until_acknowledged() -> None:
    """If it failed, events in flight would not count, and large rows would fill the memory."""
    buffer = CaptureBuffer(100, 10)
    assert buffer.offer(event(1, 6))
    assert not buffer.offer(event(2, 6, "snow"))
    assert [each.key for each in buffer.oldest(9)] == [b"1"]
    assert not buffer.offer(event(3, 6))
    buffer.done(1)
    assert buffer.offer(event(4, 6))
    assert buffer.lost == {"snow": 1, "rain": 1}


@given(
    st.lists(
        st.one_of(
            st.integers(1, 8).map(lambda size: ("offer", size)),
            st.tuples(st.sampled_from(["done", "give_up"]), st.integers(1, 4)),
        )
    )
)
def test_every_event_is_published_lost_or_held(steps: list[tuple[str, int]]) -> None:
    """If it failed, the count of lost events would not be exact."""
    buffer, offered = CaptureBuffer(5, 20), 0
    for step, number in steps:
        if step == "offer":
            offered += 1
            buffer.offer(event(offered, number))
        elif step == "done":
            buffer.done(len(buffer.oldest(number)))
        else:
            buffer.give_up(len(buffer.oldest(number)))
        assert offered == buffer.published.total() + buffer.lost.total() + len(buffer)
        assert buffer.bytes == sum(len(each.value) for each in buffer.oldest(100))
