"""The model registry: a finished model as an MLflow registered model that does not need this repository."""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import objgan
from objgan.checkpoint import load_inference, read_config, read_state
from objgan.config import STAGES, Config, flatten
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import sha256
from objgan.generation import ObjGAN
from objgan.json_input import parse_json
from objgan.model_folder import read_facts
from objgan.serving import OUTPUTS, Params
from objgan.stages import build_network, stage_class
from pipelines.models import PENDING, STATUS
from pipelines.models.card import LICENCE, Measured, ModelCard, example_caption, logged_model, mapping, write_card
from pipelines.redaction import in_a_line, redact, redact_all
from pipelines.runtime.origin import origin
from pipelines.storage.lease import LeaseInfo
from pipelines.storage.retry import StorageRefused
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.mlflow_client import (
    EXPERIMENT,
    LONGEST_VALUE,
    MOST_METRICS,
    MOST_PARAMETERS,
    REFUSALS,
    create_run,
    dataset_input,
    dataset_name,
    logging_quiet,
    needed_packages,
    patient,
)
from pipelines.tracking.offline_queue import Dataset
from pipelines.tracking.tracker import known_run, prepare_store
from pipelines.tracking.tracker import tracking_uri as default_uri

# Packages that a loaded model needs: objgan's dependencies and MLflow, not Ray.
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "pillow"),
    *("safetensors", "pycocotools", "spacy", "pydantic"),
)
_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_ADDRESS = "MLFLOW_TRACKING_URI"
DIGEST, MAKER = "objgan.digest", "objgan.maker"
"""Tags of a version: hash of its content; the process that creates it, empty when it is complete."""
_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, `models:/NAME/VERSION`; `new` is False if it existed before."""

    uri: str
    new: bool

    @property
    def number(self) -> str:
        """The number of the version."""
        return self.uri.rpartition("/")[2]

    def text(self, alias: str) -> str:
        """The result in one line."""
        if self.new:
            return f"registered {self.uri} (alias {alias})"
        return f"{self.uri} already holds this model: no new version; alias {alias} points to it"


def register(
    model_folder: Path,
    name: str = "objgan",
    alias: str = "challenger",
    tracking_uri: str = "",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Registered:
    """Log a model's folder as an MLflow model, register it with its card, give it the alias.

    If a version with the same model and the same code exists, that version gets the alias and the tags.
    The model contains its code (`objgan` and one script), its weights as safetensors, exact requirements, a signature
    and an input example; it contains no pickle.

    Args:
        model_folder: written by `ObjGAN.save`
        name: of the registered model
        alias: moved to the version
        tracking_uri: MLflow's store or server; "" is the one of all commands
        run_id: the run that made the model; None: a new version gets a run of its own
        tags: of the version

    Raises:
        InputError: the folder holds no model, the store cannot be used, or it rejects the name.
    """
    facts = read_facts(model_folder)
    digest = _digest(facts["sha256"], _code(), requirements())
    lineage, settings = lineage_tags(facts), flatten(read_config(model_folder))

    def make(client: Any) -> str:
        import mlflow

        model_id = _log(client, model_folder, _described_run(client, run_id, lineage, settings))
        first = {**lineage, STATUS: PENDING, DIGEST: digest}
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints hints that `run` prints itself
            return str(mlflow.register_model(f"models:/{model_id}", name, tags=first).version)

    with mlflow_at(tracking_uri) as client:
        done = one_version(client, name, alias, {**(tags or {}), DIGEST: digest}, make)
        with mlflow_errors(f"MLflow: cannot register {name}@{alias}"):
            write_card(client, ModelCard.of(done.uri, model_folder))
    return done


def lineage_tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a new version and of its run: user, git revision, licence, digest of the data, runs of the stages.

    facts: content of `model.json`
    """
    sources = mapping(facts.get("sources"))
    tags = {**origin(), "licence": LICENCE}
    if isinstance(digest := sources.get("data"), str):
        tags["objgan.data_digest"] = digest
    for stage in STAGES:
        if isinstance(run := mapping(mapping(sources.get("stages")).get(stage)).get("mlflow_run"), str):
            tags[f"objgan.run.{stage}"] = run
    return {name: redact(value)[:LONGEST_VALUE] for name, value in tags.items()}


def _described_run(client: Any, run_id: str | None, tags: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """The version's run, with its tags and the model's settings; without `run_id` a new one, which is finished."""
    from mlflow.entities import Param

    if run_id is None:
        run_id = create_run(client, "register", tags)
        client.set_terminated(run_id)
    else:
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
    known = client.get_run(run_id).data.params
    new = [Param(key, redact(str(value))[:LONGEST_VALUE]) for key, value in settings.items() if key not in known]
    for start in range(0, len(new), MOST_PARAMETERS):
        client.log_batch(run_id, params=new[start : start + MOST_PARAMETERS])
    return run_id


def log_measures(uri: str, folder: Path, measured: Measured, tracking_uri: str, pictures: Path) -> None:
    """Log an evaluation to the run of a registered version and to its logged model, and write it into the card.

    A metric that the logged model has with this value on these data is not logged twice.

    Args:
        uri: `models:/NAME/VERSION`
        folder: of the model
        measured: the metrics
        tracking_uri: MLflow's store or server
        pictures: folder of PNG files

    Raises:
        InputError, StorageRefused: MLflow cannot be used, or there is no such version.
    """
    from mlflow.entities import Metric

    name, _, number = uri.removeprefix("models:/").strip("/").rpartition("/")
    what = f"MLflow: cannot log the metrics of {uri}"
    with mlflow_at(tracking_uri) as client, mlflow_errors(what, "RESOURCE_DOES_NOT_EXIST"):
        version = client.get_model_version(name, number)
        run, model = version.run_id, logged_model(version)
        if not run:
            run = create_run(client, "evaluate", {"objgan.model": uri})
            client.set_terminated(run)
        known = {(metric.key, metric.value) for metric in _metrics_on(client, model, measured.data)}
        data = dataset_name(measured.data) if model and measured.data else (None, None)
        now = int(time.time() * 1000)
        new = [
            Metric(key, value, now, 0, model, *data)
            for key, value in measured.values.items()
            if math.isfinite(value) and (key, value) not in known
        ]
        for start in range(0, len(new), MOST_METRICS):
            client.log_batch(run, metrics=new[start : start + MOST_METRICS])
        if measured.place:
            client.log_inputs(run, [dataset_input(Dataset(measured.data, measured.place, measured.rows))])
        for path in sorted(pictures.glob("*.png")):
            client.log_artifact(run, str(path), f"pictures/{measured.protocol}")
        write_card(client, ModelCard.of(f"models:/{name}/{number}", folder, measured))


def _metrics_on(client: Any, model: str | None, digest: str) -> list[Any]:
    """The metrics of a logged model on these data."""
    metrics = client.get_logged_model(model).metrics or [] if model else []
    return [metric for metric in metrics if metric.dataset_digest == dataset_name(digest)[1]]


def one_version(client: Any, name: str, alias: str, tags: Mapping[str, str], make: Callable[[Any], str]) -> Registered:
    """Find the version with the tag `DIGEST` of `tags`, or `make` it; set its tags and alias.

    Raises:
        InputError: the store rejects the name.
        StorageRefused: it is not reachable, or denies access.
    """
    with mlflow_errors(f"MLflow: cannot register {name}@{alias}"):
        existing = client.search_model_versions(f"name = {_quoted(name)} and tags.`{DIGEST}` = '{tags[DIGEST]}'")
        version = max((int(model.version) for model in existing), default=None)
        number = str(version or make(client))
        for key, value in redact_all(tags).items():
            client.set_model_version_tag(name, number, key, value)
        client.set_registered_model_alias(name, alias, number)
        if (model_id := logged_model(client.get_model_version(name, number))) is not None:
            client.set_logged_model_tags(model_id, {MAKER: ""})
    return Registered(f"models:/{name}/{number}", version is None)


@contextlib.contextmanager
def mlflow_errors(what: str, *wrong: str) -> Iterator[None]:
    """Errors of MLflow, as errors of a command that begin with `what`.

    wrong: further codes of errors that mean that a value is wrong

    Raises:
        InputError: MLflow rejects a value.
        StorageRefused: it is not reachable, or denies access.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        kind = InputError if error.error_code in (*REFUSALS, *wrong) else StorageRefused
        raise kind(f"{what} ({in_a_line(error)})") from None


def unfinished() -> dict[str, str]:
    """Tags of a model that is being logged: if this process is killed, `runs gc` removes the model."""
    return {MAKER: json.dumps(LeaseInfo.of_this_process("register", _DAY).fixed())}


def orphans(client: Any) -> list[Any]:
    """Models without a version, logged by a `register` that was killed."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    models, token = [], None
    while experiment is not None:
        page = client.search_logged_models([experiment.experiment_id], page_token=token)
        models += [model for model in page if _is_orphan(client, model)]
        if not (token := page.token):
            break
    return models


def remove_orphan(client: Any, model: Any) -> None:
    """Remove a logged model with its files; call it inside `mlflow_at`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(model.artifact_location).delete_artifacts()
    client.delete_logged_model(model.model_id)


def _is_orphan(client: Any, model: Any) -> bool:
    try:
        maker = LeaseInfo(**parse_json((model.tags.get(MAKER) or "null").encode()))
    except (TypeError, ValueError):
        return False  # complete, or not ours
    # Only the age of another machine's process is known.
    gone = maker.is_gone or (maker.is_elsewhere and time.time() - maker.started > maker.ttl)
    return gone and not client.search_model_versions(f"source_path = 'models:/{model.model_id}'")


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _code() -> dict[str, str]:
    """Hashes of the code in a registered model."""
    package = Path(objgan.__file__).parent
    files = [_SCRIPT, *sorted(package.rglob("*.py"))]
    return {path.relative_to(package.parent).as_posix(): sha256(path) for path in files}


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


@contextlib.contextmanager
def mlflow_at(uri: str) -> Iterator[Any]:
    """A client at `uri`, which is MLflow's process-wide address for the block: parts of MLflow use no other.

    The address, its environment variable and `sys.path` are restored afterwards. "" is the address of all commands,
    not MLflow's own default, which is a new `mlflow.db` in the working folder.

    Raises:
        InputError: the store or server cannot be used.
    """
    logging_quiet()
    import mlflow

    before, path, uri = os.environ.get(_ADDRESS), sys.path, uri or default_uri(RUNS)
    prepare_store(uri)
    mlflow.set_tracking_uri(uri)
    try:
        with patient(), needed_packages(uri):
            yield mlflow.MlflowClient(uri)
    finally:
        sys.path = path  # MLflow tests a new model on its example, and leaves its copy of the code at the front
        mlflow.set_tracking_uri(None)
        os.environ.pop(_ADDRESS, None)  # MLflow leaves it after a block inside this one
        if before is not None:
            os.environ[_ADDRESS] = before


def requirements() -> list[str]:
    """`name==version` of the installed packages, without local build labels such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS]


def assemble(
    config: Config,
    data: Path,
    checkpoints: Mapping[str, Path],
    folder: Path,
    sources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Save the inference networks of all stages as one model folder; those of a stage that is not trained are new.

    sources: further entries of `sources` in model.json, beside the stages' checkpoints
    """
    domain = Domain.load(data / "domain")
    untrained = [name for stage in set(STAGES) - set(config.stages) for name in stage_class(stage).inference]
    networks = {name: build_network(name, config, domain) for name in untrained}
    for path in checkpoints.values():
        networks |= load_inference(path)
    stages = {name: checkpoint_source(path) for name, path in checkpoints.items()}
    ObjGAN(config, domain, networks).save(folder / "model", {**(sources or {}), "stages": stages})
    return {"checkpoints": {name: str(path.name) for name, path in checkpoints.items()}}


def checkpoint_source(checkpoint: Path) -> dict[str, Any]:
    """The entry of `sources.stages` in model.json: name, step, versions, and the run in MLflow if it is known."""
    state = read_state(checkpoint)
    source = {"checkpoint": checkpoint.name} | {key: state.get(key) for key in ("step", "objgan", "torch")}
    run = known_run(Storage(checkpoint.parent))
    return source if run is None else source | {"mlflow_run": run}


def _log(client: Any, folder: Path, run_id: str | None) -> str:
    """Write the MLflow model; returns its id."""
    import mlflow.pyfunc
    from mlflow.models import Model

    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    logged = client.create_logged_model(experiment, name="objgan", source_run_id=run_id, tags=unfinished())
    Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        model_id=logged.model_id,
        run_id=run_id,
        **pyfunc_parts(folder),
    )
    return str(logged.model_id)


def pyfunc_parts(folder: Path) -> dict[str, Any]:
    """What `mlflow.pyfunc.save_model` makes an MLflow model of: the script, the model's folder, `objgan`'s code, ..."""
    return {
        "python_model": str(_SCRIPT),
        "artifacts": {"model": str(folder.resolve())},
        "code_paths": [str(Path(objgan.__file__).resolve().parent)],
        "pip_requirements": requirements(),
        "signature": _signature(),
        "input_example": _example(folder),
    }


def _signature() -> Any:
    """Outputs and params. With a schema of inputs, MLflow would drop unknown columns and refuse plain texts itself."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    numbers = {"row", "sample", "seed"}
    columns = [
        ColSpec(DataType.long if name in numbers else DataType.string, name, required=name == "row") for name in OUTPUTS
    ]
    defaults = asdict(Params())
    types = {name: DataType.long if name in ("n", "seed") else DataType.string for name in defaults}
    parameters = [ParamSpec(name, types[name], default) for name, default in defaults.items()]
    return ModelSignature(outputs=Schema(columns), params=ParamSchema(parameters))


def _example(folder: Path) -> Any:
    """A caption with words of this model's vocabulary."""
    import pandas as pd  # type: ignore[import-untyped]

    return pd.DataFrame({"caption": [example_caption(Domain.load(folder / "domain"))]})
