"""Environment variables that a job gets: printed by name only, and without secrets unless the user insists.

Ray stores a job's variables in its runtime environment, which everybody who reaches the dashboard can read. So secrets
belong into the environment of the cluster's own processes (on Kubernetes: a Secret), which jobs inherit.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from objgan.errors import InputError

_PREFIXES = ("MLFLOW_", "AWS_", "GOOGLE_", "GCLOUD_", "AZURE_", "OBJGAN_")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|ACCOUNT_KEY|API_KEY|APIKEY|CREDENTIAL|PRIVATE|SAS$")
_NOT_SECRET = {"AWS_EC2_METADATA_DISABLED", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"}
_IN_A_VALUE = re.compile(r"://[^/@\s]+:[^/@\s]+@|(secret_key|access_key|password|token|sig)=", re.IGNORECASE)


@dataclass(frozen=True)
class Variables:
    """values: the job's variables. withheld: reasons for other variables of the prefixes above, by name."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    withheld: dict[str, str] = field(default_factory=dict)


def looks_secret(name: str, value: str = "") -> bool:
    """Whether a variable has the name of a secret, or a password in its value."""
    return (bool(_SECRET.search(name.upper())) and name not in _NOT_SECRET) or bool(_IN_A_VALUE.search(value))


def secret_values() -> list[str]:
    """Secrets of this process's environment, except paths of files."""
    return [value for name, value in os.environ.items() if looks_secret(name, value) and not value.startswith("/")]


def choose(named: Iterable[str], insist: bool, environment: Mapping[str, str] = os.environ) -> Variables:
    """Variables of MLflow and storage that are set here, and named variables.

    Args:
        named: names of `--env`
        insist: also pass named secrets; everybody who reaches the dashboard can then read them
        environment: of this process

    Raises:
        InputError: a named variable is not set, or looks like a secret.
    """
    values, withheld = {}, {}
    for name in sorted(environment):
        if not name.startswith(_PREFIXES):
            continue
        value = environment[name]
        if looks_secret(name, value):
            withheld[name] = "looks like a secret: set it for the cluster's own processes"
        elif Path(value).is_absolute() and Path(value).is_file():
            withheld[name] = "names a file of this machine"
        else:
            values[name] = value
    for name in named:
        if name not in environment:
            raise InputError(f"--env {name}: not set here: set it, or leave the option out")
        if looks_secret(name, environment[name]) and not insist:
            raise InputError(
                f"--env {name}: looks like a secret, and everybody who reaches the cluster's dashboard can read the "
                f"variables of a job: set it for the cluster's own processes (a Kubernetes Secret), or add "
                f"--expose-secrets"
            )
        values[name] = environment[name]
        withheld.pop(name, None)
    return Variables(values, withheld)


def check_words(words: Iterable[str]) -> None:
    """Check that a command line, which everybody can read, holds no password.

    Raises:
        InputError: it holds one.
    """
    for word in words:
        if _IN_A_VALUE.search(word):
            raise InputError(
                f"the command's word {word.partition('=')[0].partition('://')[0]}... holds a password, and everybody "
                f"can read a job's command: set it for the cluster's own processes as an environment variable"
            )
