"""What the image stage's discriminators are shown in one phase: right pairs, and wrong ones made from them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from objgan.augment import Augmentation
from objgan.batch import Batch
from objgan.image_sections import ImagesConfig
from objgan.layout import Layout
from objgan.networks.attention import words_before
from objgan.networks.encoders import TextFeatures
from objgan.networks.image_generator import ImageOutputs
from objgan.networks.object_discriminator import split_by_size


@dataclass(frozen=True)
class Pairs:
    """Images of one phase and what belongs to them; augmented alike, where augmentation is on.

    reals, fakes:     [B, 3, S, S] in [-1, 1], one a scale; reals are empty where a phase needs none
    layout, permuted: with the true classes, and with wrong ones (None with a single class)
    objects:          "small" and "large": bool [B, R], the objects that each object-wise discriminator judges
    conditions:       [B, R, W + K], label vector and c_obj (detached), or the words that it was attended from, with
                      `images.modifiers` and what stands before them
    wrong_conditions: another label's vector with the same object's c_obj (None with a single class)
    other_conditions: the own label's vector with c_obj of another object of that class (None without wrong words)
    others:           bool [B, R], where the batch has such an object
    sentence, other_sentence: [B, D], the image's own and another sample's
    mismatched:       bool [B], where the other sentence does describe another image
    """

    reals: list[Tensor]
    fakes: list[Tensor]
    layout: Layout
    permuted: Layout | None
    objects: dict[str, Tensor]
    conditions: Tensor
    wrong_conditions: Tensor | None
    other_conditions: Tensor | None
    others: Tensor | None
    sentence: Tensor
    other_sentence: Tensor
    mismatched: Tensor


@dataclass(frozen=True)
class Pass:
    """One forward of the stage: the features and layout (small objects dropped) given, and what was made of them."""

    text: TextFeatures
    layout: Layout
    generated: ImageOutputs


class PairMaker(nn.Module):
    """Makes pairs; all draws come from torch's global RNG. Learns nothing and saves nothing.

    images:        settings: what is large, whether to augment, what object-wise discriminators are conditioned on
    label_vectors: [C, W]
    class_counts:  [C], wrong labels are as frequent as true ones, so that rarity gives none away
    """

    label_vectors: Tensor
    frequencies: Tensor

    def __init__(self, images: ImagesConfig, label_vectors: Tensor, class_counts: tuple[int, ...]) -> None:
        super().__init__()
        self.images = images
        self.register_buffer("label_vectors", label_vectors, persistent=False)
        self.register_buffer("frequencies", torch.tensor(class_counts, dtype=torch.float32) + 1, persistent=False)

    def forward(self, batch: Batch, made: Pass, reals: list[Tensor], detach: bool) -> Pairs:
        """Pairs of these real images [B, 3, S, S] and of the generated ones, detached or with their graph."""
        text, layout, context = made.text, made.layout, made.generated.object_context.detach()
        text = text.scaled(self.images.text_scale)
        if self.images.object_condition == "words":
            context = self._attended(text, made.generated)
        small, large = split_by_size(layout, self.images.large_object)
        own = self.label_vectors[layout.labels]
        conditions = torch.cat([own, context], -1)
        wrong = wrong_conditions = None
        if len(self.frequencies) > 1:
            wrong = wrong_labels(layout.labels, layout.valid, self.frequencies)
            wrong_conditions = torch.cat([self.label_vectors[wrong], context], -1)
        other_conditions = others = None
        if self.images.wrong_words:
            other, others = other_objects(layout.labels, layout.valid)
            other_conditions = torch.cat([own, context.flatten(0, 1)[other]], -1)
        fakes = [(image.detach() if detach else image).float() for image in made.generated.images]
        if self.images.augment:
            draw = Augmentation.draw(len(batch), _grid(fakes, layout), layout.boxes.device)
            reals, fakes = [draw.images(x) for x in reals], [draw.images(x) for x in fakes]
            layout = draw.layout(layout)
        # An object that was moved or cut out of sight is judged by no one.
        seen = (layout.boxes[..., 2:] > 0).all(-1)
        return Pairs(
            reals=reals,
            fakes=fakes,
            layout=layout,
            permuted=None if wrong is None else replace(layout, labels=wrong),
            objects={"small": small & seen, "large": large & seen},
            conditions=conditions,
            wrong_conditions=wrong_conditions,
            other_conditions=other_conditions,
            others=others,
            sentence=text.sentence,
            other_sentence=text.sentence.roll(1, 0),
            mismatched=mismatched(batch),
        )

    def _attended(self, text: TextFeatures, generated: ImageOutputs) -> Tensor:
        """[B, R, D], or with modifiers [B, R, D + W]."""
        weights = generated.object_weights.detach()
        attended = weights @ text.words.float().transpose(1, 2)
        if not self.images.modifiers:
            return attended
        return torch.cat([attended, words_before(weights, generated.word_vectors, self.images.modifiers)], -1)


def mismatched(batch: Batch) -> Tensor:
    """bool [B]: does the sample before (cyclically) show another image, with a caption of other words?"""
    same_words = (batch.words == batch.words.roll(1, 0)).all(1)
    return (batch.image_ids != batch.image_ids.roll(1)) & ~same_words


def wrong_labels(labels: Tensor, valid: Tensor, frequencies: Tensor) -> Tensor:
    """Labels that are never the true ones, int64 [B, R]; 0 where padded.

    labels int64 [B, R], valid bool [B, R], frequencies float [C] > 0, C >= 2. Objects of one class in one picture get
    one and the same wrong class, as a permutation of the classes would give them.
    """
    chances = frequencies.expand(*labels.shape, -1).scatter(-1, labels[..., None], 0.0)
    # What torch.multinomial draws, which would wait for a GPU twice to check the chances.
    drawn = (chances / torch.empty_like(chances).exponential_()).argmax(-1)
    first = (labels[:, :, None] == labels[:, None, :]).int().argmax(-1)  # the first object of the same class
    return drawn.gather(1, first) * valid


def other_objects(labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """For each object another one of its class in another picture, drawn at random.

    labels int64 [B, R], valid bool [B, R] -> its place in [B * R], int64 [B, R]; where one exists, bool [B, R].
    """
    picture = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels).flatten()
    label, real = labels.flatten(), valid.flatten()
    fits = (label[:, None] == label) & real & real[:, None] & (picture[:, None] != picture)
    drawn = (torch.rand_like(fits, dtype=torch.float32) * fits).argmax(1)
    return drawn.view_as(labels), fits.any(1).view_as(labels)


def _grid(images: list[Tensor], layout: Layout) -> int:
    """The finest grid whose cells are whole pixels of every image and mask."""
    sides = [image.shape[-1] for image in images]
    return math.gcd(*sides) if layout.masks is None else math.gcd(*sides, layout.masks.shape[-1])
