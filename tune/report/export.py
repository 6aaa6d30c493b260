"""A trial's settings as a recipe file: a complete tree for `--config`."""

from datetime import UTC, datetime
from pathlib import Path

from objgan.config import Config
from objgan.errors import InputError
from objgan.files import write_atomically
from pipelines.recipes import to_yaml
from pipelines.runtime.console import say
from tune.report.tables import no_best, settings_of, text
from tune.space.space import with_settings
from tune.sweep.results import SweepResult, Trial
from tune.sweep.sweep import Sweep


def best_trial(sweep: Sweep, result: SweepResult) -> Trial:
    """The trial with the best value of the goal's metric among those that keep its requirements.

    Raises:
        InputError: no trial has a value, or none keeps the requirements.
    """
    best = result.best(sweep.goal)
    if best is None:
        raise InputError(f"{sweep.run}: {no_best(result, sweep.goal)}, so there is no best trial")
    return best


def trial_config(sweep: Sweep, trial: Trial) -> Config:
    """All settings of a trial, in force at its best report."""
    return with_settings(sweep.config, settings_of(sweep, trial))


def recipe_text(sweep: Sweep, trial: Trial) -> str:
    """The content of the recipe file: its origin as comments, then the whole tree."""
    point = trial.report(sweep.goal)
    value = (
        "" if point is None else f", {sweep.goal.metric} {point.measures[sweep.goal.metric]:.6g} at step {point.step}"
    )
    lines = [
        f"Best of sweep {sweep.run}: trial {trial.number} ({trial.id}){value}.",
        f"Written {datetime.now(UTC):%Y-%m-%d}; over recipe {sweep.config.recipe}:",
        *(f"  {name}: {text(value)}" for name, value in settings_of(sweep, trial).items()),
        f"Use it with --recipe {sweep.config.recipe} --config FILE: it holds every setting.",
    ]
    if trial.donors:
        lines.append("Its settings changed during training; these were in force at its best report.")
    return "".join(f"# {line}\n" for line in lines) + to_yaml(trial_config(sweep, trial))


def export_recipe(sweep: Sweep, result: SweepResult, file: Path) -> None:
    """Write the best trial's recipe file and print how to use it.

    Raises:
        InputError: no trial has a value, or the file cannot be written.
    """
    content = recipe_text(sweep, best_trial(sweep, result))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        raise InputError(f"--export-recipe: cannot write {file} ({error.strerror})") from None
    say(f"recipe:   {file} (--recipe {sweep.config.recipe} --config {file})")
