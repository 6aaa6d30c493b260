"""Measures and pictures of a batch of rows.

Names are `ROW/MEASURE_PROTOCOL`. Figures are float [B], NaN where they do not apply; all else ([B, ...]) becomes a
figure only over all samples (`pipelines.evaluation.scores`).
"""

from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from objgan import drawing
from objgan.domain import Domain
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
    """All rows of one batch: every image is generated once, and looked at by every judge."""

    def __init__(self, synthesis: Synthesis, judges: Judges, domain: Domain, protocol: Protocol) -> None:
        self.synthesis, self.judges, self.protocol = synthesis, judges, protocol
        self._classes = len(domain.classes)

    def rows(self, prompts: Prompts) -> dict[str, Tensor]:
        """Layout measures, and with any judge of images theirs for every row."""
        text = self.synthesis.text(prompts)
        found = self.layouts(prompts, text)
        if not self.judges.any:
            return found
        found |= self._of(TRUE_IMAGES, self.judges.of_captions(prompts))
        for row, layout in self._row_layouts(prompts, text).items():
            found |= self.look(row, self.synthesis.images(prompts, text, layout), layout, prompts)
        if prompts.batch.images is not None:
            found |= self.look(TRUE_IMAGES, self.synthesis.real(prompts), prompts.batch.layout, prompts)
        return found

    def layouts(self, prompts: Prompts, text: TextFeatures) -> dict[str, Tensor]:
        """How predicted boxes fit: the likeliest labels for what is there, temperature 1 for how much it varies."""
        true = prompts.batch.layout
        own = self.synthesis.temperatures
        statements = [self.synthesis.model.statements(tokens) for tokens in prompts.tokens]
        likeliest = self.synthesis.boxes(prompts, text, Temperatures(0.0, own.mixture))
        free = self.synthesis.boxes(prompts, text, Temperatures(1.0, 1.0), obey=False)
        predicted = {
            "label_f1": label_f1(likeliest, true, self._classes),
            "best_iou": best_iou(likeliest, true),
            "class_counts": class_counts(free, self._classes),
        }
        real = {
            "class_counts": class_counts(true, self._classes),
        }
        predicted |= stated_accuracy(likeliest, statements)
        real |= stated_accuracy(true, statements)
        return self._of(FROM_CAPTIONS, predicted) | self._of(TRUE_IMAGES, real)

    def look(self, row: str, images: Tensor, layout: Layout, prompts: Prompts) -> dict[str, Tensor]:
        """What the judges say of a row's images, uint8 [B, 3, S, S], made from `layout`."""
        found = self.judges.of_images(images, prompts)
        if row == FROM_CAPTIONS:
            # No true object has a place in these: what the caption states is all that can be asked for.
            found = {name.removeprefix("stated_"): value for name, value in found.items()}
        else:
            found |= self.judges.of_objects(images, layout, prompts)
        if row == FROM_BOXES and prompts.batch.layout.masks is not None:
            found["mask_iou"] = mask_iou(layout.soft_masks, prompts.batch.layout)
        return self._of(row, found)

    def diversity(self, prompts: Prompts) -> dict[str, Tensor]:
        """How much the images of one caption differ, drawn `protocol.diverse_samples` times: layout and all."""
        text, drawn = self.synthesis.text(prompts), []
        for sample in range(self.protocol.diverse_samples):
            layout = self.synthesis.shapes(prompts, self.synthesis.boxes(prompts, text, sample=sample), sample)
            drawn.append(self.synthesis.images(prompts, text, layout, sample))
        return self._of(FROM_CAPTIONS, self.judges.diversity(torch.stack(drawn, 1)))

    def _row_layouts(self, prompts: Prompts, text: TextFeatures) -> dict[str, Layout]:
        """What each row's images are made from: predicted or true boxes, predicted or true masks."""
        true = prompts.batch.layout
        layouts = {
            FROM_CAPTIONS: self.synthesis.shapes(prompts, self.synthesis.boxes(prompts, text)),
            FROM_BOXES: self.synthesis.shapes(prompts, true),
        }
        return layouts if true.masks is None else layouts | {FROM_LAYOUTS: true}

    def _of(self, row: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{row}/{name}_{self.protocol.name}": value for name, value in found.items()}


def picture_of_rows(synthesis: Synthesis, prompts: Prompts) -> Image.Image:
    """A row a sample under its caption: from the caption, from true boxes, from the true layout, and the real image."""
    text, true = synthesis.text(prompts), prompts.batch.layout
    predicted = synthesis.shapes(prompts, synthesis.boxes(prompts, text))
    layouts = {FROM_CAPTIONS: predicted, FROM_BOXES: synthesis.shapes(prompts, true)}
    if true.masks is not None:
        layouts[FROM_LAYOUTS] = true
    columns = {name: synthesis.images(prompts, text, layout) for name, layout in layouts.items()}
    if prompts.batch.images is not None:
        columns["real"] = synthesis.real(prompts)
    rows = [[_panel(images[sample]) for images in columns.values()] for sample in range(len(prompts))]
    captions = [" ".join(tokens) for tokens in prompts.tokens]
    return drawing.grid(rows, captions, [name.replace("_", " ") for name in columns])


def _panel(image: Tensor) -> Image.Image:
    """uint8 [3, S, S]."""
    return drawing.enlarge(drawing.to_image(scaled(image)), _SIDE)
