"""Address and token of a cluster's job server; `python -m cluster token FILE` writes a token."""

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from cluster.jobs.command import CHECKOUT
from cluster.jobs.ray_jobs import ClusterAway
from objgan.errors import InputError
from pipelines import command_line
from pipelines.command_line import OptionsClass, option

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ANSWER_S = 10.0
_TRANSFER_S = 120.0


class ClusterOptions(OptionsClass):
    """A job server."""

    address: str | None = option(
        None,
        "cluster",
        f"address of the job server (default: RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS})",
        metavar="URL",
    )
    token_file: Path | None = option(
        None,
        "cluster",
        "file with the cluster's token (default: RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token if it exists)",
        command_line.local_path,
        metavar="PATH",
    )


@dataclass(frozen=True)
class Access:
    """Address and credentials of a job server.

    address: http(s)://HOST:PORT, without user, password or token
    headers: sent with every request; never shown
    """

    address: str
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, options: ClusterOptions) -> "Access":
        """Access by the options, else by Ray's environment variables.

        Raises:
            InputError: not an address, or a token file that cannot be read or that other users can read.
        """
        return cls(_address(options.address), _headers(options.token_file))


def connect(access: Access) -> Any:
    """A client of the job server, after one request that must succeed.

    Raises:
        InputError: no answer, not a job server, or a missing or wrong token.
    """
    _check_server(access)
    # Ray prefers these variables to the address.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **others: Any) -> Any:
            # By default Ray waits for ever for a head that hangs.
            return super()._do_request(*arguments, **{"timeout": _TRANSFER_S, **others})

    return Client(access.address, headers=dict(access.headers))


@contextmanager
def connected(access: Access) -> Iterator[Any]:
    """A client of the job server, for a block that ends when the server stops answering.

    Raises:
        InputError: see `connect`, or the server stopped answering.
    """
    try:
        yield connect(access)
    except ClusterAway as error:
        raise InputError(f"--address {access.address}: the cluster stopped answering ({error}): try again") from None


def _check_server(access: Access) -> None:
    import requests

    where = f"--address {access.address}"
    try:
        answer = requests.get(f"{access.address}/api/version", headers=access.headers, timeout=_ANSWER_S)
    except requests.exceptions.RequestException as error:
        why = "no answer" if isinstance(error, requests.exceptions.Timeout) else "cannot connect"
        raise InputError(f"{where}: no Ray cluster answers ({why}): start one, or forward its port") from None
    if answer.status_code == 401:
        raise InputError(f"{where}: the cluster asks for a token: give its file with --token-file PATH")
    if answer.status_code == 403:
        raise InputError(f"{where}: the cluster does not know this token: use the token file that it was started with")
    try:
        known = answer.ok and "ray_version" in answer.json()
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"{where}: the server at this address (HTTP {answer.status_code}) is not a Ray job server: check the port"
        )


def _address(given: str | None) -> str:
    url = given or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"--address {url}: not the URL of a job server: expected a URL like {DEFAULT_ADDRESS}")
    if parts.username or parts.password:
        raise InputError("--address: everybody can see a password in a URL: leave it out, and use --token-file")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _headers(given: Path | None) -> dict[str, str]:
    path = _token_path(given)
    token = os.environ.get("RAY_AUTH_TOKEN", "") if path is None else _read(path)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token_path(given: Path | None) -> Path | None:
    if given is not None:
        return given
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return Path(named)
    default = _default_token()
    return default if default and not os.environ.get("RAY_AUTH_TOKEN") and default.is_file() else None


def _default_token() -> Path | None:
    """Ray's default token file."""
    home = command_line.home()
    return None if home is None else home / ".ray" / "auth_token"


def _read(path: Path) -> str:
    try:
        facts, token = path.stat(), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise InputError(f"token file {path}: cannot be read ({why}): check the path") from None
    # Secrets that Kubernetes mounts belong to root, so that this user cannot change their mode.
    ours = facts.st_uid == os.getuid() and path != _default_token()
    if ours and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"token file {path}: other users can read it: chmod 600 {path}")
    if not token or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise InputError(f"token file {path}: does not hold a token (one word): create one with cluster token FILE")
    return token


class TokenOptions(OptionsClass):
    """Create a token for a cluster, in a file that only you can read.

    examples:
      python -m cluster token ~/.ray/objgan-token
    """

    file: Path = option(
        cast(Path, None),
        "outputs",
        "new file, outside of the checkout; must not exist yet",
        command_line.local_path,
        flag="FILE",
    )


def token(options: TokenOptions) -> int:
    """Write the file, and print how nodes and commands take it. The token itself is never printed."""
    write(options.file)
    path = options.file.resolve()
    print(f"token: {path} (mode 0600)")
    print(f"nodes:    RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={path} ray start ...")
    print(f"commands: python -m cluster submit --token-file {path} ...")
    return 0


def write(path: Path) -> None:
    """Write a token, 256 random bits in hexadecimal, to a new file.

    Raises:
        InputError: the file exists, cannot be written, or is in the checkout, which `submit` ships.
    """
    if path.resolve().is_relative_to(CHECKOUT):
        raise InputError(
            f"{path} is in the checkout {CHECKOUT}, which is shipped with every job: name a file elsewhere, for "
            f"example ~/.ray/objgan-token"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise InputError(
                f"{path} exists: a cluster may be using it; name another file, or remove it first"
            ) from None
        raise InputError(f"cannot write {path} ({error.strerror}): name another file") from None
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(secrets.token_hex(32))
