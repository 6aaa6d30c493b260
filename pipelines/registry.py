"""The model registry: a finished model as an MLflow registered model that needs nothing of this repository."""

import contextlib
import importlib.metadata
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import objgan
from objgan.errors import InputError
from objgan.files import read_json
from pipelines.mlflow_store import EXPERIMENT, logging_quiet, patient
from pipelines.tracking import prepare_store

# What the model needs where it is loaded: objgan's own dependencies and MLflow. Ray is not among them.
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "pillow"),
    *("safetensors", "pycocotools", "spacy", "pydantic"),
)
_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_ADDRESS = "MLFLOW_TRACKING_URI"


def register(
    model_folder: Path,
    name: str = "objgan",
    alias: str = "challenger",
    tracking_uri: str = "",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log a model's folder as an MLflow model, register it, give it the alias. Returns `models:/NAME/VERSION`.

    The model holds its code (`objgan` and one script), its weights as safetensors, exact requirements, a signature and
    an input example; nothing in it is pickled.

    Args:
        model_folder: what `ObjGAN.save` wrote
        name: of the registered model
        alias: moved to the new version
        tracking_uri: MLflow's store or server; "" is MLflow's own choice
        run_id: the run that the model comes from, if any
        tags: of the version

    Raises:
        InputError: no model in the folder, or the store cannot be used or refuses the name.
    """
    facts = read_json(model_folder / "model.json", "model to register")
    if not isinstance(facts, dict) or "sha256" not in facts:
        raise InputError(f"model to register: {model_folder / 'model.json'} is not a model's model.json")
    import mlflow
    from mlflow.exceptions import MlflowException

    with mlflow_at(tracking_uri) as client:
        try:
            model_id = _log(client, model_folder, run_id)
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow tells there what `run` says in its own words
                version = mlflow.register_model(f"models:/{model_id}", name, tags=dict(tags or {})).version
            client.set_registered_model_alias(name, alias, str(version))
        except MlflowException as error:
            raise InputError(f"MLflow: cannot register {name}@{alias} ({str(error).splitlines()[0][:200]})") from None
    return f"models:/{name}/{version}"


@contextlib.contextmanager
def mlflow_at(uri: str) -> Iterator[Any]:
    """A client at `uri` ("": MLflow's own choice), which is MLflow's process-wide address for the block.

    Parts of MLflow look nowhere else. After it, the address, its environment variable and `sys.path` are as they were.

    Raises:
        InputError: the store or server cannot be used.
    """
    logging_quiet()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it counts files, of which there are ten
    import mlflow

    told, path, uri = os.environ.get(_ADDRESS), sys.path, uri or mlflow.get_tracking_uri()
    prepare_store(uri)
    mlflow.set_tracking_uri(uri)
    try:
        with patient():
            yield mlflow.MlflowClient(uri)
    finally:
        sys.path = path  # MLflow tries a new model on its example, and leaves its copy of the code at the front
        mlflow.set_tracking_uri(None)
        if told is not None:
            os.environ[_ADDRESS] = told


def requirements() -> list[str]:
    """`name==version` of what the model was made with, without local build labels such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS]


def _log(client: Any, folder: Path, run_id: str | None) -> str:
    """Write the MLflow model; returns its id."""
    import mlflow.pyfunc
    from mlflow.models import Model

    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    logged = client.create_logged_model(experiment, name="objgan", source_run_id=run_id)
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

    classes = json.loads((folder / "domain" / "classes.json").read_text())
    words = json.loads((folder / "domain" / "vocabulary.json").read_text())["words"][2:]
    known = [name for name in classes if set(name.split()) <= set(words)]
    return pd.DataFrame({"caption": [f"a {known[0]}" if known else words[0]]})
