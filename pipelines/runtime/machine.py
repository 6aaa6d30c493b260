"""What a Ray of our own needs of this machine, checked before it starts: Ray's own errors do not say what to set."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from objgan.errors import InputError
from pipelines import command_line

SOCKET_PATH = 107
"""Bytes that the path of a Unix socket may have on Linux."""
_TOKEN = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_SESSION = "session_2000-01-01_00-00-00_000000_4194304"
"""As long as Ray's longest name of a session: time and process id."""


def check_machine() -> None:
    """See that Ray can have its sockets, its logs and its token here; writes the token where there is none.

    Raises:
        InputError: it cannot; the line names the variable that has to be set.
    """
    _check_temporary()
    guard_token()


def ray_folder() -> Path:
    """Where Ray keeps sockets and logs of all its sessions."""
    return Path(os.path.abspath(_temporary()[1])) / "ray"


def guard_token() -> None:
    """Make Ray's token, which protects a session, readable for its owner alone: Ray itself would let all users read it.

    Raises:
        InputError: there is no home folder, or the token cannot be written or read in it.
    """
    if os.environ.keys() & _TOKEN:
        return
    home = command_line.home()
    if home is None:
        raise InputError(command_line.no_home())
    path = home / ".ray" / "auth_token"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise _no_token(path, "it is there and cannot be read") from None
    except OSError as error:
        raise _no_token(path, error.strerror or str(error)) from None
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def _no_token(path: Path, why: str) -> InputError:
    return InputError(
        f"HOME={path.parent.parent}: Ray keeps its token in {path}, and this user cannot write there ({why}): "
        f"set HOME to a folder that this user can write"
    )


def _temporary() -> tuple[str, str]:
    """The variable that decides where Ray keeps its sessions, and the folder."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ:
            return name, os.environ[name]
    return "RAY_TMPDIR", "/tmp"


def _check_temporary() -> None:
    name, given = _temporary()
    if not os.path.isabs(given):
        raise InputError(f"{name}={given} is no path from /, which Ray's processes need: set RAY_TMPDIR to one")
    folder = ray_folder()
    longest = len(os.fsencode(folder / _SESSION / "sockets" / "plasma_store"))
    if longest > SOCKET_PATH:
        most = SOCKET_PATH - (longest - len(os.fsencode(folder.parent)))
        raise InputError(
            f"{name}={given} is too long: paths of Ray's sockets below it have {longest} bytes, the system allows "
            f"{SOCKET_PATH}: set RAY_TMPDIR to a folder whose path has at most {most} bytes, for example /tmp"
        )
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = f"cannot write into {there}" if there.is_dir() else f"{there} is not a folder"
        raise InputError(
            f"{name}={given}: Ray keeps its sockets in {folder}, and this user {what}: set RAY_TMPDIR to a folder that "
            f"this user can write"
        )
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise InputError(
            "no folder for temporary files can be written (/tmp, /var/tmp, /usr/tmp or here): set TMPDIR to one"
        ) from None
