"""Models that MLflow keeps. The one module of this package that imports MLflow, which it does not require."""

import re
from pathlib import Path

from objgan.errors import InputError
from objgan.model_folder import only_model

MLFLOW_URI = re.compile(r"(models|runs|mlflow-artifacts):/")
"""The beginning of an address that `download` takes."""


def download(uri: str, folder: Path) -> Path:
    """Download the model at `models:/...` or `runs:/...` into a folder; returns the model's own folder.

    Raises:
        InputError: MLflow is not installed, has no such model, or its files are not where MLflow recorded them.
    """
    try:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    except ModuleNotFoundError:
        raise InputError(f"model {uri}: MLflow is not installed; install mlflow, or give the model's folder") from None
    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise InputError(f"unknown model {uri} ({error}); MLFLOW_TRACKING_URI says where to look") from None
    if not any(folder.rglob("*")):
        recorded = getattr(get_artifact_repository(uri), "repo", None)
        raise InputError(
            f"model {uri}: no files at {getattr(recorded, 'artifact_uri', uri)}, where MLflow recorded them; if a "
            f"folder was moved, run `python -m pipelines runs relocate`, or link its old place to the new one "
            f"(ln -s NEW OLD)"
        )
    return only_model(folder, uri)
