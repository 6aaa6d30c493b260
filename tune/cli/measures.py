"""Which held-out measures a sweep can improve."""

import difflib

from objgan.errors import InputError
from objgan.stages import stage_class
from tune.sweep.sweep import Goal


def goal_of(stage: str, metric: str | None, mode: str | None) -> Goal:
    """The goal that `--metric` and `--mode` name; the stage's objective where they name none.

    Raises:
        InputError: an unknown stage, or a name that is no held-out measure of it; those that are are listed.
    """
    kind = stage_class(stage)
    metric = metric or kind.objective[0]
    if metric not in kind.measures:
        near = difflib.get_close_matches(metric, kind.measures, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        names = ", ".join(f"{name} ({best})" for name, best in kind.measures.items())
        raise InputError(
            f"--metric {metric}: no held-out measure of stage {stage}: {meant}there are {names}; "
            f"losses of a GAN do not say what is better"
        )
    return Goal(metric, "max" if (mode or kind.measures[metric]) == "max" else "min")
