"""The command lines of a whole run on a cluster: check MLflow, prepare, train the four stages, register.

A stage gets no more workers than its batch has groups, because a group is never divided. Every command skips what is
finished, so the sequence may be repeated.
"""

import shlex

from cluster.render.settings import Settings
from pipelines.recipes import resolve

DATA = "/data"
"""Mount of the shared storage, and working directory: all results are in its folder `runs/`."""

PROGRAM = ("python", "-m", "pipelines")


def give_to(user: int, data: str = DATA, sudo: str = "") -> str:
    """A shell command by which root gives the mount and its folder of results to a user.

    What lies in the mount keeps its owner, and the mount its mode.
    """
    return f"{sudo}chown {user}:{user} {data} && {sudo}install -d -o {user} -g {user} {data}/runs"


def commands(settings: Settings) -> list[str]:
    """Command lines, in order, every word quoted for a shell."""
    job = settings.job
    if job.command:
        return [shlex.join(shlex.split(job.command))]
    run, data = settings.name, f"runs/{settings.name}/data"
    common = ["--recipe", job.recipe, *(word for option in job.options for word in ("--set", option))]
    common += ["--address", "auto"]
    coco = ["--images", job.images, "--instances", job.instances, "--captions", job.captions, "--split", job.split]
    prepare = [*PROGRAM, "prepare", *(coco if job.images else []), "--out", data, *common]
    train = [
        [*PROGRAM, "train", stage, "--data", data, "--run", run, "--workers", workers_of(settings, stage), *common]
        for stage in resolve(job.recipe, None, job.options).stages
    ]
    check = [*PROGRAM, "check-mlflow", "--run", run]
    return [shlex.join(words) for words in (check, prepare, *train, [*PROGRAM, "register", "--run", run])]


def workers_of(settings: Settings, stage: str) -> str:
    """`--workers` of a stage: at most its number of groups; a range if the cluster grows."""
    most = getattr(resolve(settings.job.recipe, None, []), stage).training.groups
    fewest, largest = min(settings.workers.min, most), min(settings.workers.max, most)
    return str(fewest) if fewest == largest else f"{fewest}-{largest}"


def entrypoint(settings: Settings) -> str:
    """The RayJob's entrypoint: all commands under `python -m cluster steps`. One line, for one shell."""
    return f"python -m cluster steps --retries {settings.job.retries} -- {' + '.join(commands(settings))}"
