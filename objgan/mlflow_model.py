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
        InputError: MLflow is not installed, or has no such model.
    """
    try:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise InputError(f"model {uri}: MLflow is not installed; install mlflow, or give the model's folder") from None
    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise InputError(f"unknown model {uri} ({error}); MLFLOW_TRACKING_URI says where to look") from None
    return only_model(folder, uri)
