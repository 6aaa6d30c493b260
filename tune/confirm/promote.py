"""Registers the best trial in the MLflow registry as challenger, with tags that name its sweep and trial.

If every stage has a checkpoint, the whole model is registered, as `pipelines register` does. A single stage generates
no image: it becomes a version of NAME-STAGE that holds its checkpoint, for training or for assembling a model.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objgan.checkpoint import read_config
from objgan.config import config_to_json
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import read_json, sha256
from pipelines.models import PENDING, STATUS
from pipelines.models.card import ModelCard, write_card
from pipelines.models.registry import (
    DIGEST,
    Registered,
    assemble,
    checkpoint_source,
    lineage_tags,
    mlflow_at,
    mlflow_errors,
    one_version,
    register,
    unfinished,
)
from pipelines.redaction import redact_all
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import EXPERIMENT
from pipelines.training.job import best_checkpoint
from tune.confirm.result import Confirmed
from tune.report.export import trial_config
from tune.sweep.results import Trial
from tune.sweep.sweep import Sweep
from tune.sweep.tracking import find_run, trial_key

ALIAS = "challenger"


@dataclass(frozen=True)
class Candidate:
    """The checkpoints to register: those of a trial's stages, and those of other runs."""

    sweep: Sweep
    trial: Trial
    checkpoints: Mapping[str, Path]

    @property
    def whole(self) -> bool:
        """Whether all stages of a model have a checkpoint."""
        return all(stage in self.checkpoints for stage in self.sweep.config.stages)


def find_candidate(sweep: Sweep, trial: Trial, rest: str | None) -> Candidate:
    """Gather checkpoints: the trial's stages, the sweep's encoders, and the other stages from the run `rest`.

    Raises:
        InputError: the trial has no checkpoint, or the other run lacks a stage that is needed.
    """
    from tune.sweep.trial_store import checkpoint_place, trial_folder

    checkpoints: dict[str, Path] = {} if sweep.encoders is None else {"encoders": sweep.encoders}
    root = sweep.store()
    for stage in sweep.stages[:-1]:
        checkpoints[stage] = best_checkpoint(root, trial_folder(trial.id), stage, "the trial has not finished it")
    run, name = checkpoint_place(root, trial, sweep.stage)
    checkpoints[sweep.stage] = run.download(name, Path("runs") / sweep.run / "registered" / sweep.stage / name)
    if rest is not None:
        base = Storage(sweep.storage)
        for stage in sweep.config.stages:
            if stage not in checkpoints:
                advice = f"train it (train {stage} --run {rest}), or leave out --rest"
                checkpoints[stage] = best_checkpoint(base, rest, stage, advice)
    return Candidate(sweep, trial, checkpoints)


def promote(candidate: Candidate, name: str, uri: str, confirmed: Confirmed | None) -> Registered:
    """Register a version with the alias `challenger`.

    Raises:
        InputError: MLflow cannot be used, or the parts do not fit together.
    """
    tags, run = redact_all(_tags(candidate, uri, confirmed)), _run(candidate, uri)
    if not candidate.whole:
        return _register_stage(candidate, f"{name}-{candidate.sweep.stage}", uri, run, tags)
    with tempfile.TemporaryDirectory(prefix="objgan-") as folder:
        model = whole_model(candidate, Path(folder))
        return register(model, name=name, alias=ALIAS, tracking_uri=uri, run_id=run, tags=tags)


def whole_model(candidate: Candidate, folder: Path) -> Path:
    """All stages' networks as one model, in `folder`/model.

    Raises:
        InputError: the stages do not fit together: they were trained on other data or with other encoders.
    """
    _check_fit(candidate)
    config = trial_config(candidate.sweep, candidate.trial)
    for stage in config.stages:
        if stage not in candidate.sweep.stages:
            # The network has the settings of its own run, not those of the sweep.
            config = config.model_copy(update={stage: getattr(read_config(candidate.checkpoints[stage]), stage)})
    checkpoints = {stage: candidate.checkpoints[stage] for stage in config.stages}
    assemble(config, candidate.checkpoints["images"], checkpoints, folder)
    return folder / "model"


def _check_fit(candidate: Candidate) -> None:
    first = candidate.checkpoints[candidate.sweep.stage]
    words = read_json(first / "domain" / "vocabulary.json", "vocabulary of the trial")
    for stage, folder in candidate.checkpoints.items():
        if read_json(folder / "domain" / "vocabulary.json", f"vocabulary of stage {stage}") != words:
            raise InputError(f"--register: stage {stage} ({folder}) was trained on data with another vocabulary")
    if "encoders" in candidate.sweep.stages and (
        others := [name for name in candidate.sweep.config.stages[1:] if name not in candidate.sweep.stages]
    ):
        raise InputError(
            f"--register: the sweep trained encoders, and {' and '.join(others)} of --rest were trained with other "
            f"ones: leave out --rest, or sweep over them, too"
        )


def _register_stage(candidate: Candidate, name: str, uri: str, run: str | None, tags: Mapping[str, str]) -> Registered:
    """Register a version with the stage's checkpoint, the whole tree of settings and a card, without a pyfunc."""
    stage, checkpoint = candidate.sweep.stage, candidate.checkpoints[candidate.sweep.stage]
    config = trial_config(candidate.sweep, candidate.trial)
    source = checkpoint_source(checkpoint) | ({} if run is None else {"mlflow_run": run})
    facts = {"objgan": source["objgan"], "sources": {"stages": {stage: source}}}
    with mlflow_at(uri) as client, tempfile.TemporaryDirectory(prefix="objgan-") as scratch:
        folder = Path(scratch)
        shutil.copytree(checkpoint, folder / "checkpoint")
        (folder / "config.json").write_text(config_to_json(config))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digest = hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()
        wanted = {**tags, DIGEST: digest}

        def make(client: Any) -> str:
            experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
            model = client.create_logged_model(experiment, f"objgan-{stage}", run, unfinished(), None, "objgan-stage")
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
            client.set_logged_model_tags(model.model_id, dict(tags))
            if not any(each.name == name for each in client.search_registered_models(f"name='{name}'")):
                client.create_registered_model(name)
            first = {**lineage_tags(facts), STATUS: PENDING, **wanted}
            return str(client.create_model_version(name, f"models:/{model.model_id}", run, first).version)

        done = one_version(client, name, ALIAS, wanted, make)
        with mlflow_errors(f"MLflow: cannot describe {done.uri}"):
            write_card(client, ModelCard(done.uri, facts, config, Domain.load(checkpoint / "domain"), stage=stage))
    return done


def _tags(candidate: Candidate, uri: str, confirmed: Confirmed | None) -> dict[str, str]:
    sweep, trial = candidate.sweep, candidate.trial
    tags = {
        "objgan.sweep": sweep.run,
        "objgan.sweep_storage": str(sweep.store()),
        "objgan.trial": trial.id,
        "objgan.trial_number": str(trial.number),
        "objgan.stage": sweep.stage,
        "objgan.checkpoint": str(trial.checkpoint),
    }
    if sweep.tracking is not None and sweep.tracking.parent is not None:
        tags["objgan.sweep_run"] = sweep.tracking.parent
    if (run := _run(candidate, uri)) is not None:
        tags["objgan.trial_run"] = run
    if confirmed is not None:
        tags |= {"objgan.confirmed": confirmed.outcome, "objgan.verdict": confirmed.verdict()[:500]}
    return tags


def _run(candidate: Candidate, uri: str) -> str | None:
    """The trial's run in MLflow."""
    tracking = candidate.sweep.tracking
    return None if tracking is None else find_run(uri, trial_key(tracking, candidate.trial.id, candidate.sweep.stage))
