"""What can be said of a sweep, and of one trial's settings, before anything starts; needs no Ray."""

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from objgan.config import Config
from objgan.errors import InputError
from pipelines.training.job import TrainJob, needed_stages, open_run
from tune.engine.schedulers import Rungs, check_scheduler
from tune.space.space import with_settings
from tune.sweep.outcomes import SettingsRefused
from tune.sweep.sweep import Sweep


def check_sweep(sweep: Sweep) -> Rungs:
    """See that a sweep can be done, as far as that can be said without a cluster; where its last stage reports.

    Raises:
        InputError: the scheduler, the data, the settings or the encoders do not fit.
    """
    check_scheduler(sweep)
    there: dict[str, Path] = {} if sweep.encoders is None else {"encoders": sweep.encoders}
    run = None
    nowhere = Path(tempfile.gettempdir()) / f"objgan-{secrets.token_hex(8)}"
    for place, stage in enumerate(sweep.stages):
        needs = needed_stages(sweep.config, stage)
        lacking = [need for need in needs if need not in there and need not in sweep.stages[:place]]
        if lacking:
            raise InputError(f"stage {stage} needs {lacking[0]}: give --encoders DIR, or sweep over {lacking[0]}, too")
        # What earlier stages of the sweep will leave is not there yet.
        given = {need: there[need] for need in needs if need not in sweep.stages[:place]}
        run = open_run(TrainJob(stage, sweep.config, sweep.data, nowhere, given))
    if run is None:
        raise InputError("a sweep has at least one stage")
    return Rungs(run.job.training.checkpoint_every, run.steps)


def trial_settings(sweep: Sweep, settings: Mapping[str, Any]) -> Config:
    """A trial's tree of settings, checked against data and encoders.

    Raises:
        SettingsRefused: the trial's own settings are at fault.
        InputError: the sweep's data or encoders are, which were whole when it began.
    """
    try:
        config = with_settings(sweep.config, settings)
        check_sweep(replace(sweep, config=config))
    except InputError as error:
        check_sweep(sweep)
        raise SettingsRefused(str(error)) from None
    return config
