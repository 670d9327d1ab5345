"""What can go wrong on one machine; every message is one sentence that a person can act on."""


class LocalError(Exception):
    """A local server or service cannot run; the message says what, where, what was expected and what to do."""


class PortInUse(LocalError):  # noqa: N818 - named for the state, as people say it
    """Another process listens on the wanted port."""


class FolderInUse(LocalError):  # noqa: N818 - named for the state, as people say it
    """Another running server has this data folder."""


class NoSpace(LocalError):  # noqa: N818 - named for the state, as people say it
    """A folder cannot be written, or its file system has too little space left."""


class StartFailed(LocalError):  # noqa: N818 - named for the event
    """A process ended, or was not ready in time; the message ends with its last log lines."""
