"""What people and pipes get to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace_cli.output import complain, near, say, show


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`tailrace models | grep delivery` would find half a row."""
    show([{"model": "delivery", "reason": "long " * 60}], as_json=False, empty="")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["model", "reason"]
    assert row.split() == ["delivery", *["long"] * 60]


def test_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`^[a-z]+$` in an error, or a log range in a table, would be taken for a colour and vanish."""
    complain("error:", "expected ^[a-z]+$")
    say("[red] is a word")
    show([{"pattern": "[a-z]"}], as_json=False, empty="")
    printed = capsys.readouterr()
    assert printed.err == "error: expected ^[a-z]+$\n"
    assert "[red] is a word" in printed.out
    assert "[a-z]" in printed.out


def test_a_path_is_short_where_the_reader_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table of `tailrace status` would be broken by long paths."""
    monkeypatch.chdir(tmp_path)
    assert near(tmp_path / ".tailrace" / "logs" / "kafka.log") == ".tailrace/logs/kafka.log"
    assert near("/var/log/kafka.log") == "/var/log/kafka.log"
