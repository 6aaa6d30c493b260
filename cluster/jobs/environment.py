"""Environment variables that a job takes along: by name, never shown, and no secrets unless somebody insists.

Ray keeps a job's variables in its runtime environment, which whoever reaches the dashboard reads. A secret therefore
belongs into the environment of the cluster's own processes (on Kubernetes: a Secret); jobs inherit it from there.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import InputError

_PREFIXES = ("MLFLOW_", "AWS_", "GOOGLE_", "GCLOUD_", "AZURE_", "OBJGAN_")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|ACCOUNT_KEY|API_KEY|APIKEY|CREDENTIAL|PRIVATE|SAS$")
_NOT_SECRET = {"AWS_EC2_METADATA_DISABLED", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"}
_IN_A_VALUE = re.compile(r"://[^/@\s]+:[^/@\s]+@|(secret_key|access_key|password|token|sig)=", re.IGNORECASE)


@dataclass(frozen=True)
class Variables:
    """values: what the job gets. withheld: why other variables of the families above stay here, by name."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    withheld: dict[str, str] = field(default_factory=dict)


def looks_secret(name: str, value: str = "") -> bool:
    """Whether a variable's name, or a password in its value, says that nobody should see it."""
    return (bool(_SECRET.search(name.upper())) and name not in _NOT_SECRET) or bool(_IN_A_VALUE.search(value))


def secret_values(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The secrets of this process's environment, but for those that are paths of files."""
    return [value for name, value in environment.items() if looks_secret(name, value) and not value.startswith("/")]


def choose(named: Iterable[str], insist: bool, environment: Mapping[str, str] = os.environ) -> Variables:
    """The variables of MLflow and storage that are set here, and those named.

    Args:
        named: names that were asked for
        insist: pass secrets that were asked for by name; whoever sees the dashboard can then read them
        environment: this process's

    Raises:
        InputError: one was asked for that is not set, or that looks like a secret.
    """
    values, withheld = {}, {}
    for name in sorted(environment):
        if not name.startswith(_PREFIXES):
            continue
        value = environment[name]
        if looks_secret(name, value):
            withheld[name] = "looks like a secret: give it to the cluster's own processes"
        elif Path(value).is_absolute() and Path(value).is_file():
            withheld[name] = "names a file of this machine"
        else:
            values[name] = value
    for name in named:
        if name not in environment:
            raise InputError(f"--env {name}: not set here: set it, or leave the option out")
        if looks_secret(name, environment[name]) and not insist:
            raise InputError(
                f"--env {name}: looks like a secret, and whoever reaches the cluster's dashboard reads the "
                f"variables of a job: give it to the cluster's own processes (a Kubernetes Secret), or add "
                f"--expose-secrets"
            )
        values[name] = environment[name]
        withheld.pop(name, None)
    return Variables(values, withheld)


def check_words(words: Iterable[str]) -> None:
    """See that a command line, which everybody can read, holds no password.

    Raises:
        InputError: it does.
    """
    for word in words:
        if _IN_A_VALUE.search(word):
            raise InputError(
                f"the command's word {word.partition('=')[0].partition('://')[0]}... holds a password, and everybody "
                f"can read a job's command: give it to the cluster's own processes as an environment variable"
            )
