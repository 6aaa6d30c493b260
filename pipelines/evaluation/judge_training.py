"""The judges of an evaluation, trained on true images alone: second encoders, and a judge of objects.

Neither is ever used in the training of a generator, which would learn to please it.
"""

import shutil
from pathlib import Path

from objgan.checkpoint import read_state
from objgan.config import Config
from objgan.files import folder_aside
from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS
from pipelines.training.job import OpenRun, TrainJob

OTHER_SEED = 1_000_003
"""Added to the seed of the settings, so that the second encoders are not the ones that train the generators."""


def judge_jobs(config: Config, data: Path | str, out: Path) -> tuple[dict[str, TrainJob], dict[str, str]]:
    """What is to be trained, by the name of its folder in `out`, and why not the rest.

    Raises:
        InputError: no prepared data, or data without pixels.
    """
    other = config.model_copy(update={"seed": config.seed + OTHER_SEED})
    jobs = {SECOND_ENCODERS: TrainJob("encoders", other, data, out / "training" / "encoders")}
    run = OpenRun(jobs[SECOND_ENCODERS])
    run.reader("train")
    known = run.data.manifest["columns"]
    lacking = [name for name in ("masks", "attributes") if not known.get(name, False)]
    if lacking:
        return jobs, {JUDGE: f"{run.data} has no {' and no '.join(lacking)}: nothing to learn colours and objects from"}
    return jobs | {JUDGE: TrainJob("judge", other, data, out / "training" / "judge")}, {}


def identity(folder: Path) -> dict[str, str]:
    """What the judges in a folder are, whatever the folder is called.

    Raises:
        InputError: there are no second encoders.
    """
    there = [name for name in (SECOND_ENCODERS, JUDGE) if name == SECOND_ENCODERS or (folder / name).is_dir()]
    return {name: str(read_state(folder / name)["sha256"]) for name in there}


def keep(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint to the place where an evaluation looks for it."""
    with folder_aside(folder) as aside:
        shutil.copytree(checkpoint, aside, dirs_exist_ok=True)
