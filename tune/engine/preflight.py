"""Checks of a sweep and of a trial's settings before anything starts. They need no Ray."""

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from objgan.config import Config
from objgan.errors import InputError
from pipelines.training.job import OpenRun, TrainJob, needed_stages, open_run
from tune.engine.schedulers import Rungs, check_scheduler
from tune.engine.search import check_search
from tune.space.space import with_settings
from tune.sweep.outcomes import SettingsRefused
from tune.sweep.sweep import Sweep
from tune.sweep.training_job import judges_of


def check_sweep(sweep: Sweep) -> Rungs:
    """Check everything that can be checked without a cluster; return the report points of the last stage.

    Raises:
        InputError: the scheduler, the data, the settings or the encoders do not fit.
    """
    check_scheduler(sweep)
    check_search(sweep)
    existing: dict[str, Path] = {} if sweep.encoders is None else {"encoders": sweep.encoders}
    run = None
    unused = Path(tempfile.gettempdir()) / f"objgan-{secrets.token_hex(8)}"
    for index, stage in enumerate(sweep.stages):
        needs = needed_stages(sweep.config, stage)
        lacking = [need for need in needs if need not in existing and need not in sweep.stages[:index]]
        if lacking:
            raise InputError(f"stage {stage} needs {lacking[0]}: give --encoders DIR, or sweep over {lacking[0]}, too")
        # Checkpoints of earlier stages of the sweep do not exist yet.
        given = {need: existing[need] for need in needs if need not in sweep.stages[:index]}
        judges = judges_of(sweep, stage)
        run = open_run(TrainJob(stage, sweep.config, sweep.data, unused, given, judges=judges))
    if run is None:
        raise InputError("a sweep has at least one stage")
    _check_judged(sweep, run)
    if (sweep.pbt_interval or 0) >= run.steps:
        raise InputError(f"--pbt-interval {sweep.pbt_interval}: a trial has only {run.steps} steps: use fewer")
    return Rungs(run.job.training.checkpoint_every, run.steps)


def _check_judged(sweep: Sweep, run: OpenRun) -> None:
    judges = judges_of(sweep, sweep.stage)
    lacking = {} if judges is None else judges.lacking(run)
    for name in sweep.goal.names:
        if name in lacking:
            raise InputError(f"--metric {name} cannot be measured: {lacking[name]}")


def trial_settings(sweep: Sweep, settings: Mapping[str, Any]) -> Config:
    """A trial's tree of settings, checked against data and encoders.

    Raises:
        SettingsRefused: the trial's own settings are refused.
        InputError: the sweep's data or encoders are refused; they were accepted when it began.
    """
    try:
        config = with_settings(sweep.config, settings)
        check_sweep(replace(sweep, config=config))
    except InputError as error:
        check_sweep(sweep)
        raise SettingsRefused(str(error)) from None
    return config
