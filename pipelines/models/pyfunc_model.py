"""The registered model, as code: MLflow copies this file beside the weights and runs it where the model is loaded.

It may import what the model's requirements name, and `objgan`, which travels with it; nothing else of this repository.
"""

import base64
import io
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel
from PIL import Image

import objgan


class CaptionToImage(PythonModel):
    """Column `caption` -> n rows a caption: caption, image_png (base64) and layout_json."""

    def load_context(self, context: Any) -> None:
        """Read the weights, on a GPU where there is one."""
        self._model = objgan.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Generate. `params`: n samples a caption (default 1), seed (default 0).

        Raises:
            objgan.errors.InputError: a caption is empty or has no known word.
        """
        given = params or {}
        captions = [str(caption) for caption in model_input["caption"]]
        made = self._model.generate(captions, n=int(given.get("n", 1)), seed=int(given.get("seed", 0)))
        classes = self._model.domain.classes
        return pd.DataFrame(
            {
                "caption": [one.caption for one in made],
                "image_png": [_png_base64(Image.fromarray(one.image)) for one in made],
                "layout_json": [one.layout_json(classes) for one in made],
            },
            columns=["caption", "image_png", "layout_json"],
        )


def _png_base64(image: Image.Image) -> str:
    """Text, not bytes: it goes through JSON, CSV and Spark alike."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


mlflow.models.set_model(CaptionToImage())
