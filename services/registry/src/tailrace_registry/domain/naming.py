"""Names that people give to versions: `approved`, `before-the-move`. Each change has a reason, in the audit log."""

from __future__ import annotations

from dataclasses import replace

from tailrace_contracts.aliases import ARMS
from tailrace_contracts.events import Evidence, SetAlias, UnsetAlias
from tailrace_registry.domain.model import Decision, Model, refuse, stand

MAX_ALIASES = 100
"""Of one model: they travel with every deployment."""


def name_version(model: Model, command: SetAlias | UnsetAlias, reason: str, word: Evidence) -> Decision:
    """Somebody gives a name or takes one away, for a reason."""
    if not reason.strip():
        return refuse(model, f"the command {command.command} needs a reason")
    return _given(model, command, word) if isinstance(command, SetAlias) else _taken(model, command, word)


def _given(model: Model, command: SetAlias, word: Evidence) -> Decision:
    """A version gets a name, which may have been another's."""
    name, number = command.alias, command.version
    before = model.aliases.get(name)
    if name in ARMS:
        return refuse(model, f"{name} follows from the deployment and cannot be set; choose another name")
    if number not in model.versions:
        known = f"its versions are 1 to {model.newest}" if model.newest else "it has no version yet"
        return refuse(model, f"{model.name} has no version {number}; {known}")
    if before is None and len(model.aliases) >= MAX_ALIASES:
        return refuse(model, f"{model.name} has {MAX_ALIASES} names already; take one away first")
    if before == number:
        return stand(model, f"{name} is version {number} of {model.name} already")
    named = Decision(replace(model, aliases={**model.aliases, name: number}))
    was = f", which was version {before}" if before is not None else ""
    return named.because(f"version {number} of {model.name} is called {name}{was}", word)


def _taken(model: Model, command: UnsetAlias, word: Evidence) -> Decision:
    """A name means nothing any more."""
    name = command.alias
    if name not in model.aliases:
        return refuse(model, f"{model.name} has no name {name} that somebody set")
    left = {each: number for each, number in model.aliases.items() if each != name}
    was = model.aliases[name]
    unnamed = Decision(replace(model, aliases=left))
    return unnamed.because(f"version {was} of {model.name} is called {name} no more", word)
