"""Tools that some tests need beside Python: on a developer's machine they may be missing, in CI they may not."""

import os
import shutil
from pathlib import Path

import pytest


def in_ci() -> bool:
    """Whether this run is the one that counts: the environment says CI=true."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def require_tool(name: str) -> Path:
    """The path of a program, or the end of this test: skipped where it is missing, failed where CI misses it."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    if in_ci():
        pytest.fail(f"the program {name} is missing; in CI every test must run, so install it", pytrace=False)
    pytest.skip(f"the program {name} is not on the path; install it to run this test")
