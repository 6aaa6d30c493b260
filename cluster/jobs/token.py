"""`python -m cluster token FILE`: a token for a cluster, in a file for its owner alone."""

import argparse
import os
import secrets
from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.jobs.command import CHECKOUT
from pipelines import command_line


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
