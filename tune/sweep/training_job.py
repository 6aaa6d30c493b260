"""The training job of one stage of a trial."""

from pathlib import Path

from objgan.config import Config
from pipelines.evaluation.image_judges import STAGE as JUDGED
from pipelines.evaluation.image_judges import ImageJudges
from pipelines.training.job import TrainJob, needed_stages
from tune.sweep.sweep import Sweep


def job_of(sweep: Sweep, config: Config, stage: str, place: str, needs: Path | None = None) -> TrainJob:
    """The training of one stage in the folder `place` of the sweep; needs: encoders other than the sweep's."""
    store = sweep.store().child(f"{place}/{stage}")
    encoders = needs or sweep.encoders
    wanted = {name: encoders for name in needed_stages(config, stage) if encoders is not None}
    local = store.local
    folder = Path("runs") / sweep.run / place / stage if local is None else local
    storage = None if local else store.uri
    return TrainJob(stage, config, sweep.data, folder, wanted, storage, judges=judges_of(sweep, stage))


def judges_of(sweep: Sweep, stage: str) -> ImageJudges | None:
    """The judges that measure a stage; None: none do."""
    return ImageJudges(sweep.judges) if sweep.judges is not None and stage == JUDGED else None
