"""The command lines of a whole run on a cluster: ask MLflow, prepare, train the four stages, register.

Each is a command of its own, with no more workers than its batch has groups, which are never divided. Every one of them
resumes from what is finished, and does nothing when it is done: the sequence may be repeated.
"""

import shlex

from cluster.render.settings import Settings

CODE = "/opt/objgan"
"""Where the image holds this repository."""

DATA = "/data"
"""Where the shared store is mounted, and the working directory: `runs/` below it holds everything that is written."""

GROUPS: dict[str, dict[str, int]] = {
    "tiny": {"encoders": 1, "boxes": 1, "shapes": 1, "images": 1},
    "small": {"encoders": 1, "boxes": 1, "shapes": 1, "images": 2},
    "paper": {"encoders": 1, "boxes": 8, "shapes": 8, "images": 4},
    "fast": {"encoders": 1, "boxes": 8, "shapes": 8, "images": 4},
}
"""Groups of a stage's batch, by recipe: its most workers. A test holds them equal to the recipes."""

PROGRAM = ("python", "-m", "pipelines")


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
        for stage in GROUPS[job.recipe]
    ]
    check = [*PROGRAM, "check-mlflow", "--run", run]
    return [shlex.join(words) for words in (check, prepare, *train, [*PROGRAM, "register", "--run", run])]


def workers_of(settings: Settings, stage: str) -> str:
    """`--workers` of a stage: no more than it has groups; a range where the cluster grows."""
    most = GROUPS[settings.job.recipe][stage]
    fewest, largest = min(settings.workers.min, most), min(settings.workers.max, most)
    return str(fewest) if fewest == largest else f"{fewest}-{largest}"


def entrypoint(settings: Settings) -> str:
    """The RayJob's entrypoint: all of them under `python -m cluster steps`. One line, for one shell."""
    return f"python -m cluster steps --retries {settings.job.retries} -- {' + '.join(commands(settings))}"
