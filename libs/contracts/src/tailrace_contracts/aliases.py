"""Names for versions: those of the arms, `latest`, and those that people set.

A name means the version that it means at this moment. Whoever writes down what was decided writes the number.
"""

from __future__ import annotations

from collections.abc import Mapping

from tailrace_contracts.events.versions import DeploymentChanged

ARMS = ("champion", "canary", "shadow", "standby", "latest")
"""What they mean follows from the deployment; nobody can set them."""


def aliases_of(deployment: DeploymentChanged | None, newest: int) -> dict[str, int]:
    """Every name that means a version now; `newest` is the number of the newest version, 0 where there is none.

    `shadow` is the newest of them, without the one that stands by.

    >>> aliases_of(None, 3)
    {'latest': 3}
    """
    found: dict[str, int | None] = {"latest": newest or None}
    if deployment is not None:
        shadows = [number for number in deployment.shadows if number != deployment.standby]
        found = {
            **deployment.aliases,
            "champion": deployment.champion,
            "canary": deployment.canary.version if deployment.canary else None,
            "shadow": max(shadows, default=None),
            "standby": deployment.standby,
            **found,
        }
    return {name: number for name, number in found.items() if number is not None}


def number_of(named: str, known: Mapping[str, int]) -> int | None:
    """The version that a number or a name means; None for a name that means none."""
    return int(named) if named.isdecimal() else known.get(named)


def unknown_name(model: str, named: str, known: Mapping[str, int]) -> str:
    """Why a name is no version, for a person."""
    return f"{model} has no version that is called {named}; its names are {', '.join(sorted(known)) or 'none yet'}"
