"""Stage `boxes`: captions -> labelled boxes (Li et al. 2019, section 3.1).

By maximum likelihood, and against a discriminator where `boxes.training.adversarial_weight` is over 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from objgan import drawing
from objgan.batch import Batch
from objgan.caption_parser import read_statements
from objgan.config import Config
from objgan.domain import Domain
from objgan.layout import Layout
from objgan.losses.boxes import class_weights, count_loss, label_nll, masked_mean, mixture_nll
from objgan.metrics.layouts import best_iou, count_error, label_f1, named_share
from objgan.metrics.named_classes import NamedClasses, named_classes
from objgan.networks.box_generator import BoxGenerator, BoxOutputs, BoxSizes, Candidates, Temperatures
from objgan.networks.encoders import TextFeatures, start_from_vectors
from objgan.stages.base import Adam, Losses, Phase, Stage, noise_of_images
from objgan.stages.box_judges import BoxJudge
from objgan.stages.encoders import build_text_encoder
from objgan.statements import Statements
from objgan.vocabulary import PAD


@dataclass(frozen=True)
class StepLosses:
    """Unweighted, float32: label [B, R + 1] of each step, position and size [B, R] of each object."""

    label: Tensor
    position: Tensor
    size: Tensor


def build_box_generator(config: Config, domain: Domain) -> BoxGenerator:
    """The box generator of these settings."""
    boxes = config.boxes
    sizes = BoxSizes(
        text=config.encoders.channels,
        hidden=boxes.hidden,
        label_embedding=boxes.label_embedding,
        coordinate_embedding=boxes.coordinate_embedding,
        components=boxes.components,
        dropout=boxes.dropout,
        vocabulary=len(domain.vocabulary) if boxes.training.count_weight else 0,
        word_dropout=boxes.word_dropout,
    )
    generator = BoxGenerator(
        sizes,
        domain.statistics,
        config.data.max_objects,
        Temperatures(boxes.label_temperature, boxes.mixture_temperature),
        encoder=build_text_encoder(config, domain) if boxes.text_encoder == "own" else None,
    )
    generator.presence, generator.draws = boxes.presence, boxes.draws
    if generator.count_head is not None:
        start_from_vectors(generator.count_head.embedding, domain.vocabulary.vectors)
    temperatures = Temperatures(boxes.candidate_label_temperature, boxes.candidate_mixture_temperature)
    generator.candidates = Candidates(boxes.candidates, boxes.obey_numbers, temperatures, boxes.unnamed_presence)
    return generator


class BoxesStage(Stage):
    """Box generator on the frozen text encoder's features, or with an encoder of its own."""

    name: ClassVar[str] = "boxes"
    columns: ClassVar[frozenset[str]] = frozenset({"boxes"})
    needs: ClassVar[tuple[str, ...]] = ("text_encoder",)
    inference: ClassVar[tuple[str, ...]] = ("box_generator",)
    # The right objects come first, and F1 is bounded: the likelihood of a density is not, and one box that a sharp
    # mixture misses outweighs a hundred good ones in the mean that would pick the checkpoint.
    objective: ClassVar[tuple[str, Literal["max", "min"]]] = ("label_f1", "max")
    measures: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "label_f1": "max",
        "label_nll": "min",
        "mixture_nll": "min",
        "count_error": "min",
        "best_iou": "max",
        "named_share": "max",
    }

    label_weights: Tensor

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__(config, domain, helpers)
        training, statistics = config.boxes.training, domain.statistics
        self.networks["box_generator"] = build_box_generator(config, domain)
        weights = class_weights(statistics.class_counts, statistics.images, training.class_weight_power)
        self.register_buffer("label_weights", weights, persistent=False)
        self.named = NamedClasses.of(domain)
        self.judge: BoxJudge | None = None
        if training.adversarial_weight > 0:
            self.judge = BoxJudge(self.networks, config, len(domain.classes))
        self.phases = (
            *([] if self.judge is None else [self.judge.phase]),
            Phase(
                name="likelihood",
                networks=("box_generator",),
                optimiser=Adam(training.lr, (0.9, 0.999), lambda epoch: training.lr_decay ** int(epoch)),
                losses=self.likelihood_losses,
                weights={
                    "label": training.label_weight,
                    "coordinate": training.coordinate_weight,
                    "counts": training.count_weight,
                    "adversarial": training.adversarial_weight,
                },
                clip={"box_generator": training.clip},
            ),
        )

    @classmethod
    def needed(cls, config: Config) -> tuple[str, ...]:
        """Nothing with a text encoder of its own."""
        return cls.needs if config.boxes.text_encoder == "frozen" else ()

    def forward(self, batch: Batch) -> BoxOutputs:
        """Teacher forcing on the batch's true objects; in training, for the discriminator, a drawn layout, too."""
        text = self._text(batch)
        outputs: BoxOutputs = self._generator()(text, batch.layout)
        if self.judge is None or not self.training:
            return outputs
        return self.judge.draw(self._generator(), text, outputs)

    def likelihood_losses(self, batch: Batch, outputs: BoxOutputs) -> Losses:
        """Label and coordinate likelihoods, means over steps and over real objects; that of the numbers of each class
        with that head, and what the discriminator says with that one.
        """
        labels, steps = self._generator().targets(batch.layout)
        losses = self._step_losses(batch, outputs)
        named: Losses = {
            "label": masked_mean(losses.label * self.label_weights[labels], steps),
            "coordinate": masked_mean(losses.position + losses.size, batch.layout.valid),
        }
        head = self._generator().count_head
        if head is not None and outputs.counts is not None:
            counts = count_loss(outputs.counts, batch.layout.labels, batch.layout.valid).mean()
            named["counts"] = counts + self.config.boxes.training.word_decay * head.penalty()
        if self.judge is not None:
            named |= self.judge.generator_losses(outputs)
        return named

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Likelihoods of the true layout, and how sampled layouts fit the true ones and the captions."""
        layout, sampled = batch.layout, self._sample(batch)
        losses = self._step_losses(batch, self(batch))
        _, steps = self._generator().targets(layout)
        per_object = torch.where(layout.valid, losses.position + losses.size, 0).sum(1) / layout.count.clamp_min(1)
        named = named_classes(batch.words, self.domain.vocabulary, self.named)
        return {
            "label_f1": label_f1(sampled, layout, len(self.domain.classes)),
            "label_nll": torch.where(steps, losses.label, 0).sum(1) / steps.sum(1),
            "mixture_nll": torch.where(layout.count > 0, per_object, torch.nan),
            "count_error": count_error(sampled, layout),
            "best_iou": best_iou(sampled, layout),
            "named_share": named_share(sampled, named),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """A row a sample under its caption: true boxes, generated boxes."""
        sampled = self._sample(batch)
        rows = [[self._draw(layout, i) for layout in (batch.layout, sampled)] for i in range(len(batch))]
        captions = [self.domain.vocabulary.decode(ids) for ids in batch.words.tolist()]
        return {"boxes": drawing.grid(rows, captions, ("true boxes", "generated boxes"))}

    def _step_losses(self, batch: Batch, outputs: BoxOutputs) -> StepLosses:
        generator = self._generator()
        labels, _ = generator.targets(batch.layout)
        boxes = generator.standardise(batch.layout.boxes)
        return StepLosses(
            label=label_nll(outputs.labels, labels),
            position=mixture_nll(outputs.position, boxes[..., :2]),
            size=mixture_nll(outputs.size, boxes[..., 2:]),
        )

    def _sample(self, batch: Batch) -> Layout:
        generator = self._generator()
        noise = noise_of_images(batch, generator.noise_shape)
        return generator.sample_layout(
            batch.words, batch.word_count, self._helper_text(batch), noise, self._statements(batch)
        )

    def _statements(self, batch: Batch) -> list[Statements] | None:
        """What the captions state, as far as their words are known; None where the decoder does not obey it."""
        boxes, words = self.config.boxes, self.domain.vocabulary.words
        if boxes.candidates == 1 and not boxes.obey_numbers:
            return None
        return [
            read_statements([words[index] for index in ids if index != PAD], self.named) for ids in batch.words.tolist()
        ]

    def _text(self, batch: Batch) -> TextFeatures:
        return self._generator().encode(batch.words, batch.word_count, self._helper_text(batch))

    def _helper_text(self, batch: Batch) -> TextFeatures | None:
        if "text_encoder" not in self.helpers:
            return None
        with torch.no_grad():
            text: TextFeatures = self.helpers["text_encoder"](batch.words, batch.word_count)
        return text

    def _draw(self, layout: Layout, index: int) -> Image.Image:
        count = int(layout.count[index])
        names = [self.domain.classes[label] for label in layout.labels[index, :count].tolist()]
        return drawing.draw_boxes(names, layout.boxes[index, :count])

    def _generator(self) -> BoxGenerator:
        generator = self.networks["box_generator"]
        assert isinstance(generator, BoxGenerator)
        return generator
