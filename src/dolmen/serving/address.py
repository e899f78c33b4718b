"""Where the server listens."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from dolmen.errors import ConfigError
from dolmen.serving.settings import ServeSettings

__all__ = ["check_address", "listening_socket"]


def listening_socket(settings: ServeSettings, *, port_name: str = "serving.port") -> socket.socket:
    """A socket that is bound to the address of ``settings``, and does not listen yet.

    Args:
        settings: have host and port.
        port_name: what set the port, for people: a key of the configuration or an option of the command line.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
    """
    try:
        found: list[Any] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = found[0]
        with contextlib.ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            on_failure.pop_all()
    except OSError as problem:
        raise ConfigError(_told(settings, port_name, problem)) from None
    return listener


def check_address(settings: ServeSettings, *, port_name: str = "serving.port") -> None:
    """Refuse an address that cannot be listened on now, before anything is started for it.

    Raises:
        ConfigError: as ``listening_socket`` does.
    """
    with listening_socket(settings, port_name=port_name) as listener:
        try:
            listener.listen(1)  # Linux lets two sockets be bound that will be reused, and refuses the second listener
        except OSError as problem:
            raise ConfigError(_told(settings, port_name, problem)) from None


def _told(settings: ServeSettings, port_name: str, problem: OSError) -> str:
    place = f"cannot listen on {settings.host}:{settings.port}"
    if problem.errno == errno.EADDRINUSE:
        return (
            f"{place}: another process uses port {settings.port}; stop that one, or choose another port with"
            f" {port_name} (0 takes any free one)"
        )
    return f"{place}: {problem.strerror or problem}; choose another serving.host, or another port with {port_name}"
