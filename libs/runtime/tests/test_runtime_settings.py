"""Settings as deployments give them: the environment, files of secrets, and what is missing said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace_runtime.errors import ConfigurationFault
from tailrace_runtime.settings import ServiceSettings


def test_a_service_without_a_usable_signing_key_says_which_setting_is_wrong(tmp_path: Path) -> None:
    """Artefacts would be signed with nothing, or the operator would get a traceback."""
    (tmp_path / "empty").touch()
    for path, words in (
        (None, "TAILRACE_SIGNING_KEY_FILE"),
        (tmp_path / "missing", "cannot be read"),
        (tmp_path / "empty", "is empty"),
    ):
        with pytest.raises(ConfigurationFault, match=words):
            ServiceSettings(signing_key_file=path).signing_key()
    (tmp_path / "key").write_text("secret\n")
    assert ServiceSettings(signing_key_file=tmp_path / "key").signing_key() == b"secret"


def test_secrets_come_from_files_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password would have to stand in a container's environment, where everybody who may look sees it."""
    (tmp_path / "tailrace_database_url").write_text("postgresql://from-a-file")
    monkeypatch.setenv("TAILRACE_SECRETS_DIR", str(tmp_path))
    url = ServiceSettings().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://from-a-file"
    assert "from-a-file" not in repr(ServiceSettings())
    monkeypatch.setenv("TAILRACE_DATABASE_URL", "postgresql://from-the-environment")
    url = ServiceSettings().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://from-the-environment"
