"""The model registry: a finished model as an MLflow registered model that needs nothing of this repository."""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import objgan
from objgan.checkpoint import load_inference
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import sha256
from objgan.generation import ObjGAN
from objgan.json_input import parse_json
from objgan.model_folder import read_facts
from pipelines.redaction import in_a_line, redact_all
from pipelines.storage.lease import LeaseInfo
from pipelines.storage.retry import StorageRefused
from pipelines.storage.storage import RUNS
from pipelines.tracking.mlflow_tracker import EXPERIMENT, REFUSALS, logging_quiet, needed_packages, patient
from pipelines.tracking.tracker import prepare_store
from pipelines.tracking.tracker import tracking_uri as default_uri

# What the model needs where it is loaded: objgan's own dependencies and MLflow. Ray is not among them.
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "pillow"),
    *("safetensors", "pycocotools", "spacy", "pydantic"),
)
_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_ADDRESS = "MLFLOW_TRACKING_URI"
DIGEST, MAKER = "objgan.digest", "objgan.maker"
"""Tags: sum of all that a version holds; the process that makes it, empty once it is made."""
_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, `models:/NAME/VERSION`; not `new`: it was there before."""

    uri: str
    new: bool

    def text(self, alias: str) -> str:
        """What was done, for people."""
        if self.new:
            return f"registered {self.uri} (alias {alias})"
        return f"{self.uri} holds this model already: no new version; alias {alias} points to it"


def register(
    model_folder: Path,
    name: str = "objgan",
    alias: str = "challenger",
    tracking_uri: str = "",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Registered:
    """Log a model's folder as an MLflow model, register it, give it the alias.

    A version that holds the same model and the same code is not made a second time: it gets the alias and the tags.
    The model holds its code (`objgan` and one script), its weights as safetensors, exact requirements, a signature and
    an input example; nothing in it is pickled.

    Args:
        model_folder: what `ObjGAN.save` wrote
        name: of the registered model
        alias: moved to the version
        tracking_uri: MLflow's store or server; "" is the one that all commands use
        run_id: the run that the model comes from, if any
        tags: of the version

    Raises:
        InputError: no model in the folder, or the store cannot be used or refuses the name.
    """
    facts = read_facts(model_folder)
    digest = _digest(facts["sha256"], _code(), requirements())

    def make(client: Any) -> str:
        import mlflow

        model_id = _log(client, model_folder, run_id)
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints there what `run` says in its own words
            return str(mlflow.register_model(f"models:/{model_id}", name, tags={DIGEST: digest}).version)

    with mlflow_at(tracking_uri) as client:
        return one_version(client, name, alias, {**(tags or {}), DIGEST: digest}, make)


def one_version(client: Any, name: str, alias: str, tags: Mapping[str, str], make: Callable[[Any], str]) -> Registered:
    """The version whose tag `DIGEST` is that of `tags`, or the one that `make` makes; with the tags and the alias.

    Raises:
        InputError: the store refuses the name.
        StorageRefused: it does not answer, or refuses this process.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.search_model_versions(f"name = {_quoted(name)} and tags.`{DIGEST}` = '{tags[DIGEST]}'")
        version = max((int(one.version) for one in found), default=None)
        number = str(version or make(client))
        for key, value in redact_all(tags).items():
            client.set_model_version_tag(name, number, key, value)
        client.set_registered_model_alias(name, alias, number)
        made = client.get_model_version(name, number).model_id
        if made is not None:
            client.set_logged_model_tags(made, {MAKER: ""})
    except MlflowException as error:
        kind = InputError if error.error_code in REFUSALS else StorageRefused
        raise kind(f"MLflow: cannot register {name}@{alias} ({in_a_line(error)})") from None
    return Registered(f"models:/{name}/{number}", version is None)


def unfinished() -> dict[str, str]:
    """Tags of a model that is being logged: should this process be killed, `runs gc` removes the model."""
    return {MAKER: json.dumps(LeaseInfo.of_this_process("register", _DAY).fixed())}


def orphans(client: Any) -> list[Any]:
    """Models that a `register` logged which was killed before they became a version."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found, token = [], None
    while experiment is not None:
        page = client.search_logged_models([experiment.experiment_id], page_token=token)
        found += [model for model in page if _is_orphan(client, model)]
        if not (token := page.token):
            break
    return found


def remove_orphan(client: Any, model: Any) -> None:
    """Remove a logged model with its files. The address of MLflow must be the process's (`mlflow_at`)."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(model.artifact_location).delete_artifacts()
    client.delete_logged_model(model.model_id)


def _is_orphan(client: Any, model: Any) -> bool:
    try:
        maker = LeaseInfo(**parse_json((model.tags.get(MAKER) or "null").encode()))
    except (TypeError, ValueError):
        return False  # finished, or not ours
    # Of another machine's process nothing is known but its age.
    gone = maker.is_gone or (maker.is_elsewhere and time.time() - maker.started > maker.ttl)
    return gone and not client.search_model_versions(f"source_path = 'models:/{model.model_id}'")


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _code() -> dict[str, str]:
    """Sums of the code that goes into a registered model."""
    package = Path(objgan.__file__).parent
    files = [_SCRIPT, *sorted(package.rglob("*.py"))]
    return {path.relative_to(package.parent).as_posix(): sha256(path) for path in files}


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


@contextlib.contextmanager
def mlflow_at(uri: str) -> Iterator[Any]:
    """A client at `uri`, which is MLflow's process-wide address for the block: parts of MLflow look nowhere else.

    After it, the address, its environment variable and `sys.path` are as they were. "" is the address that all commands
    use, never MLflow's own default, which is a new `mlflow.db` in whatever folder the process runs in.

    Raises:
        InputError: the store or server cannot be used.
    """
    logging_quiet()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it counts files, of which there are ten
    import mlflow

    before, path, uri = os.environ.get(_ADDRESS), sys.path, uri or default_uri(RUNS)
    prepare_store(uri)
    mlflow.set_tracking_uri(uri)
    try:
        with patient(), needed_packages(uri):
            yield mlflow.MlflowClient(uri)
    finally:
        sys.path = path  # MLflow tries a new model on its example, and leaves its copy of the code at the front
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[_ADDRESS] = before


def requirements() -> list[str]:
    """`name==version` of what the model was made with, without local build labels such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS]


def assemble(config: Config, data: Path, checkpoints: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Put the stages' inference networks together as one model folder."""
    networks = {name: network for path in checkpoints.values() for name, network in load_inference(path).items()}
    ObjGAN(config, Domain.load(data / "domain"), networks).save(folder / "model")
    return {"checkpoints": {name: str(path.name) for name, path in checkpoints.items()}}


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
        python_model=str(_SCRIPT),
        artifacts={"model": str(folder.resolve())},
        code_paths=[str(Path(objgan.__file__).resolve().parent)],
        pip_requirements=requirements(),
        signature=_signature(),
        input_example=_example(folder),
    )
    return str(logged.model_id)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    columns = [ColSpec(DataType.string, name) for name in ("caption", "image_png", "layout_json")]
    parameters = [ParamSpec("n", DataType.long, 1), ParamSpec("seed", DataType.long, 0)]
    return ModelSignature(Schema(columns[:1]), Schema(columns), ParamSchema(parameters))


def _example(folder: Path) -> Any:
    """A caption that this model understands, whatever it was trained on."""
    import pandas as pd  # type: ignore[import-untyped]

    domain = Domain.load(folder / "domain")
    words = domain.vocabulary.words[2:]
    known = [name for name in domain.classes if set(name.split()) <= set(words)]
    return pd.DataFrame({"caption": [f"a {known[0]}" if known else words[0]]})
