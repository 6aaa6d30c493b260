"""Ports for servers that tests start."""

import random
import socket

_HOST = "127.0.0.1"
_HANDED_OUT: set[int] = set()


def free_port() -> int:
    """A port that nobody has, and that nobody is given until the server that it is for has begun, or while it is down.

    Below those that Linux gives to connections and to whoever asks for any (32768 and up), above those that Ray gives
    to its workers (10002 to 19999): a node of Ray whose port another process took in the meantime does not start.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        if port in _HANDED_OUT:
            continue
        with socket.socket() as tried:
            try:
                tried.bind((_HOST, port))
            except OSError:
                continue
        _HANDED_OUT.add(port)
        return port
    raise RuntimeError("no free port among a hundred")
