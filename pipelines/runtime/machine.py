"""Checks of this machine before a local Ray starts: Ray's own errors do not name the variable to set."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from objgan.errors import InputError
from pipelines import command_line

SOCKET_PATH = 107
"""Maximum length in bytes of the path of a Unix socket on Linux."""
_TOKEN = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_SESSION = "session_2000-01-01_00-00-00_000000_4194304"
"""A session name of Ray at its maximum length: time and process id."""


def check_machine() -> None:
    """Check that Ray can create its sockets, logs and token here; writes the token if it does not exist.

    Raises:
        InputError: it cannot; the message names the variable to set.
    """
    _check_temporary()
    guard_token()


def ray_folder() -> Path:
    """The folder with the sockets and logs of all sessions of Ray."""
    return Path(os.path.abspath(_temporary()[1])) / "ray"


def guard_token() -> None:
    """Make Ray's token, which protects a session, readable for its owner only; Ray lets all users read it.

    Raises:
        InputError: the user has no home folder, or the token in it cannot be written or read.
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
            raise _no_token(path, "it exists and cannot be read") from None
    except OSError as error:
        raise _no_token(path, error.strerror or str(error)) from None
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def _no_token(path: Path, why: str) -> InputError:
    return InputError(
        f"HOME={path.parent.parent}: Ray keeps its token in {path}, which this user cannot write ({why}): "
        f"set HOME to a folder that this user can write"
    )


def _temporary() -> tuple[str, str]:
    """The variable that sets the folder of Ray's sessions, and the folder."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ:
            return name, os.environ[name]
    return "RAY_TMPDIR", "/tmp"


def _check_temporary() -> None:
    name, given = _temporary()
    if not os.path.isabs(given):
        raise InputError(f"{name}={given} is not an absolute path, which Ray's processes need: set RAY_TMPDIR to one")
    folder = ray_folder()
    longest = len(os.fsencode(folder / _SESSION / "sockets" / "plasma_store"))
    if longest > SOCKET_PATH:
        most = SOCKET_PATH - (longest - len(os.fsencode(folder.parent)))
        raise InputError(
            f"{name}={given} is too long: paths of Ray's sockets in it have {longest} bytes, the system allows "
            f"{SOCKET_PATH}: set RAY_TMPDIR to a folder whose path has at most {most} bytes, for example /tmp"
        )
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = f"this user cannot write to {existing}" if existing.is_dir() else f"{existing} is not a folder"
        raise InputError(
            f"{name}={given}: Ray keeps its sockets in {folder}, but {reason}: set RAY_TMPDIR to a folder that this "
            f"user can write"
        )
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise InputError(
            "no writable folder for temporary files (/tmp, /var/tmp, /usr/tmp or the working folder): set TMPDIR to one"
        ) from None
