"""Images for held-out captions by a finished model; noise is a function of (seed, image, caption, sample) alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objgan.batch import Batch, collate
from objgan.generation import ObjGAN, to_pixels
from objgan.layout import Layout
from objgan.networks.box_generator import Temperatures
from objgan.networks.encoders import TextFeatures
from pipelines.data.loading.reader import ShardReader
from pipelines.evaluation.protocols import FROM_BOXES, FROM_CAPTIONS, FROM_LAYOUTS, Place

ALL_WORDS = 10**6
"""`max_words` of a reader that keeps captions whole."""


@dataclass(frozen=True)
class Prompts:
    """B captions, with the true layouts and images that they describe.

    keys:   (image id, number of the caption) of each
    tokens: whole captions, `<unk>` for words outside the vocabulary
    batch:  words cut to the first `data.max_words`, as in generation
    """

    keys: tuple[tuple[int, int], ...]
    tokens: tuple[tuple[str, ...], ...]
    batch: Batch

    def __len__(self) -> int:
        return len(self.keys)


def read_prompts(reader: ShardReader, places: Sequence[Place], seed: int, words: Sequence[str]) -> Prompts:
    """The captions at these places of a reader with `ALL_WORDS`; `words`: the data's vocabulary, by word id."""
    samples = [reader.evaluation_sample(place.index, seed, place.number) for place in places]
    data = reader.config.data
    return Prompts(
        keys=tuple((sample.image_id, place.number) for sample, place in zip(samples, places, strict=True)),
        tokens=tuple(tuple(words[index] for index in sample.words.tolist()) for sample in samples),
        batch=collate(samples, data.max_words, data.max_objects),
    )


class Synthesis:
    """The steps of a model's generation with the evaluation's noise; `sample` numbers the draws for one caption."""

    def __init__(self, model: ObjGAN, seed: int) -> None:
        self.model, self.seed = model, seed

    def text(self, prompts: Prompts) -> TextFeatures:
        """The captions' features."""
        return self.model.encode(prompts.batch.words, prompts.batch.word_count)

    def boxes(
        self,
        prompts: Prompts,
        text: TextFeatures,
        temperatures: Temperatures | None = None,
        sample: int = 0,
        obey: bool = True,
    ) -> Layout:
        """Layouts without masks, at the model's temperatures or at these.

        obey: keep to what the captions state, as far as the model's settings allow
        """
        words, count = prompts.batch.words, prompts.batch.word_count
        statements = [self.model.statements(tokens) for tokens in prompts.tokens] if obey else None
        noise = self._noise(prompts, "box_generator", sample)
        return self.model.boxes(words, count, text, noise, statements, temperatures)

    def row_layouts(self, prompts: Prompts, text: TextFeatures) -> dict[str, Layout]:
        """The layouts of each row's images: predicted or true boxes, predicted or true masks."""
        true = prompts.batch.layout
        layouts = {
            FROM_CAPTIONS: self.shapes(prompts, self.boxes(prompts, text)),
            FROM_BOXES: self.shapes(prompts, true),
        }
        return layouts if true.masks is None else layouts | {FROM_LAYOUTS: true}

    def shapes(self, prompts: Prompts, layout: Layout, sample: int = 0) -> Layout:
        """The same boxes with generated masks, float 0 or 1."""
        return self.model.shapes(layout, self._noise(prompts, "shape_generator", sample))

    def images(self, prompts: Prompts, text: TextFeatures, layout: Layout, sample: int = 0) -> Tensor:
        """uint8 [B, 3, S, S]: the largest scale, as `generate` writes it to a file."""
        noise = self._noise(prompts, "image_generator", sample)
        return quantised(self.model.images(prompts.batch.words, text, layout, noise)[-1])

    def real(self, prompts: Prompts) -> Tensor:
        """uint8 [B, 3, S, S]: the true images at the size of the generated ones."""
        return quantised(prompts.batch.pixels(self.model.config.images.sizes[-1]))

    def _noise(self, prompts: Prompts, network: str, sample: int) -> Tensor:
        return self.model.noise(network, [f"{self.seed}/{key}/{sample}/{network}" for key in prompts.keys])


def quantised(images: Tensor) -> Tensor:
    """[B, 3, S, S] in [-1, 1] -> uint8."""
    return torch.from_numpy(to_pixels(images)).permute(0, 3, 1, 2).contiguous()


def scaled(images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
