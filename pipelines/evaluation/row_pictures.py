"""A picture of what an evaluation looked at: each row's images beside the real ones."""

from PIL import Image
from torch import Tensor

from objgan import drawing
from pipelines.evaluation.protocols import FROM_BOXES, FROM_CAPTIONS, FROM_LAYOUTS
from pipelines.evaluation.synthesis import Prompts, Synthesis, scaled

_SIDE = 192


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
