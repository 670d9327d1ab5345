"""Two processes under one static member id, and one that is only slow."""

import pytest

from tailrace_runtime.errors import InstanceFenced
from tailrace_runtime.fencing import Fencing


class Time:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The present moment."""
        return self.now


def joining(every_seconds: float, times: int) -> None:
    """A role that gets a new member id again and again, and hears of each twice."""
    time = Time()
    fencing = Fencing("training/online", "local", time)
    for number in range(times):
        fencing.joined(f"member-{number}")
        fencing.joined(f"member-{number}")
        time.now += every_seconds


def test_two_processes_under_one_name_are_told() -> None:
    """They would take each other's partitions in turn, for ever and in silence."""
    with pytest.raises(InstanceFenced, match="another process runs training/online as instance 'local'"):
        joining(every_seconds=5, times=7)


def test_a_process_that_loses_its_sessions_goes_on() -> None:
    """On a busy machine a service that is alone would be stopped, and told of another that there is not."""
    joining(every_seconds=10.1, times=100)
