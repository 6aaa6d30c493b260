"""Code of the registered model: MLflow copies this file beside the weights and runs it where the model is loaded.

It may import the model's requirements and `objgan`, which MLflow copies too; nothing else of this repository.
"""

import base64
import io
import json
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel
from PIL import Image

import objgan


class CaptionToImage(PythonModel):
    """Column `caption` -> n rows per caption: caption, image_png (base64), layout_json and facts (JSON)."""

    def load_context(self, context: Any) -> None:
        """Load the weights, on a GPU if available."""
        self._model = objgan.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Generate images. `params`: n samples per caption (default 1), seed (default 0).

        Raises:
            objgan.errors.InputError: a caption is empty or has no known word.
        """
        given = params or {}
        captions = [str(caption) for caption in model_input["caption"]]
        samples = self._model.generate(captions, n=int(given.get("n", 1)), seed=int(given.get("seed", 0)))
        classes = self._model.domain.classes
        return pd.DataFrame(
            {
                "caption": [sample.caption for sample in samples],
                "image_png": [_png_base64(Image.fromarray(sample.image)) for sample in samples],
                "layout_json": [sample.layout_json(classes) for sample in samples],
                "facts": [json.dumps([fact._asdict() for fact in sample.facts]) for sample in samples],
            },
            columns=["caption", "image_png", "layout_json", "facts"],
        )


def _png_base64(image: Image.Image) -> str:
    """As text, which JSON, CSV and Spark can carry."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


mlflow.models.set_model(CaptionToImage())
