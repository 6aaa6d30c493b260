"""Stage `judge`: true images -> objects, colours and scenes; it judges generated images, and no generator sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from objgan import drawing
from objgan.batch import Batch, resize_images
from objgan.config import Config
from objgan.domain import Domain
from objgan.layout import Layout
from objgan.losses.adversarial import weighted_mean
from objgan.metrics.objects import judge_images, mean_colours, score_verdicts, silhouettes, visible_shapes
from objgan.networks.judge import Judge, JudgeLogits
from objgan.stages.base import Adam, Losses, Phase, Stage
from objgan.transfers import send

_NOISY_SILHOUETTES = 0.3
"""Share of the images whose silhouettes are full of noise instead of one colour."""
_BLOTS = (2, 4, 8, 16, 32)
"""Sides of the grids of coloured noise."""


@dataclass(frozen=True)
class JudgeOutputs:
    """Logits for the changed images, which objects can no longer be seen, bool [B, R], and which images, bool [B]."""

    seen: JudgeLogits
    flat: Tensor
    noise: Tensor


def build_judge(config: Config, domain: Domain) -> Judge:
    """The judge of these settings."""
    return Judge(len(domain.classes), config.judge.width, config.judge.found_threshold)


class JudgeStage(Stage):
    """Classification of every cell of a grid, with silhouettes of one flat colour as examples of nothing.

    Without them it would judge outlines, which a generator is given; with them it has to look at what is inside.
    Coloured noise is nothing, too: otherwise blurs of a bad generator look like something or other. Changes of light,
    noise and blur keep it from minding how sharp a generated image is.
    """

    name: ClassVar[str] = "judge"
    columns: ClassVar[frozenset[str]] = frozenset({"image", "boxes", "masks", "attributes"})
    inference: ClassVar[tuple[str, ...]] = ("judge",)
    objective: ClassVar[tuple[str, Literal["max", "min"]]] = ("object_accuracy", "max")
    measures: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "object_accuracy": "max",
        "colour_accuracy": "max",
        "scene_accuracy": "max",
        "silhouette_accuracy": "min",
    }

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__(config, domain, helpers)
        self.networks["judge"] = build_judge(config, domain)
        self.smallest = config.images.min_object_pixels / 256
        training = config.judge.training
        self.phases = (
            Phase(
                name="judge",
                networks=("judge",),
                optimiser=Adam(training.lr, betas=(0.9, 0.999)),
                losses=self.judge_losses,
                weights={"objects": 1.0, "background": 1.0, "colours": 0.5, "scenes": 0.2},
            ),
        )

    def forward(self, batch: Batch) -> JudgeOutputs:
        """Logits for images whose light, sharpness and some objects are changed, with torch's global generator."""
        layout, images = batch.layout, batch.pixels(Judge.side)
        flat = layout.valid & (torch.rand(layout.labels.shape, device=images.device) < self.config.judge.silhouettes)
        images = silhouettes(images, layout, flat, _flat_colours(images, layout))
        # Noise takes the place of whole images, and fills some of the silhouettes.
        noise = torch.rand(len(batch), device=images.device) < self.config.judge.noise
        filled = torch.rand(len(batch), 1, device=images.device) < _NOISY_SILHOUETTES
        hidden = silhouettes_of(layout, flat & filled, Judge.side).clamp_min(noise[:, None, None, None].float())
        images = torch.lerp(images, coloured_noise(len(batch), Judge.side, images.device), hidden)
        return JudgeOutputs(self._judge()(degrade(images)), flat | (layout.valid & noise[:, None]), noise)

    def judge_losses(self, batch: Batch, outputs: JudgeOutputs) -> Losses:
        """Cross-entropies: of objects, each one's cells weighted to 1; of cells without any; of colours; of scenes."""
        layout, seen, flat = batch.layout, outputs.seen, outputs.flat
        nothing = self._judge().classes
        shapes, counted = visible_shapes(layout, seen.classes.shape[-1], self.smallest)
        classes = seen.classes.log_softmax(1)
        objects = _within(classes, torch.where(flat, nothing, layout.labels), shapes)
        background = (1 - shapes.sum(1)).clamp_min(0)  # [B, G, G]
        losses = {
            "objects": weighted_mean(objects, counted),
            "background": -(classes[:, -1] * background).sum() / background.sum().clamp_min(1),
        }
        if batch.colours is not None:
            colours = _within(seen.colours.log_softmax(1), batch.colours.clamp_min(0), shapes)
            losses["colours"] = weighted_mean(colours, counted & ~flat & (batch.colours >= 0))
        if batch.scenes is not None:
            scenes = functional.cross_entropy(seen.scenes, batch.scenes.clamp_min(0), reduction="none")
            losses["scenes"] = weighted_mean(scenes, (batch.scenes >= 0) & ~outputs.noise)
        return losses

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Accuracies on the true images, and of objects that are silhouettes of their own mean colour."""
        layout, images = batch.layout, batch.pixels(Judge.side)
        judge = self._judge()
        right = score_verdicts(judge_images(judge, images, layout, self.smallest), layout, batch.colours, batch.scenes)
        flat = silhouettes(images, layout, layout.valid)
        outlines = score_verdicts(judge_images(judge, flat, layout, self.smallest), layout)
        return {
            "object_accuracy": right.objects.nanmean(1),
            "colour_accuracy": right.colours.nanmean(1),
            "scene_accuracy": right.scenes,
            "silhouette_accuracy": outlines.objects.nanmean(1),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """A row a sample: the image, its true masks, and what the judge sees in each cell."""
        images, layout = batch.pixels(Judge.side), batch.layout
        seen = self._judge()(images).classes.argmax(1)
        rows = []
        for sample, count in enumerate(layout.count.tolist()):
            names = [self.domain.classes[label] for label in layout.labels[sample, :count].tolist()]
            there = [label for label in seen[sample].unique().tolist() if label < len(self.domain.classes)]
            cells = torch.stack([seen[sample] == label for label in there]) if there else seen[:0]
            rows.append(
                [
                    drawing.enlarge(drawing.to_image(images[sample]), 256),
                    drawing.draw_masks(names, layout.soft_masks[sample, :count]),
                    drawing.draw_masks([self.domain.classes[label] for label in there], cells.float()),
                ]
            )
        return {"judge": drawing.grid(rows, headings=("image", "true masks", "what the judge sees"))}

    def _judge(self) -> Judge:
        judge = self.networks["judge"]
        assert isinstance(judge, Judge)
        return judge


def silhouettes_of(layout: Layout, which: Tensor, size: int) -> Tensor:
    """float32 [B, 1, size, size] in [0, 1]: where any of these objects (bool [B, R]) is."""
    masks = layout.soft_masks * which[:, :, None, None]
    return resize_images(masks.amax(1, keepdim=True), size)


def coloured_noise(count: int, size: int, device: torch.device) -> Tensor:
    """[count, 3, size, size] about [-1, 1]: blots of 2 to 32 pixels over one colour, drawn from torch's generator."""
    images = 2 * torch.rand(count, 3, 1, 1, device=device) - 1
    strength = torch.rand(len(_BLOTS), count, 1, 1, 1, device=device).square()
    for part, cells in zip(strength, _BLOTS, strict=True):
        blots = torch.randn(count, 3, cells, cells, device=device)
        images = images + part * functional.interpolate(blots, size=(size, size), mode="bilinear")
    return images.clamp(-1, 1)


def degrade(images: Tensor) -> Tensor:
    """Images [B, 3, S, S] in [-1, 1], each with a light, a blur (up to sigma 1.4 pixels) and noise of its own."""
    size, device = len(images), images.device
    light, contrast, saturation, blur, noise = torch.rand(5, size, 1, 1, 1, device=device)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (0.75 + 0.5 * saturation)
    images = images * (0.8 + 0.4 * contrast) + 0.3 * (light - 0.5)
    once = blurred(images)
    # Half of the images stay sharp, the rest goes through one blur (sigma 1) to two of them.
    images = torch.lerp(images, once, (4 * blur - 2).clamp(0, 1))
    images = torch.lerp(images, blurred(once), (4 * blur - 3).clamp(0, 1))
    noisy: Tensor = images + 0.12 * noise**2 * torch.randn_like(images)
    return noisy


def blurred(images: Tensor) -> Tensor:
    """[B, C, S, S] -> the same under the 5 x 5 binomial filter (sigma 1 pixel)."""
    line = send(torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype), images.device) / 16
    channels = images.shape[1]
    across = line.view(1, 1, 1, 5).expand(channels, -1, -1, -1)
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    with torch.autocast(images.device.type, enabled=False):
        rows = functional.conv2d(padded, across, groups=channels)
        return functional.conv2d(rows, across.mT, groups=channels)


def _flat_colours(images: Tensor, layout: Layout) -> Tensor:
    """[B, R, 3] in [-1, 1]: for half of the objects their own mean colour, for the rest any colour."""
    size, count = layout.labels.shape
    own = mean_colours(images, layout)
    any_colour = 2 * torch.rand(size, count, 3, device=images.device) - 1
    return torch.where(torch.rand(size, count, 1, device=images.device) < 0.5, own, any_colour)


def _within(log_shares: Tensor, labels: Tensor, shapes: Tensor) -> Tensor:
    """Cross-entropy of each object, float32 [B, R]: the mean over its cells (shapes [B, R, G, G]) of the logarithms
    [B, K, G, G] at its label, int64 [B, R].
    """
    index = labels[:, :, None, None].expand(*labels.shape, *log_shares.shape[2:])
    ours = log_shares.gather(1, index)
    mean: Tensor = (ours * shapes).sum((2, 3)) / shapes.sum((2, 3)).clamp_min(1e-6)
    return -mean
