"""The command lines of a whole run on a cluster: prepare, train the four stages, register.

Each is a command of its own, with no more workers than its batch has groups, which are never divided. Every one of them
goes on where it was, and does nothing when it is done: the sequence may be repeated.
"""

from cluster.settings import Settings

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

PROGRAM = "python -m pipelines"


def commands(settings: Settings) -> list[str]:
    """Command lines, in order."""
    job = settings.job
    if job.command:
        return [job.command]
    run, data = settings.name, f"runs/{settings.name}/data"
    common = [f"--recipe {job.recipe}", *(f"--set {option}" for option in job.options), "--address auto"]
    coco = [
        f"--images {job.images}",
        f"--instances {job.instances}",
        f"--captions {job.captions}",
        f"--split {job.split}",
    ]
    prepare = [f"{PROGRAM} prepare", *(coco if job.images else []), f"--out {data}", *common]
    train = [
        [f"{PROGRAM} train {stage} --data {data} --run {run}", workers_of(settings, stage), *common]
        for stage in GROUPS[job.recipe]
    ]
    return [" ".join(words) for words in (prepare, *train, [f"{PROGRAM} register --run {run}"])]


def workers_of(settings: Settings, stage: str) -> str:
    """`--workers` of a stage: no more than it has groups; a range where the cluster grows."""
    most = GROUPS[settings.job.recipe][stage]
    fewest, largest = min(settings.workers.min, most), min(settings.workers.max, most)
    return f"--workers {fewest}" if fewest == largest else f"--workers {fewest}-{largest}"


def entrypoint(settings: Settings) -> str:
    """The RayJob's entrypoint: all of them under `python -m cluster steps`. One line: a shell reads it, unquoted."""
    return f"python -m cluster steps -- {' + '.join(commands(settings))}"
