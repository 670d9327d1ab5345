"""The exact version of every package, in the root's `[tool.uv] constraint-dependencies`.

    uv run python tests/architecture/pins.py            # write them from a fresh resolution
    uv run python tests/architecture/pins.py --check    # exit 1 and say what differs

`uv.lock` records download addresses, so it stays out of git; with every version pinned here, transitive ones too, `uv`
resolves to the same set anywhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^constraint-dependencies = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)


def locked(lock: Path) -> list[str]:
    """`name==version` of every package in a lock that does not come from this repository, sorted."""
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    return sorted(f"{each['name']}=={each['version']}" for each in packages if "registry" in each.get("source", {}))


def pinned(text: str) -> list[str]:
    """The pins in a root pyproject.toml."""
    pins: list[str] = tomllib.loads(text)["tool"]["uv"].get("constraint-dependencies", [])
    return pins


def with_pins(text: str, pins: list[str]) -> str:
    """The same pyproject.toml with these pins."""
    block = "constraint-dependencies = [\n" + "".join(f'    "{pin}",\n' for pin in pins) + "]\n"
    if BLOCK.search(text):
        return BLOCK.sub(lambda _: block, text)
    return text.replace("[tool.uv]\n", "[tool.uv]\n" + block, 1)


def resolved(text: str) -> list[str]:
    """What a fresh resolution of the workspace with this root pyproject.toml gives.

    Raises subprocess.CalledProcessError when it cannot be resolved.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for member in sorted(ROOT.glob("libs/*/pyproject.toml")) + sorted(ROOT.glob("services/*/pyproject.toml")):
            target = copy / member.relative_to(ROOT)
            target.parent.mkdir(parents=True)
            target.write_text(member.read_text(encoding="utf-8"), encoding="utf-8")
        (copy / "pyproject.toml").write_text(text, encoding="utf-8")
        (copy / "README.md").touch()
        uv = shutil.which("uv") or "uv"
        subprocess.run([uv, "lock", "--quiet"], cwd=copy, check=True)
        return locked(copy / "uv.lock")


def main(arguments: list[str]) -> int:
    """Write or check the pins; returns the exit status."""
    path = ROOT / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    if "--check" not in arguments:
        path.write_text(with_pins(text, resolved(with_pins(text, []))), encoding="utf-8")
        return 0
    wanted, found = set(resolved(text)), set(pinned(text))
    for pin in sorted(wanted ^ found):
        sys.stderr.write(f"{pin} is {'resolved but not pinned' if pin in wanted else 'pinned but not needed'}\n")
    if wanted != found:
        sys.stderr.write("write the pins anew: uv run python tests/architecture/pins.py\n")
    return int(wanted != found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
