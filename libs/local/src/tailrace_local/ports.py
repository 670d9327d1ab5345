"""Ports on this machine: a free one, or the wanted one if nobody has it."""

import socket

from tailrace_local.errors import PortInUse

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now; another process may still take it first, so callers try again."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def claim_port(name: str, port: int) -> int:
    """The given port, once it is sure that `name` can listen on it.

    Raises:
        PortInUse: another process listens there.
    """
    if not port_is_free(port):
        raise PortInUse(
            f"{name} cannot listen on {HOST}:{port} because another process already does; "
            f"stop that process or choose another port"
        )
    return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
