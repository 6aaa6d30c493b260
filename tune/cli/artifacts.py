"""The results of a sweep beside its trials: table, pictures and best trial, in its folder and in its MLflow run."""

import csv
import io
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.redaction import in_a_line
from pipelines.tracking.mlflow_client import mlflow_client
from tune.confirm.result import Confirmed
from tune.report.export import recipe_text
from tune.report.plots import draw_pictures
from tune.report.tables import rows, settings_of
from tune.sweep.results import SweepResult
from tune.sweep.sweep import Sweep

logger = logging.getLogger(__name__)
_TABLES = "mlflow.loggedArtifacts"


def write_outcome(sweep: Sweep, result: SweepResult) -> None:
    """Table, pictures and the best settings as a recipe: in the sweep's folder, then in MLflow.

    A picture that cannot be drawn, or an unreachable MLflow, is logged and stops nothing else.
    """
    with tempfile.TemporaryDirectory(prefix="objgan-sweep-") as scratch:
        folder = Path(scratch)
        _write_tables(sweep, result, folder)
        try:
            draw_pictures(sweep, result, folder / "pictures")
        except Exception as error:  # pictures must not stop the sweep
            logger.info(f"pictures: cannot draw all of them ({type(error).__name__}: {in_a_line(error)})")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sweep.store().write(path.relative_to(folder).as_posix(), path.read_bytes())
        _send(sweep, result, folder)


def log_confirmed(sweep: Sweep, confirmed: Confirmed) -> None:
    """Log figures and verdict of a confirmation to the sweep's MLflow run."""
    figures: dict[str, float] = {}
    for measure in confirmed.measures():
        for arm in ("best", "default"):
            values = confirmed.values(arm, measure)
            figures |= {f"confirm/{arm}/{measure}": sum(values) / len(values)} if values else {}
        if (apart := confirmed.difference(measure)) is not None:
            figures[f"confirm/difference/{measure}"] = apart.mean
    tags = {"objgan.confirmed": confirmed.outcome, "objgan.verdict": confirmed.verdict()[:500]}
    _log_to_mlflow(sweep, figures, tags)


def log_registered(sweep: Sweep, model: str) -> None:
    """Log to the sweep's MLflow run where the best trial was registered."""
    _log_to_mlflow(sweep, {}, {"objgan.registered": model})


def _write_tables(sweep: Sweep, result: SweepResult, folder: Path) -> None:
    flat = rows(result, sweep.goal)
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(flat)
    (folder / "trials.csv").write_text(text.getvalue())
    # MLflow's pages show a table of this form.
    split = {"columns": columns, "data": [[row.get(name) for name in columns] for row in flat]}
    (folder / "trials_table.json").write_text(json.dumps(split) + "\n")
    best = result.best(sweep.goal)
    if best is not None:
        (folder / "best.yaml").write_text(recipe_text(sweep, best))


def _send(sweep: Sweep, result: SweepResult, folder: Path) -> None:
    tracking = sweep.tracking
    if tracking is None or tracking.parent is None:
        return
    try:
        client = mlflow_client(tracking.uri)
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                client.log_artifacts(tracking.parent, str(path), path.name)
            else:
                client.log_artifact(tracking.parent, str(path))
        client.set_tag(tracking.parent, _TABLES, json.dumps([{"path": "trials_table.json", "type": "table"}]))
    except Exception as error:
        reason = in_a_line(error)
        logger.info(f"MLflow: the sweep's table and pictures could not be sent ({reason}); they are in its folder")
        return
    _log_best(sweep, result)


def _log_best(sweep: Sweep, result: SweepResult) -> None:
    goal = sweep.goal
    best = result.best(goal)
    states = [trial.state for trial in result.trials]
    figures: dict[str, float] = {f"trials/{state}": states.count(state) for state in dict.fromkeys(states)}
    tags: dict[str, str] = {"objgan.sweep_state": result.state}
    if best is not None and (point := best.best(goal)) is not None:
        figures |= {f"best/{name}": value for name, value in point.measures.items()}
        tags |= {"objgan.best_trial": best.id, "objgan.best_trial_number": str(best.number)}
        if goal.others:
            tags["objgan.front"] = " ".join(str(trial.number) for trial in result.front(goal))
        tags |= {f"best.{name}": str(value) for name, value in settings_of(sweep, best).items()}
    _log_to_mlflow(sweep, figures, tags)


def _log_to_mlflow(sweep: Sweep, figures: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Log metrics whose value changed, and tags: a resumed sweep adds newer values."""
    tracking = sweep.tracking
    if tracking is None or tracking.parent is None:
        return
    try:
        client = mlflow_client(tracking.uri)
        known: Any = client.get_run(tracking.parent).data
        for name, value in figures.items():
            if known.metrics.get(name) != value:
                client.log_metric(tracking.parent, name, float(value))
        for name, text in tags.items():
            client.set_tag(tracking.parent, name, text)
    except Exception as error:
        logger.info(f"MLflow: the sweep's figures could not be sent ({in_a_line(error)})")
