"""The judges of an evaluation, trained on true images alone: second encoders, and a judge of objects.

No generator is trained with them: it would learn to exploit their errors.
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
    """Training jobs by folder name in `out`, and the judges that are skipped, with the reason.

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
    """Checksums of the judges in a folder, independent of its path.

    Raises:
        InputError: the folder has no second encoders.
    """
    names = [SECOND_ENCODERS, *([JUDGE] if (folder / JUDGE).is_dir() else [])]
    return {name: str(read_state(folder / name)["sha256"]) for name in names}


def keep(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint to the folder from which an evaluation loads it."""
    with folder_aside(folder) as aside:
        shutil.copytree(checkpoint, aside, dirs_exist_ok=True)
