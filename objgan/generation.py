"""The finished model: caption -> boxes -> shapes -> image."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from objgan.caption_parser import read_statements
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError, shown
from objgan.layout import Layout, drop_small
from objgan.layout_file import GivenLayout, LayoutRules, layout_to_json
from objgan.metrics.named_classes import NamedClasses
from objgan.model_folder import ModelParts, read_model, write_model
from objgan.networks.box_generator import Temperatures
from objgan.networks.encoders import TextFeatures
from objgan.picture import Picture, PictureLayout
from objgan.stages import NETWORKS
from objgan.statements import Statements, fact_text, kept
from objgan.vocabulary import LONGEST_CAPTION, UNK

_MOST_MASK_PIXELS = 1 << 19
"""Of a batch. A mask pixel takes some kilobytes inside the shape generator."""


@dataclass(frozen=True)
class CaptionWords:
    """A caption as the model reads it.

    ids:        int64 [n], n from 1 to `data.max_words`
    unknown:    words among them that the vocabulary lacks, each once, in order
    cut:        words after the first `data.max_words`, which the networks do not see
    statements: the facts that the whole caption states about the picture
    """

    ids: np.ndarray
    unknown: tuple[str, ...]
    cut: tuple[str, ...]
    statements: Statements


class StatedFact(NamedTuple):
    """One fact that a caption states, in words, and whether the layout keeps it."""

    fact: str
    kept: bool


@dataclass(frozen=True)
class Generated:
    """One image, with its caption and layout.

    index:  which of the caption's samples, from 0
    seed:   of the noise
    layout: batch of one, on the CPU; masks uint8, 0 or 255 where generated. Objects under `images.min_object_pixels`
            are in it, but the image generator does not see them.
    scales: uint8 [s, s, 3], one for each scale of the generator, the smallest first; none where only layouts were asked
    names:  class name of each object of the layout
    places: of which place each object has the noise (see `objgan.layout_file`)
    words:  the caption as the model read it
    facts:  the facts that the caption states, and whether the layout keeps them
    """

    caption: str
    index: int
    seed: int
    layout: Layout
    scales: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    places: tuple[int, ...]
    words: CaptionWords
    facts: tuple[StatedFact, ...] = ()

    @property
    def image(self) -> np.ndarray:
        """uint8 [S, S, 3], the largest scale."""
        return self.scales[-1]

    def layout_json(self, classes: Sequence[str]) -> str:
        """The text of its layout file, with the stated facts and the words of the caption that the model ignores."""
        notes = {
            "seed": self.seed,
            "sample": self.index,
            "unknown_words": self.words.unknown,
            "cut_words": self.words.cut,
            "facts": [fact._asdict() for fact in self.facts],
        }
        return layout_to_json(self.layout, classes, self.caption, notes, self.places)


@dataclass(frozen=True)
class _Order:
    """One sample to make: its caption, its number and seed, and the given layout, if any."""

    caption: str
    index: int
    seed: int
    words: CaptionWords
    given: GivenLayout | None


class ObjGAN:
    """Five networks in eval mode, their settings and their domain."""

    def __init__(self, config: Config, domain: Domain, networks: Mapping[str, nn.Module]) -> None:
        """`networks` by the names in `objgan.stages.NETWORKS`, all on one device; they are frozen in place.

        Raises:
            ValueError: a network is missing.
        """
        missing = [name for name in NETWORKS if name not in networks]
        if missing:
            raise ValueError(f"a model needs the networks {', '.join(NETWORKS)}; {', '.join(missing)} not given")
        self.config, self.domain = config, domain
        self._named = NamedClasses.of(domain)
        self.networks = {name: networks[name].requires_grad_(False).eval() for name in NETWORKS}

    @property
    def rules(self) -> LayoutRules:
        """The limits of this model's layouts (see `objgan.layout_file.read_layout`)."""
        return LayoutRules(self.domain.classes, self.config.data.max_objects, self.config.data.mask_size)

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return next(self.networks["image_generator"].parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the networks, in place."""
        for network in self.networks.values():
            network.to(device)
        return self

    def save(self, folder: Path, sources: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder (see `objgan.model_folder`); `sources` (JSON) records its checkpoints and data."""
        write_model(folder, ModelParts(self.config, self.domain, self.networks), sources)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> Self:
        """Read what `save` wrote. `device`: "auto" (a GPU where there is one), "cpu", "cuda", ...

        Raises:
            InputError: the folder holds no model, one of a newer format, or a missing or changed file.
        """
        parts = read_model(Path(folder))
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return cls(parts.config, parts.domain, parts.networks).to(chosen)

    def generate(
        self,
        captions: Sequence[str],
        *,
        n: int | Sequence[int] = 1,
        seed: int | None = None,
        layouts: Sequence[Layout | GivenLayout | None] | None = None,
        images: bool = True,
        batch_size: int = 1,
    ) -> list[Generated]:
        """`n` samples of each caption, in order: caption by caption, sample by sample.

        A sample's noise is a function of (seed, number of the sample, place in the layout), not of the caption's words:
        with a given layout, other words change what they say of it. A layout that was generated here, written and read
        back, gives the same image. The networks read the first `data.max_words` words of a caption.

        Args:
            captions: texts with at least one known word
            n: samples of each caption, or their numbers; with a layout of a file, counted from its sample on
            seed: any whole number; None: the given layout's, or else 0
            layouts: one for each caption (batches of one); boxes without masks get generated masks, None a generated
                layout
            images: False: only layouts, which takes less time
            batch_size: samples at a time; fewer if the model has very many or very large masks. Several are faster, but
                a sample then depends on its batch by rounding

        Raises:
            InputError: a caption is empty or has no known word.
            ValueError: the number of `layouts` is not that of the captions, or one is no batch of one with R places.
        """
        given = [self._given(layout) for layout in layouts] if layouts is not None else [None] * len(captions)
        if len(given) != len(captions):
            raise ValueError(f"{len(given)} layouts for {len(captions)} captions: give one a caption")
        encoded = [self.read_caption(caption) for caption in captions]
        orders = [
            _Order(caption, number + (layout.sample if layout else 0), _seed(seed, layout), words, layout)
            for caption, words, layout in zip(captions, encoded, given, strict=True)
            for number in (range(n) if isinstance(n, int) else n)
        ]
        made: list[Generated] = []
        masks = self.config.data.max_objects * self.config.data.mask_size**2  # pixels a sample
        batch_size = max(1, min(batch_size, _MOST_MASK_PIXELS // masks))
        for start in range(0, len(orders), batch_size):
            made += self._make(orders[start : start + batch_size], images)
        return made

    def __call__(self, caption: str, seed: int = 0) -> Picture:
        """A picture of a caption, whose layout can be edited.

        Raises:
            InputError: as `generate`.
        """
        return self._picture(self.generate([caption], seed=seed)[0])

    def redraw(self, picture: Picture, seed: int | None = None) -> Picture:
        """A new picture from the caption and layout of `picture` as they are now.

        seed: of the noise; None: the picture's own, so that only the edits change the image

        Raises:
            InputError: as `generate`, or the layout does not fit this model.
        """
        return self._picture(self.generate([picture.caption], seed=seed, layouts=[picture.layout.given(self.rules)])[0])

    def _picture(self, made: Generated) -> Picture:
        layout = PictureLayout(json.loads(made.layout_json(self.domain.classes)), self.rules)
        return Picture(made.caption, layout, made.image, made.facts, made.words.unknown)

    def encode(self, words: Tensor, count: Tensor) -> TextFeatures:
        """Features of word ids int64 [B, T] with counts [B]."""
        features: TextFeatures = self._network("text_encoder")(words, count)
        return features

    def boxes(
        self,
        words: Tensor,
        count: Tensor,
        text: TextFeatures,
        noise: Tensor,
        statements: Sequence[Statements] | None = None,
        temperatures: Temperatures | None = None,
    ) -> Layout:
        """Layouts without masks (see `BoxGenerator.sample_layout`)."""
        generator = self._network("box_generator")
        layout: Layout = generator.sample_layout(words, count, text, noise, statements, temperatures)
        return layout

    def shapes(self, layout: Layout, noise: Tensor, drawn: Tensor | None = None) -> Layout:
        """The layout with generated masks, float 0 or 1; the objects of `drawn`, bool [B, R], keep their own masks."""
        masks = sharpen(self._network("shape_generator")(replace(layout, masks=None), noise))
        if drawn is not None and layout.masks is not None:
            masks = torch.where(drawn[..., None, None], layout.soft_masks, masks)
        return layout.with_masks(masks)

    def images(self, words: Tensor, text: TextFeatures, layout: Layout, noise: Tensor) -> Sequence[Tensor]:
        """Images [B, 3, s, s] in [-1, 1], one batch a scale, the smallest first, from a layout with masks."""
        large = drop_small(layout, self.config.images.min_object_pixels / 256)  # as in its training
        images: Sequence[Tensor] = self._network("image_generator")(text, words, large, noise).images
        return images

    def noise(self, network: str, keys: Sequence[str]) -> Tensor:
        """Standard-normal noise of a generator, [B, *noise_shape]: a function of each sample's key alone."""
        shape = self._network(network).noise_shape
        return torch.stack([torch.randn(shape, generator=_generator(key)) for key in keys]).to(self.device)

    @torch.no_grad()
    def _make(self, orders: Sequence[_Order], images: bool) -> list[Generated]:
        def noise(network: str) -> Tensor:
            return self.noise(network, [f"{order.seed}\0{order.index}\0{network}" for order in orders])

        words, count = self.word_ids([order.words for order in orders])
        text = self.encode(words, count)
        layout = self.boxes(words, count, text, noise("box_generator"), [order.words.statements for order in orders])
        layout, drawn, places = _put_in(layout, [order.given for order in orders])
        layout = self.shapes(layout, noise("shape_generator").take_along_dim(places[..., None], 1), drawn)
        drawings = self.images(words, text, layout, noise("image_generator")) if images else ()
        scales = [to_pixels(drawing) for drawing in drawings]
        layout = layout.with_masks((layout.soft_masks * 255).round().byte()).to("cpu")
        return [
            self._finish(order, layout[row : row + 1], places[row].tolist(), [s[row] for s in scales])
            for row, order in enumerate(orders)
        ]

    def _finish(self, order: _Order, layout: Layout, places: Sequence[int], scales: Sequence[np.ndarray]) -> Generated:
        labels = layout.labels[0, : int(layout.count[0])].tolist()
        names = tuple(self.domain.classes[label] for label in labels)
        return Generated(
            caption=order.caption,
            index=order.index,
            seed=order.seed,
            layout=layout,
            scales=tuple(scales),
            names=names,
            places=tuple(places[: len(names)]),
            words=order.words,
            facts=self.facts(order.words, layout),
        )

    def facts(self, words: CaptionWords, layout: Layout) -> tuple[StatedFact, ...]:
        """What a caption states, and whether a layout (batch of one, with or without masks) keeps it."""
        held = kept(words.statements, layout)[0].tolist()
        return tuple(
            StatedFact(fact_text(fact, self.domain.classes), keeps)
            for fact, keeps in zip(words.statements.facts, held, strict=True)
        )

    def read_caption(self, caption: str) -> CaptionWords:
        """The caption's words, as the model reads them.

        Raises:
            InputError: it is too long, is no valid text, has no word, or no known word among the first
                `data.max_words`.
        """
        if len(caption) > LONGEST_CAPTION:
            raise InputError(f"caption {shown(caption)} is longer than {LONGEST_CAPTION:,} characters: shorten it")
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise InputError(f"caption {shown(caption)} holds half a surrogate pair, which is no character")
        vocabulary, most = self.domain.vocabulary, self.config.data.max_words
        tokens = vocabulary.tokenize(caption)
        ids = vocabulary.encode_tokens(tokens[:most])
        if not tokens:
            raise InputError(f"caption {shown(caption)} has no words: describe a picture")
        if (ids == UNK).all():
            which = "none of its words" if len(tokens) <= most else f"none of its first {most} words"
            raise InputError(f"caption {shown(caption)}: this model knows {which}; use words of its training captions")
        unknown = dict.fromkeys(token for token, index in zip(tokens, ids.tolist(), strict=False) if index == UNK)
        return CaptionWords(ids, tuple(unknown), tuple(tokens[most:]), self.statements(tokens))

    def statements(self, tokens: Sequence[str]) -> Statements:
        """The facts that a caption states about the picture; `tokens` are those of `Vocabulary.tokenize`."""
        return read_statements(tokens, self._named)

    def word_ids(self, captions: Sequence[CaptionWords]) -> tuple[Tensor, Tensor]:
        """Padded word ids int64 [B, T] and their counts [B] of captions."""
        words = torch.zeros(len(captions), self.config.data.max_words, dtype=torch.int64)
        for row, caption in enumerate(captions):
            words[row, : len(caption.ids)] = torch.from_numpy(caption.ids)
        return words.to(self.device), torch.tensor([len(caption.ids) for caption in captions])

    def _given(self, layout: Layout | GivenLayout | None) -> GivenLayout | None:
        """The caller's layout, checked and on the networks' device."""
        if layout is None:
            return None
        slots = self.config.data.max_objects
        if isinstance(layout, Layout):
            layout = GivenLayout(None, layout, _all_drawn(layout), torch.arange(slots)[None])
        shape = tuple(layout.layout.labels.shape)
        if shape != (1, slots):
            raise ValueError(f"a given layout is a batch of one with {slots} places, got {shape}")
        drawn, places = layout.drawn.to(self.device), layout.places.to(self.device)
        return replace(layout, layout=layout.layout.to(self.device), drawn=drawn, places=places)

    def _network(self, name: str) -> Any:
        return self.networks[name]


def _seed(asked: int | None, given: GivenLayout | None) -> int:
    """What the caller asks for, else what the layout has, else 0."""
    own = None if given is None else given.seed
    return (own or 0) if asked is None else asked


def _put_in(layout: Layout, given: Sequence[GivenLayout | None]) -> tuple[Layout, Tensor, Tensor]:
    """Replace generated layouts by given ones; masks are float if any are given.

    Also bool [B, R]: whose masks are, and int64 [B, R]: of which place each object has the noise.
    """
    drawn = torch.zeros_like(layout.valid)
    places = torch.arange(drawn.shape[1], device=drawn.device).repeat(len(drawn), 1)
    labels, boxes, count = layout.labels.clone(), layout.boxes.clone(), layout.count.clone()
    masks: Tensor | None = None
    for row, own in enumerate(given):
        if own is None:
            continue
        labels[row], boxes[row], count[row] = own.layout.labels[0], own.layout.boxes[0], own.layout.count[0]
        drawn[row], places[row] = own.drawn[0], own.places[0]
        if own.layout.masks is not None:
            shapes = own.layout.soft_masks
            masks = shapes.new_zeros(len(given), *shapes.shape[1:]) if masks is None else masks
            masks[row] = shapes[0]
    return Layout(labels, boxes, count, masks), drawn, places


def sharpen(masks: Tensor) -> Tensor:
    """Soft masks [B, R, M, M] -> masks of 0 and 1, with the threshold at half of each mask's own maximum.

    The image generator learned from true masks, which are sharp. A layout file then holds exactly the masks that the
    image was made from, so that the same layout gives the same image again.
    """
    peak = masks.amax((2, 3), keepdim=True)
    return ((masks >= peak / 2) & (masks > 0)).float()


def to_pixels(images: Tensor) -> np.ndarray:
    """[B, 3, S, S] in [-1, 1] -> uint8 [B, S, S, 3]."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
    array: np.ndarray = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def _all_drawn(layout: Layout) -> Tensor:
    """bool [1, R]: every object, where the layout has masks."""
    return layout.valid if layout.masks is not None else torch.zeros_like(layout.valid)


def _generator(key: str) -> torch.Generator:
    """On the CPU whatever the device, so that all devices start from the same noise."""
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
