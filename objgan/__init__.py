"""Text-to-image synthesis that shows its working: caption, boxes, shapes, image (Obj-GAN, Li et al., CVPR 2019)."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objgan.generation import ObjGAN

__version__ = "0.1.0"


def load(model: Path | str, device: str = "auto") -> "ObjGAN":
    """Load a finished model (see `objgan.generation.ObjGAN`), onto a GPU if there is one.

    model: its folder, or its MLflow URI (`models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/RUN/...`), which needs
        MLflow and is looked up at MLflow's tracking URI

    Raises:
        objgan.errors.InputError: no model there, or a broken one.
    """
    from objgan.generation import ObjGAN  # seconds of imports, only for those who load a model
    from objgan.mlflow_model import MLFLOW_URI, download

    if MLFLOW_URI.match(str(model)):
        with tempfile.TemporaryDirectory(prefix="objgan-model-") as scratch:
            return ObjGAN.load(download(str(model), Path(scratch)), device)
    return ObjGAN.load(model, device)
