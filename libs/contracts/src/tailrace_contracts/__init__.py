"""The words that services exchange: events, model specs, topics and log ranges."""

from tailrace_contracts.catalogue import Topic, topics
from tailrace_contracts.ranges import Log, LogRange, LogRanges, Trigger
from tailrace_contracts.spec import ModelSpec, SpecError, load_spec, parse_spec

__all__ = [
    "Log",
    "LogRange",
    "LogRanges",
    "ModelSpec",
    "SpecError",
    "Topic",
    "Trigger",
    "load_spec",
    "parse_spec",
    "topics",
]
