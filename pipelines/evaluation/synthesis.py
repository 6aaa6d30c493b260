"""Images for held-out captions by a finished model, with noise that depends on (seed, image, caption, sample) alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from objgan.batch import Batch, collate
from objgan.generation import ObjGAN, sharpen, to_pixels
from objgan.layout import Layout, drop_small
from objgan.networks.box_generator import Temperatures
from objgan.networks.encoders import TextFeatures
from pipelines.data.loading.reader import ShardReader
from pipelines.evaluation.protocols import Place

ALL_WORDS = 10**6
"""`max_words` of a reader that is to leave captions whole."""


@dataclass(frozen=True)
class Prompts:
    """B captions, and what is true of the images that they come from.

    keys:   (image id, number of the caption) each
    tokens: whole captions, `<unk>` for words that training never saw
    batch:  words cut to the first `data.max_words`, as in generation
    """

    keys: tuple[tuple[int, int], ...]
    tokens: tuple[tuple[str, ...], ...]
    batch: Batch

    def __len__(self) -> int:
        return len(self.keys)


def read_prompts(reader: ShardReader, places: Sequence[Place], seed: int, words: Sequence[str]) -> Prompts:
    """The captions at some places of a reader made with `ALL_WORDS`; `words`: id -> word of the data's vocabulary."""
    samples = [reader.evaluation_sample(place.index, seed, place.number) for place in places]
    data = reader.config.data
    return Prompts(
        keys=tuple((sample.image_id, place.number) for sample, place in zip(samples, places, strict=True)),
        tokens=tuple(tuple(words[index] for index in sample.words.tolist()) for sample in samples),
        batch=collate(samples, data.max_words, data.max_objects),
    )


class Synthesis:
    """The steps of generation one by one. `sample` numbers the draws for one caption."""

    def __init__(self, model: ObjGAN, seed: int) -> None:
        self.model, self.seed = model, seed
        self.size: int = model.config.images.sizes[-1]

    @property
    def temperatures(self) -> Temperatures:
        """Those that the model's box generator was built with."""
        own: Temperatures = self._network("box_generator").temperatures
        return own

    def text(self, prompts: Prompts) -> TextFeatures:
        """The captions' features."""
        features: TextFeatures = self._network("text_encoder")(prompts.batch.words, prompts.batch.word_count)
        return features

    def boxes(
        self,
        prompts: Prompts,
        text: TextFeatures,
        temperatures: Temperatures | None = None,
        sample: int = 0,
        obey: bool = True,
    ) -> Layout:
        """Layouts without masks, at the model's temperatures or at these.

        obey: what the captions state, as far as the model's settings ask for it
        """
        generator, batch = self._network("box_generator"), prompts.batch
        statements = [self.model.statements(tokens) for tokens in prompts.tokens] if obey else None
        noise = self._noise(prompts, "box_generator", sample)
        layout: Layout = generator.sample_layout(batch.words, batch.word_count, text, noise, statements, temperatures)
        return layout

    def shapes(self, prompts: Prompts, layout: Layout, sample: int = 0) -> Layout:
        """The same boxes with generated masks, float 0 or 1 as the image generator is given them."""
        bare = Layout(layout.labels, layout.boxes, layout.count)
        masks = self._network("shape_generator")(bare, self._noise(prompts, "shape_generator", sample))
        return bare.with_masks(sharpen(masks))

    def images(self, prompts: Prompts, text: TextFeatures, layout: Layout, sample: int = 0) -> Tensor:
        """uint8 [B, 3, S, S]: the largest scale, as it would be written to a file."""
        seen = drop_small(layout, self.model.config.images.min_object_pixels / 256)
        noise = self._noise(prompts, "image_generator", sample)
        outputs = self._network("image_generator")(text, prompts.batch.words, seen, noise)
        return quantised(outputs.images[-1])

    def real(self, prompts: Prompts) -> Tensor:
        """uint8 [B, 3, S, S]: the true images at the generated ones' size."""
        return quantised(prompts.batch.pixels(self.size))

    def _noise(self, prompts: Prompts, name: str, sample: int) -> Tensor:
        shape = self._network(name).noise_shape
        draws = [torch.randn(shape, generator=_generator(f"{self.seed}/{key}/{sample}/{name}")) for key in prompts.keys]
        return torch.stack(draws).to(prompts.batch.words.device)

    def _network(self, name: str) -> Any:
        return self.model.networks[name]


def quantised(images: Tensor) -> Tensor:
    """[B, 3, S, S] in [-1, 1] -> uint8."""
    return torch.from_numpy(to_pixels(images)).permute(0, 3, 1, 2).contiguous()


def scaled(images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _generator(text: str) -> torch.Generator:
    """On the CPU whatever the device, so that all devices start from the same noise."""
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
