"""The audit chain on the command line: listed, exported, checked, and found out when it was changed."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.e2e.conftest import Running
from tests.e2e.test_bad_input import SPEC


def test_a_model_is_audited_from_its_spec_to_a_file_that_can_be_checked(tailrace: Running, tmp_path: Path) -> None:
    """An auditor would get no file, or one whose forgery nobody notices."""
    spec, file = tmp_path / "audited.yaml", tmp_path / "audit.jsonl"
    spec.write_text(yaml.safe_dump(SPEC | {"model": "audited"}))
    assert tailrace.run("apply", str(spec), "--reason", "for the audit").returncode == 0
    assert tailrace.run("promote", "audited", "7", "--reason", "a try").returncode == 1
    listed = tailrace.json("audit", "list", "audited")
    assert [(each["action"], each["outcome"]) for each in listed] == [("apply-spec", "done"), ("promote", "refused")]
    assert tailrace.run("audit", "verify").stdout.startswith("intact: ")
    assert tailrace.run("audit", "export", "audited", "--output", str(file)).returncode == 0
    assert tailrace.run("audit", "verify", str(file)).returncode == 0
    file.write_text(file.read_text().replace('"refused"', '"done"'))
    forged = tailrace.run("audit", "verify", str(file))
    assert forged.returncode == 1
    assert "was changed, lost or added" in forged.stderr


def test_an_audit_of_nothing_is_one_sentence(tailrace: Running, tmp_path: Path) -> None:
    """A person who mistypes a model's name would get an empty file or a traceback."""
    for arguments in (["list", "unheard-of"], ["export", "unheard-of"], ["verify", str(tmp_path / "none")]):
        done = tailrace.run("audit", *arguments)
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
        assert "Traceback" not in done.stderr
