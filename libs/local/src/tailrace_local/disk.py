"""Room for data: checked before anything is started, so that a full disk is one sentence and not a broken server."""

import shutil
import tempfile
from pathlib import Path

from tailrace_local.errors import NoSpace


def require_space(folder: Path, megabytes: int, setting: str = "TAILRACE_HOME") -> None:
    """Makes the folder if need be and checks that it can be written and that its file system has this much space left.

    `setting` is the environment variable by which a person can choose another folder.

    Raises:
        NoSpace: it cannot be made or written, or the space is missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
        free = shutil.disk_usage(folder).free // 1_000_000
    except OSError as error:
        raise NoSpace(
            f"{folder} cannot be written ({error.strerror or error}); "
            f"give a folder that you may write to, for example by setting {setting}"
        ) from error
    if free < megabytes:
        raise NoSpace(
            f"{folder} needs {megabytes} MB of free disk space and its file system has {free} MB left; "
            f"free some, or set {setting} to a folder on a larger disk"
        )
