"""Metrics and pictures of a batch of rows.

Names are `ROW/METRIC_PROTOCOL`. Tensors [B] are metrics of each sample, NaN where a metric does not apply. From tensors
[B, ...] a metric over all samples is computed (`pipelines.evaluation.scores`).
"""

from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from objgan import drawing
from objgan.layout import Layout
from objgan.metrics.layouts import best_iou, class_counts, label_f1
from objgan.metrics.masks import mask_iou
from objgan.metrics.stated import stated_accuracy
from objgan.networks.box_generator import Temperatures
from objgan.networks.encoders import TextFeatures
from pipelines.evaluation.judges import Judges
from pipelines.evaluation.protocols import FROM_BOXES, FROM_CAPTIONS, FROM_LAYOUTS, TRUE_IMAGES, Protocol
from pipelines.evaluation.synthesis import Prompts, Synthesis, scaled

_SIDE = 192


class RowMeasurer:
    """All rows of a batch: every image is generated once and measured by every judge."""

    def __init__(self, synthesis: Synthesis, judges: Judges, protocol: Protocol) -> None:
        self.synthesis, self.judges, self.protocol = synthesis, judges, protocol
        self._classes = len(synthesis.model.domain.classes)

    def rows(self, prompts: Prompts) -> dict[str, Tensor]:
        """Layout metrics, and the judges' image metrics for every row."""
        text = self.synthesis.text(prompts)
        metrics = self._layouts(prompts, text)
        if not self.judges.any:
            return metrics
        for row, layout in self.synthesis.row_layouts(prompts, text).items():
            metrics |= self._images(row, self.synthesis.images(prompts, text, layout), layout, prompts)
        return metrics | self.true_images(prompts)

    def from_layouts(self, prompts: Prompts) -> dict[str, Tensor]:
        """The judges' image metrics of images from true layouts alone."""
        text, layout = self.synthesis.text(prompts), prompts.batch.layout
        return self._images(FROM_LAYOUTS, self.synthesis.images(prompts, text, layout), layout, prompts)

    def true_images(self, prompts: Prompts) -> dict[str, Tensor]:
        """The judges' metrics of the captions, and of the true images if there are any: the same for every model."""
        metrics = self._of(TRUE_IMAGES, self.judges.of_captions(prompts))
        if prompts.batch.images is None:
            return metrics
        return metrics | self._images(TRUE_IMAGES, self.synthesis.real(prompts), prompts.batch.layout, prompts)

    def diversity(self, prompts: Prompts) -> dict[str, Tensor]:
        """How much the images of one caption differ, over `protocol.diverse_samples` draws of layout and image."""
        text, drawn = self.synthesis.text(prompts), []
        for sample in range(self.protocol.diverse_samples):
            layout = self.synthesis.shapes(prompts, self.synthesis.boxes(prompts, text, sample=sample), sample)
            drawn.append(self.synthesis.images(prompts, text, layout, sample))
        return self._of(FROM_CAPTIONS, self.judges.diversity(torch.stack(drawn, 1)))

    def _layouts(self, prompts: Prompts, text: TextFeatures) -> dict[str, Tensor]:
        """Metrics of predicted boxes: class counts at temperature 1, all others of the likeliest labels."""
        true, model = prompts.batch.layout, self.synthesis.model
        statements = [model.statements(tokens) for tokens in prompts.tokens]
        mixture = model.config.boxes.mixture_temperature
        likeliest = self.synthesis.boxes(prompts, text, Temperatures(0.0, mixture))
        free = self.synthesis.boxes(prompts, text, Temperatures(1.0, 1.0), obey=False)
        predicted = {
            "label_f1": label_f1(likeliest, true, self._classes),
            "best_iou": best_iou(likeliest, true),
            "class_counts": class_counts(free, self._classes),
        }
        real = {"class_counts": class_counts(true, self._classes)}
        predicted |= stated_accuracy(likeliest, statements)
        real |= stated_accuracy(true, statements)
        return self._of(FROM_CAPTIONS, predicted) | self._of(TRUE_IMAGES, real)

    def _images(self, row: str, images: Tensor, layout: Layout, prompts: Prompts) -> dict[str, Tensor]:
        """The judges' metrics of a row's images, uint8 [B, 3, S, S], made from `layout`."""
        if row == FROM_CAPTIONS:
            # These images do not contain the true objects: only what the caption states can be required.
            metrics = self.judges.of_images(images, prompts)
            return self._of(row, {name.removeprefix("stated_"): value for name, value in metrics.items()})
        metrics = self.judges.of_images(images, prompts, layout)
        trained = "shapes" in self.synthesis.model.config.stages
        if row == FROM_BOXES and trained and prompts.batch.layout.masks is not None:
            metrics["mask_iou"] = mask_iou(layout.soft_masks, prompts.batch.layout)
        return self._of(row, metrics)

    def _of(self, row: str, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{row}/{name}_{self.protocol.name}": value for name, value in metrics.items()}


def picture_of_rows(synthesis: Synthesis, prompts: Prompts) -> Image.Image:
    """One row for each caption: images from the caption, from true boxes, from the true layout, and the true image."""
    text = synthesis.text(prompts)
    layouts = synthesis.row_layouts(prompts, text)
    columns = {name: synthesis.images(prompts, text, layout) for name, layout in layouts.items()}
    if prompts.batch.images is not None:
        columns["real"] = synthesis.real(prompts)
    rows = [[_panel(images[sample]) for images in columns.values()] for sample in range(len(prompts))]
    captions = [" ".join(tokens) for tokens in prompts.tokens]
    return drawing.grid(rows, captions, [name.replace("_", " ") for name in columns])


def _panel(image: Tensor) -> Image.Image:
    """uint8 [3, S, S]."""
    return drawing.enlarge(drawing.to_image(scaled(image)), _SIDE)
