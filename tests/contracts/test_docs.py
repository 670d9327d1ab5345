"""Snippets in the documentation are what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tailrace_contracts import parse_spec

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_specs_on_a_page_can_be_applied(page: Path) -> None:
    """A reader who copies a spec from the documentation would be refused."""
    for block in blocks(page, "yaml"):
        document = yaml.safe_load(block)
        if isinstance(document, dict) and "model" in document:
            assert parse_spec(document, str(page)).model


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A reader would follow a link into nothing."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
