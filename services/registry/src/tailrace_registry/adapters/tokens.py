"""Who may give commands over HTTP: a file with a name and a token on each line, read again when it changes.

    ada 4f1c…   # openssl rand -hex 32

A token is never logged or shown. Every line is compared, in a time that does not depend on where tokens differ.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import structlog

from tailrace_runtime.errors import ConfigurationFault

log = structlog.get_logger(__name__)

LEAST_CHARACTERS = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class TokenFile:
    """The names and tokens of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int, int] | None = None
        self._digests: dict[str, bytes] = {}
        self._read()

    def name_of(self, token: str) -> str | None:
        """Whose token it is; None where it is nobody's. A file that cannot be read any more is nobody's, too."""
        try:
            self._read()
        except ConfigurationFault as error:
            log.warning("no command is taken over HTTP", reason=str(error))
            return None
        asked, found = _digest(token), None
        for name, digest in self._digests.items():
            if hmac.compare_digest(asked, digest):
                found = name
        return found

    def _read(self) -> None:
        """Read the file if it is another one than last time. Raises ConfigurationFault."""
        setting = f"the tokens in {self._path} (TAILRACE_COMMANDS_TOKEN_FILE)"
        try:
            status = self._path.stat()
            known = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known == self._read_at:
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigurationFault(f"{setting} cannot be read: {reason}") from error
        digests: dict[str, bytes] = {}
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not NAME.fullmatch(words[0]) or words[0] in digests:
                raise ConfigurationFault(f"{setting}: line {number} is not a name of its own and a token")
            if len(words[1]) < LEAST_CHARACTERS:
                raise ConfigurationFault(
                    f"{setting}: the token of {words[0]} has {len(words[1])} characters, expected at least {LEAST_CHARACTERS}"
                )
            digests[words[0]] = _digest(words[1])
        self._digests, self._read_at = digests, known


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
