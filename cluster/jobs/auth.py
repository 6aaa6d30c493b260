"""Address and token of a cluster's job server; `python -m cluster token FILE` writes a token."""

import argparse
import logging
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import InputError
from cluster.jobs.command import CHECKOUT
from pipelines import command_line

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ANSWER_S = 10.0
_TRANSFER_S = 120.0


@dataclass(frozen=True)
class Access:
    """Where the job server is, and what lets us in.

    address: http(s)://HOST:PORT, without user, password or token
    headers: of every request; never shown
    """

    address: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"Access({self.address!r})"

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Access":
        """From the options, else from Ray's environment variables.

        Raises:
            InputError: not an address, or a token that cannot be read or that others can read.
        """
        return cls(_address(options.address), _headers(options.token_file))


def add_options(command: argparse.ArgumentParser) -> None:
    """`--address` and `--token-file`."""
    command.add_argument(
        "--address",
        metavar="URL",
        help=f"of the job server (default: RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS})",
    )
    command.add_argument(
        "--token-file",
        type=command_line.local_path,
        metavar="PATH",
        help="holds the cluster's token (default: RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token where there is one)",
    )


def connect(access: Access) -> Any:
    """A client of the job server, after one request that must succeed.

    Raises:
        InputError: nobody answers, it is not a job server, or the token is missing or wrong.
    """
    _knock(access)
    # They would override the address that was given.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **others: Any) -> Any:
            # Ray's own waits for ever for a head that hangs.
            return super()._do_request(*arguments, **{"timeout": _TRANSFER_S, **others})

    return Client(access.address, headers=dict(access.headers))


def _knock(access: Access) -> None:
    import requests

    where = f"--address {access.address}"
    try:
        answer = requests.get(f"{access.address}/api/version", headers=access.headers, timeout=_ANSWER_S)
    except requests.exceptions.RequestException as error:
        why = "no answer" if isinstance(error, requests.exceptions.Timeout) else "cannot connect"
        raise InputError(f"{where}: no Ray cluster answers there ({why}): start one, or forward its port") from None
    if answer.status_code == 401:
        raise InputError(f"{where}: the cluster asks for a token: give its file with --token-file PATH")
    if answer.status_code == 403:
        raise InputError(f"{where}: the cluster does not know this token: take the file that it was started with")
    try:
        known = answer.ok and "ray_version" in answer.json()
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"{where}: what answers there (HTTP {answer.status_code}) is no Ray job server: check the port"
        )


def _address(given: str | None) -> str:
    url = given or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"--address {url}: not the URL of a job server: write it like {DEFAULT_ADDRESS}")
    if parts.username or parts.password:
        raise InputError("--address: a password in a URL is seen by everybody: leave it out, and use --token-file")
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
    """Ray's own place for a token."""
    home = command_line.home()
    return None if home is None else home / ".ray" / "auth_token"


def _read(path: Path) -> str:
    try:
        facts, token = path.stat(), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise InputError(f"token file {path}: cannot be read ({why}): check the path") from None
    # One of Kubernetes's mounted secrets belongs to root, and nobody here could change it.
    ours = facts.st_uid == os.getuid() and path != _default_token()
    if ours and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"token file {path}: others can read it: chmod 600 {path}")
    if not token or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise InputError(f"token file {path}: does not hold a token (one word): make one with cluster token FILE")
    return token


def add_parser(commands: Any) -> None:
    """The command's options."""
    text = "Make a token for a cluster, in a file that only you can read."
    command = commands.add_parser("token", help=text, description=text)
    command.add_argument(
        "file", type=command_line.local_path, metavar="FILE", help="outside of the checkout; must not exist yet"
    )
    command.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Write the file; say how nodes and commands take it. The token itself is never shown."""
    write(options.file)
    path = options.file.resolve()
    print(f"token: {path} (mode 0600)")
    print(f"nodes:    RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={path} ray start ...")
    print(f"commands: python -m cluster submit --token-file {path} ...")
    return 0


def write(path: Path) -> None:
    """256 random bits as hexadecimal digits.

    Raises:
        InputError: the file exists, cannot be written, or would be in the checkout, which `submit` ships.
    """
    if path.resolve().is_relative_to(CHECKOUT):
        raise InputError(
            f"{path} is in the checkout {CHECKOUT}, which travels with every job: name a file elsewhere, for example "
            f"~/.ray/objgan-token"
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
