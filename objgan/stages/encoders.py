"""Stage `encoders`: text and image encoders, pre-trained together as DAMSM (Xu et al. 2018, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from objgan import drawing
from objgan.attention_maps import word_attention_maps
from objgan.batch import Batch
from objgan.config import Config
from objgan.domain import Domain
from objgan.losses.damsm import (
    Gammas,
    damsm_losses,
    matching_loss,
    same_image,
    sentence_scores,
    word_attention,
    word_scores,
)
from objgan.metrics.retrieval import ranks, recall
from objgan.networks.backbones import Backbone, Inception, SmallBackbone
from objgan.networks.encoders import ImageEncoder, TextEncoder, TextFeatures, start_from_vectors
from objgan.stages.base import Adam, Losses, Phase, Stage

_PICTURED_WORDS = 4


@dataclass(frozen=True)
class EncoderOutputs:
    """Features of the batch's captions; regions [B, D, N] and vector [B, D] of its images."""

    text: TextFeatures
    regions: Tensor
    vector: Tensor


def build_text_encoder(config: Config, domain: Domain) -> TextEncoder:
    """The text encoder of these settings; its words start from the domain's vectors."""
    encoders = config.encoders
    encoder = TextEncoder(len(domain.vocabulary), encoders.embedding, encoders.channels, encoders.dropout)
    start_from_vectors(encoder.embedding, domain.vocabulary.vectors)
    return encoder


def build_image_encoder(config: Config, domain: Domain) -> ImageEncoder:
    """The image encoder of these settings, freshly initialised.

    A backbone that is to have ImageNet weights is frozen here and gets them from the stage: a finished model has
    them in its files, and loading it does not need the original.
    """
    encoders = config.encoders
    backbone: Backbone = SmallBackbone(encoders.small_width)
    if encoders.backbone == "inception_v3":
        backbone = Inception(frozen=encoders.backbone_weights is not None)
    return ImageEncoder(encoders.channels, backbone)


class EncodersStage(Stage):
    """Both encoders learn to find each other's half of a pair within the batch.

    A finished `image_encoder` among the helpers is taken as it is (to measure a finished model), so that the
    backbone's weight file is read by those who train alone.
    """

    name: ClassVar[str] = "encoders"
    columns: ClassVar[frozenset[str]] = frozenset({"image"})
    inference: ClassVar[tuple[str, ...]] = ("text_encoder", "image_encoder")
    least_batch: ClassVar[int] = 2
    objective: ClassVar[tuple[str, Literal["max", "min"]]] = ("r1_of_pool", "max")
    measures: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "r1_of_pool": "max",
        "r1_of_pool_caption_of_image": "max",
        "r1_of_pool_image_of_caption": "max",
        "r1_of_pool_by_words": "max",
        "damsm_words": "min",
        "damsm_sentences": "min",
    }

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__(config, domain, helpers)
        settings = config.encoders
        self.networks["text_encoder"] = build_text_encoder(config, domain)
        if "image_encoder" in helpers:
            self.networks["image_encoder"] = helpers["image_encoder"]
        else:
            self.networks["image_encoder"] = _with_weights(build_image_encoder(config, domain), config)
        self.gammas = Gammas(settings.gamma1, settings.gamma2, settings.gamma3)
        training = settings.training
        floor = min(training.lr_floor / training.lr, 1.0)
        self.phases = (
            Phase(
                name="matching",
                networks=("text_encoder", "image_encoder"),
                optimiser=Adam(training.lr, schedule=lambda epoch: max(training.lr_decay ** int(epoch), floor)),
                losses=self.matching_losses,
                weights={"words": 1.0, "sentences": 1.0},
                clip={"text_encoder": training.text_clip},
            ),
        )

    def forward(self, batch: Batch) -> EncoderOutputs:
        """Features of the batch's captions and images."""
        text: TextFeatures = self.networks["text_encoder"](batch.words, batch.word_count)
        regions, vector = self.networks["image_encoder"](batch.pixels(self.config.data.image_size))
        return EncoderOutputs(text, regions, vector)

    def matching_losses(self, batch: Batch, outputs: EncoderOutputs) -> Losses:
        """DAMSM losses by words and by sentences (of this worker's part of the batch)."""
        return damsm_losses(outputs.regions, outputs.vector, outputs.text, batch.image_ids, self.gammas)

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Top-1 retrieval with the batch as the pool, other captions of an image left out, and the held-out losses.

        `r1_of_pool` is the mean of both directions by sentence vectors, as R-precision goes; the pool is small, so the
        figures compare runs with one batch size, not models of different papers.
        """
        outputs = self(batch)
        sentences = sentence_scores(outputs.vector, outputs.text)
        words = word_scores(outputs.regions, outputs.text, self.gammas)
        ignored = same_image(batch.image_ids)
        by_image, by_caption = recall(sentences, ignored=ignored)
        words_by_image, words_by_caption = recall(words, ignored=ignored)
        return {
            "r1_of_pool": (by_image + by_caption) / 2,
            "r1_of_pool_caption_of_image": by_image,
            "r1_of_pool_image_of_caption": by_caption,
            "r1_of_pool_by_words": (words_by_image + words_by_caption) / 2,
            "damsm_words": matching_loss(self.gammas.matching * words, batch.image_ids),
            "damsm_sentences": matching_loss(self.gammas.matching * sentences, batch.image_ids),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """Each image, where its caption's sharpest words look, the caption's rank and the caption that fits best."""
        outputs = self(batch)
        attention, _ = word_attention(outputs.regions.float(), outputs.text, self.gammas.attention)
        scores = sentence_scores(outputs.vector, outputs.text)
        rank = ranks(scores, same_image(batch.image_ids)).tolist()
        images = batch.pixels(self.config.data.image_size)
        captions = [self.domain.vocabulary.decode(ids) for ids in batch.words.tolist()]
        rows, lines = [], []
        for i, caption in enumerate(captions):
            rows.append(
                [
                    drawing.enlarge(drawing.to_image(images[i]), 160),
                    *self._attention_maps(images[i], attention[i, i], batch, i),
                ]
            )
            lines.append(
                f"{caption}  (rank {rank[i] + 1} of {len(captions)}; best: {captions[int(scores[i].argmax())]})"
            )
        headings = ("image", *["where a word looks"] * _PICTURED_WORDS)
        return {"attention": drawing.grid(rows, lines, headings)}

    def _attention_maps(self, image: Tensor, attention: Tensor, batch: Batch, index: int) -> list[Image.Image]:
        """Image [3, S, S], attention [T, N] -> its sharpest words' attention over the image."""
        side = round(attention.shape[1] ** 0.5)
        words = [self.domain.vocabulary.words[word] for word in batch.words[index, : int(batch.word_count[index])]]
        return word_attention_maps(image, attention.view(-1, side, side), words, _PICTURED_WORDS)


def _with_weights(encoder: ImageEncoder, config: Config) -> ImageEncoder:
    if config.encoders.backbone_weights is not None:
        assert isinstance(encoder.backbone, Inception)
        encoder.backbone.load_weights(config.encoders.backbone_weights)
    return encoder
