"""Models that MLflow keeps. The one module of this package that imports MLflow, which it does not require."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from objgan.errors import InputError
from objgan.model_folder import only_model


@contextlib.contextmanager
def downloaded(uri: str) -> Iterator[Path]:
    """The model's folder of `models:/...` or `runs:/...`, on this machine, for the length of a block.

    Raises:
        InputError: MLflow is not installed, or has no such model.
    """
    try:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise InputError(f"model {uri}: MLflow is not installed; install mlflow, or give the model's folder") from None
    with tempfile.TemporaryDirectory(prefix="objgan-model-") as scratch:
        try:
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch)
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"unknown model {uri} ({reason}); MLFLOW_TRACKING_URI says where to look") from None
        yield only_model(Path(scratch), uri)
