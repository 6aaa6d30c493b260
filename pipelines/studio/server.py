"""The server of `studio`: a socket on this machine, and the loop that answers."""

import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp

from objgan.errors import InputError

_MOST_CONNECTIONS = 64
_GRACE_SECONDS = 3
"""For requests that run when the server ends."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        InputError: the port is in use, the host is none of this machine, or may not be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise InputError(f"--host {host}: unknown host ({error.strerror}); 127.0.0.1 is this machine") from None
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise InputError(
            f"cannot listen at {host}, port {port} ({reason}): choose another --port, or 0 for a free one"
        ) from None


def address_of(listening: socket.socket) -> str:
    """The URL that a browser on this machine opens."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_reachable(listening: socket.socket) -> bool:
    """Whether other machines may reach it."""
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def new_server(app: ASGIApp) -> uvicorn.Server:
    """A server that writes no log and reports nothing."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(config)
