"""What can be wrong with an artefact. Each error is one sentence for a person."""


class ArtefactError(Exception):
    """An artefact that cannot be used."""


class ArtefactCorrupt(ArtefactError):  # noqa: N818  # named for what is true
    """The bytes are not what was written: cut short, changed, or of another format."""


class SignatureInvalid(ArtefactError):  # noqa: N818  # named for what is true
    """The signature is not of our signing key: the artefact is not ours, or the key is another one."""


class ArtefactIncompatible(ArtefactError):  # noqa: N818  # named for what is true
    """A sound artefact that this program cannot use: written by another river, or for other features."""
