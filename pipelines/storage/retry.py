"""Faults of storage: those that pass are waited out, those that stay are reported at once.

A fault passes when the network, the server or the mount is at fault (connections, timeouts, throttling, ESTALE, EIO);
it stays when storage refuses (no such bucket, access denied, expired credentials, read-only), or when the disk is full.

When a refusal comes says whose fault it is. Before the first step (shard, batch) of a command the location or the
credentials are wrong: `StorageRefused`, wrong input, exit code 2. Afterwards they had worked, and something changed:
`StorageLost`, a failure of the infrastructure, exit code 1. `settled` makes the one into the other.
"""

import contextlib
import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from objgan.errors import InputError
from pipelines.redaction import in_a_line

Result = TypeVar("Result")
logger = logging.getLogger(__name__)
_ASIDE = {"aside": True}  # to stderr: stdout may hold the result of a command

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
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG = _DENIED | {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# What pyarrow's object stores say, with no errno: the name of the service's error, or the HTTP status.
_WRONG_WORDS = re.compile(
    r"NO_SUCH_BUCKET|NoSuchBucket|bucket .*(not found|does not exist)|ACCESS_DENIED|AccessDenied|PERMISSION_DENIED"
    r"|UNAUTHENTICATED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|INVALID_BUCKET|HTTP status (400|401|403|404|405)\b"
    r"|credentials|libhdfs|libjvm",
    re.IGNORECASE,
)


_ADVICE = ": check the location and the right to use it"
_LOST = ": it worked before; renew the credentials, or make the place usable again"


class StorageAway(OSError):
    """Storage did not answer within the patience of the operation: an infrastructure failure, worth a retry."""


class StorageLost(StorageAway):
    """Storage that worked before refuses now (read-only, expired or withdrawn credentials): worth a retry, too."""


class RayAway(RuntimeError):
    """Ray does not start on this machine, or not in time: an infrastructure failure, worth a retry."""


class StorageRefused(InputError):
    """Storage refuses: the location, or the right to use it, is wrong."""


def settled(error: BaseException, advanced: bool) -> BaseException:
    """The error as a command should end with it: a refusal as `StorageRefused` or `StorageLost`, any other as it is.

    advanced: whether the command has finished a step (shard, batch)
    """
    refusal = error
    if isinstance(error, OSError) and error.errno in _DENIED and error.filename:
        refusal = refused(f"cannot use {error.filename}", error)
    if advanced and isinstance(refusal, StorageRefused):
        refusal = StorageLost(str(refusal).removesuffix(_ADVICE) + _LOST)
    if refusal is not error:
        refusal.__cause__ = error
    return refusal


class Work:
    """The length of some work. An error that leaves the block is settled by whether the work had advanced.

    advanced: whether the first step (shard, batch) is finished
    """

    advanced = False

    def advance(self, *progress: object) -> None:
        """A step is finished; takes whatever a function that reports progress is called with."""
        self.advanced = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (known := settled(error, self.advanced)) is not error:
            raise known


@contextlib.contextmanager
def only_logged(what: str) -> Iterator[None]:
    """For cleaning up, in a `finally` or an `except`: an error in the block is logged, and hides no error before it.

    what: "cannot DO THIS", for the message
    """
    try:
        yield
    except Exception as error:
        logger.warning("%s (%s)", what, brief(error))


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


def retry(what: str, operation: Callable[[], Result], patience: float) -> Result:
    """What `operation` returns, tried again with growing pauses while its faults are such that pass.

    Args:
        what: "storage WHERE: cannot DO THIS", for messages
        operation: may be repeated without harm
        patience: seconds until it is given up; who has less than `PATIENCE` reports the fault, which is not logged here

    Raises:
        StorageRefused: the location is wrong, or access to it is denied.
        StorageAway: the fault lasted longer than `patience`.
        OSError: any other fault as it came, a full disk with its errno.
    """
    began, pause, waiting = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            result = operation()
        except OSError as error:
            if is_wrong_place(error):
                raise refused(what, error) from error
            if not is_passing(error):
                raise
            elapsed = time.monotonic() - began
            if elapsed + pause > patience:
                raise StorageAway(f"{what}; given up after {elapsed:.0f} s ({brief(error)})") from error
            if not waiting and patience >= PATIENCE:
                logger.warning(f"{what} ({brief(error)}): trying again for up to {patience:.0f} s", extra=_ASIDE)
            waiting = True
        else:
            if waiting and patience >= PATIENCE:
                logger.warning(f"{what}: it went well after {time.monotonic() - began:.1f} s", extra=_ASIDE)
            return result
        # Jitter: many workers that lost the same server must not come back in step.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)


def refused(what: str, error: BaseException) -> StorageRefused:
    """What storage refuses to do, and why, as an error."""
    return StorageRefused(f"{what} ({brief(error)}){_ADVICE}")


def brief(error: BaseException) -> str:
    """An error in one short line."""
    return in_a_line(OSError(error.strerror) if isinstance(error, OSError) and error.strerror else error)
