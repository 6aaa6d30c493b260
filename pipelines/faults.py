"""Faults of storage: those that pass are waited out, those that stay are told at once.

A fault passes when the network, the server or the mount is at fault (connections, timeouts, throttling, ESTALE, EIO);
it stays when the location is (no such bucket, access denied, read-only), or when the disk is full.
"""

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from objgan.errors import InputError

Result = TypeVar("Result")
Log = Callable[[str], None]

PATIENCE = 120.0
"""Seconds that a read or a write waits for storage to come back."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0

_PASSING = {
    getattr(errno, name)
    for name in (
        *("ESTALE", "EIO", "EREMOTEIO", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED"),
        *("ECONNABORTED", "EPIPE", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN"),
    )
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# What pyarrow's object stores say, with no errno: the name of the service's error, or the HTTP status.
_WRONG_WORDS = re.compile(
    r"NO_SUCH_BUCKET|NoSuchBucket|bucket .*(not found|does not exist)|ACCESS_DENIED|AccessDenied|PERMISSION_DENIED"
    r"|UNAUTHENTICATED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|INVALID_BUCKET|HTTP status (400|401|403|404|405)\b"
    r"|credentials|libhdfs",
    re.IGNORECASE,
)


class StorageAway(OSError):
    """Storage did not answer for as long as anyone was ready to wait: a fault of the machine, worth another start."""


def is_full(error: BaseException | None) -> bool:
    """Whether it says that the disk or the quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def is_passing(error: OSError) -> bool:
    """Whether the same operation may well succeed a moment later.

    An error without an errno comes from an object store: it passes unless it names a wrong location or a refusal.
    """
    if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | StorageAway):
        return False
    if isinstance(error, ConnectionError | TimeoutError) or error.errno in _PASSING:
        return True
    return error.errno is None and not _WRONG_WORDS.search(str(error))


def is_wrong_place(error: OSError) -> bool:
    """Whether the location, or the right to use it, is at fault: something that a person can mend."""
    if error.errno is None:
        return not isinstance(error, StorageAway) and bool(_WRONG_WORDS.search(str(error)))
    return error.errno in _WRONG


def persist(what: str, operation: Callable[[], Result], patience: float, log: Log | None = None) -> Result:
    """What `operation` returns, tried again with growing pauses while its faults are such that pass.

    Args:
        what: "storage WHERE: cannot DO THIS", for messages
        operation: may be repeated without harm
        patience: seconds until it is given up
        log: told once when the waiting begins, and once when it was worth it (default: the module's logger)

    Raises:
        InputError: the location is wrong or access to it is denied.
        StorageAway: the fault lasted longer than `patience`.
        OSError: any other fault as it came, a full disk with its errno.
    """
    log = log or logging.getLogger(__name__).warning
    began, pause, waiting = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            result = operation()
        except OSError as error:
            if is_wrong_place(error):
                raise InputError(f"{what} ({brief(error)}): check the location and the right to use it") from error
            if not is_passing(error):
                raise
            elapsed = time.monotonic() - began
            if elapsed + pause > patience:
                raise StorageAway(f"{what}; given up after {elapsed:.0f} s ({brief(error)})") from error
            if not waiting:
                log(f"{what} ({brief(error)}): trying again for up to {patience:.0f} s")
                waiting = True
        else:
            if waiting:
                log(f"{what}: it went well after {time.monotonic() - began:.1f} s")
            return result
        # Jitter: many workers that lost the same server must not come back in step.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)


def brief(error: BaseException) -> str:
    """An error in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."
