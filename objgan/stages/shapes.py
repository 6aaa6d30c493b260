"""Stage `shapes`: boxes and classes -> masks, against instance-wise and global discriminators."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from objgan import drawing
from objgan.batch import Batch
from objgan.config import Config
from objgan.domain import Domain
from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.losses.adversarial import accuracy, discriminator_fake, discriminator_real, generator_loss
from objgan.losses.shapes import VGGPerceptual, feature_matching, overlap_loss, pixel_loss, pooled_mask
from objgan.metrics.masks import mask_iou
from objgan.networks.shape_discriminators import GlobalDiscriminator, InstanceDiscriminator, PatchLogits
from objgan.networks.shape_generator import ShapeGenerator, ShapeSizes, StandInShapes
from objgan.sections import ShapesTraining
from objgan.stages.base import Adam, Losses, Phase, Stage, noise_of_images


@dataclass(frozen=True)
class ShapeOutputs:
    """logits [B, R, M, M] before sigmoid and box; masks [B, R, M, M] in [0, 1]. Float32, graph attached."""

    logits: Tensor
    masks: Tensor


def build_shape_generator(config: Config, domain: Domain) -> ShapeGenerator | StandInShapes:
    """The generator of these settings."""
    shapes, data = config.shapes, config.data
    if data.shapes != "masks":
        return StandInShapes(data.shapes, data.max_objects, data.mask_size)
    sizes = ShapeSizes(
        classes=len(domain.classes),
        class_embedding=shapes.class_embedding,
        width=shapes.width,
        noise=shapes.noise,
        objects=data.max_objects,
        mask_size=data.mask_size,
        template=shapes.template,
    )
    return ShapeGenerator(sizes)


class ShapesStage(Stage):
    """Shape generator (Li et al. 2019, section 3.2): adversarial, perceptual and, if asked for, per-pixel terms."""

    name: ClassVar[str] = "shapes"
    columns: ClassVar[frozenset[str]] = frozenset({"boxes", "masks"})
    inference: ClassVar[tuple[str, ...]] = ("shape_generator",)
    objective: ClassVar[tuple[str, Literal["max", "min"]]] = ("mask_iou", "max")
    measures: ClassVar[Mapping[str, Literal["max", "min"]]] = {"mask_iou": "max"}

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__(config, domain, helpers)
        self.networks["shape_generator"] = build_shape_generator(config, domain)
        shapes = config.shapes
        sizes = (len(domain.classes), shapes.class_embedding, shapes.discriminator_width, config.data.mask_size)
        # Spectral norm goes with the hinge loss, instance norm with BCE.
        spectral = shapes.adversarial == "hinge"
        self.networks["instance_discriminator"] = InstanceDiscriminator(*sizes, spectral=spectral)
        self.networks["global_discriminator"] = GlobalDiscriminator(*sizes, spectral=spectral)
        if config.shapes.vgg_weights is not None:
            self.helpers["vgg"] = VGGPerceptual(config.shapes.vgg_weights)
        self.phases = self._phases(config.shapes.training)

    def forward(self, batch: Batch) -> ShapeOutputs:
        """Masks for the batch's true boxes; noise from torch's global generator."""
        generator = self._generator()
        noise = torch.randn(len(batch), *generator.noise_shape, device=batch.layout.boxes.device)
        logits = generator.logits(batch.layout, noise)
        return ShapeOutputs(logits, generator.masks(batch.layout, logits))

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Mask IoU inside true boxes, and that of the ellipse that fills each box."""
        layout = batch.layout
        masks = self._draw(batch)
        return {
            "mask_iou": mask_iou(masks, layout),
            "mask_iou_ellipse": mask_iou(ellipses(layout.boxes, masks.shape[-1]).float(), layout),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """A row a sample: true boxes, true masks, generated masks."""
        masks, truth, layout = self._draw(batch), batch.layout.soft_masks, batch.layout
        rows = []
        for sample, count in enumerate(layout.count.tolist()):
            names = [self.domain.classes[label] for label in layout.labels[sample, :count].tolist()]
            rows.append(
                [
                    drawing.draw_boxes(names, layout.boxes[sample, :count]),
                    drawing.draw_masks(names, truth[sample, :count]),
                    drawing.draw_masks(names, masks[sample, :count]),
                ]
            )
        return {"shapes": drawing.grid(rows, headings=("true boxes", "true masks", "generated masks"))}

    def discriminator_losses(self, batch: Batch, outputs: ShapeOutputs) -> Losses:
        """Both discriminators on true and generated masks (real + fake), and how often they are right."""
        kind, layout, some = self.config.shapes.adversarial, batch.layout, _has_objects(batch.layout)
        fakes, reals = outputs.masks.detach(), layout.soft_masks
        losses: Losses = {}
        for name, judge, weights in (("instance", self._judge_objects, None), ("global", self._judge_pictures, some)):
            fake, real = judge(fakes, layout).logits, judge(reals, layout).logits
            losses[name] = discriminator_real(real, kind, weights) + discriminator_fake(fake, kind, weights)
            right = accuracy(real, True, weights) + accuracy(fake, False, weights)
            losses[f"{name}_accuracy"] = right / 2
        return losses

    def generator_losses(self, batch: Batch, outputs: ShapeOutputs) -> Losses:
        """Adversarial terms, perceptual term (or feature matching), per-pixel and overlap terms."""
        kind, layout, some = self.config.shapes.adversarial, batch.layout, _has_objects(batch.layout)
        objects, pictures = self._judge_objects(outputs.masks, layout), self._judge_pictures(outputs.masks, layout)
        return {
            "instance": generator_loss(objects.logits, kind),
            "global": generator_loss(pictures.logits, kind, some),
            "perceptual": self._perceptual(layout, outputs.masks, objects, pictures),
            "pixel": pixel_loss(outputs.logits, layout),
            "overlap": overlap_loss(outputs.masks, layout),
        }

    def _perceptual(self, layout: Layout, masks: Tensor, objects: PatchLogits, pictures: PatchLogits) -> Tensor:
        truth, some = layout.soft_masks, layout.count > 0
        if "vgg" in self.helpers:
            distance: Tensor = self.helpers["vgg"](pooled_mask(masks, layout), pooled_mask(truth, layout), some)
            return distance
        with torch.no_grad():
            true_objects, true_pictures = self._judge_objects(truth, layout), self._judge_pictures(truth, layout)
        return feature_matching(objects.features, true_objects.features) + feature_matching(
            pictures.features, true_pictures.features, some
        )

    def _judge_objects(self, masks: Tensor, layout: Layout) -> PatchLogits:
        places = layout.places
        judgement: PatchLogits = self.networks["instance_discriminator"](
            masks[places], layout.labels[places], layout.boxes[places]
        )
        return judgement

    def _judge_pictures(self, masks: Tensor, layout: Layout) -> PatchLogits:
        judgement: PatchLogits = self.networks["global_discriminator"](masks, layout)
        return judgement

    def _generator(self) -> ShapeGenerator:
        generator = self.networks["shape_generator"]
        assert isinstance(generator, ShapeGenerator)
        return generator

    def _draw(self, batch: Batch) -> Tensor:
        generator = self._generator()
        masks: Tensor = generator(batch.layout, noise_of_images(batch, generator.noise_shape))
        return masks

    def _phases(self, training: ShapesTraining) -> tuple[Phase, ...]:
        decay = _decay(training)
        return (
            Phase(
                name="discriminators",
                networks=("instance_discriminator", "global_discriminator"),
                optimiser=Adam(training.discriminator_lr, schedule=decay),
                losses=self.discriminator_losses,
                weights={"instance": 1.0, "global": 1.0},
            ),
            Phase(
                name="generator",
                networks=("shape_generator",),
                optimiser=Adam(training.generator_lr, schedule=decay),
                losses=self.generator_losses,
                weights={
                    "instance": training.instance_weight,
                    "global": training.global_weight,
                    "perceptual": training.perceptual_weight,
                    "pixel": training.pixel_weight,
                    "overlap": training.overlap_weight,
                },
                clip={"shape_generator": training.clip},
            ),
        )


def _decay(training: ShapesTraining) -> Callable[[float], float]:
    """Factor on the learning rate: 1 up to epoch `lr_decay_from`, then times `lr_decay` per whole epoch."""
    return lambda epoch: float(training.lr_decay ** max(0, int(epoch) - training.lr_decay_from))


def _has_objects(layout: Layout) -> Tensor:
    """bool [B, 1, 1]: which pictures count for the discriminator of pictures."""
    return (layout.count > 0)[:, None, None]
