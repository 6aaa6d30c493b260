"""Losses of the image stage's discriminators, on logits (Li et al. 2019, section 3.4).

Each returns "loss", a float32 scalar, and the shares of right judgements "accuracy_...", for the log alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from objgan.losses.adversarial import Adversarial, accuracy, discriminator_fake, discriminator_real
from objgan.networks.discriminators import TextLogits
from objgan.networks.object_discriminator import ObjectLogits


def text_loss(
    real: TextLogits, fake: TextLogits, mismatched: Tensor, kind: Adversarial, weight: float, balanced: bool = False
) -> dict[str, Tensor]:
    """(real + w cond) / 2 + (fake + w (cond of fake + mismatched caption)) / 3.

    Balanced: each head's real term and the mean of its wrong ones weigh the same. Otherwise the lowest hinge loss of an
    untrained head is to call everything real.

    real:       of real images, judged with [their sentence, another image's]
    fake:       of generated images, judged with [their sentence]
    mismatched: bool [B], where the other sentence does belong to another image
    weight:     w, of the conditional terms; 0.1 as published
    """
    matched, other = real.conditional
    apart = mismatched[:, None, None]
    right = discriminator_real(real.unconditional, kind) + weight * discriminator_real(matched, kind)
    unconditional = discriminator_fake(fake.unconditional, kind)
    conditional = discriminator_fake(fake.conditional[0], kind) + discriminator_fake(other, kind, apart)
    published = right / 2 + (unconditional + weight * conditional) / 3
    return {
        "loss": right + unconditional + weight * conditional / 2 if balanced else published,
        "accuracy_real": accuracy(real.unconditional, True),
        "accuracy_fake": accuracy(fake.unconditional, False),
        "accuracy_matched": accuracy(matched, True),
        "accuracy_mismatched": accuracy(other, False, apart),
    }


def layout_loss(real: Tensor, fake: Tensor, permuted: Tensor | None, kind: Adversarial) -> dict[str, Tensor]:
    """real + (fake + permuted) / 2 on logits [B, n, n]; real + fake where no wrong classes exist (permuted None)."""
    wrong = discriminator_fake(fake, kind)
    right = discriminator_real(real, kind)
    accuracies = {"accuracy_real": accuracy(real, True), "accuracy_fake": accuracy(fake, False)}
    if permuted is None:
        return {"loss": right + wrong} | accuracies
    loss = right + (wrong + discriminator_fake(permuted, kind)) / 2
    return {"loss": loss} | accuracies | {"accuracy_permuted": accuracy(permuted, False)}


def pixel_loss(fakes: Sequence[Tensor], reals: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> Tensor:
    """Mean absolute difference, the sum over the scales [B, 3, S, S]; a float32 scalar.

    weights: of the pixels, [B, 1, S, S] a scale; None: 1
    """
    differences = [(one - other).abs() for one, other in zip(fakes, reals, strict=True)]
    if weights is not None:
        differences = [weight * difference for weight, difference in zip(weights, differences, strict=True)]
    return torch.stack([difference.mean() for difference in differences]).sum()


def perceptual_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean over an encoder's layers [B, K, h, w] of |difference| / |real|; a float32 scalar, no gradient to `real`."""
    pairs = [(one.float(), other.detach().float()) for one, other in zip(fake, real, strict=True)]
    return torch.stack([(one - other).abs().mean() / other.abs().mean().clamp_min(1e-8) for one, other in pairs]).mean()


class AddedGradient(torch.autograd.Function):
    """An image as it is; on the way back, `added` joins the gradient, scaled to `ratio` of the gradient's norm.

    So a loss outside the graph has a fixed share in what the image learns (as the adversarial weight of VQGAN, Esser et
    al. 2021, equation 7).
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, added: Tensor, ratio: float) -> Tensor:
        """image, added: one shape."""
        ctx.save_for_backward(added)
        ctx.ratio = ratio
        return image.view_as(image)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """See the class."""
        (added,) = ctx.saved_tensors
        return slope + added * (ctx.ratio * slope.norm() / added.norm().clamp_min(1e-12)), None, None


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of a discriminator's activations, averaged over its layers; a float32 scalar.

    Real and generated images of one layout and caption, layer by layer [B, K, h, w]; no gradient to the real side
    (Wang et al. 2018, pix2pixHD, section 3.3).
    """
    terms = [(one.float() - other.detach().float()).abs().mean() for one, other in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class ObjectJudgements:
    """An object-wise discriminator's logits of the same N objects.

    real:     real images, conditions [own, then wrong label (only with `permuted`), then wrong words (with `others`)]
    fake:     generated images, conditions [own]
    permuted: real images with wrong classes in the layout's code and the same wrong labels as condition. Code and
              label agree, so only the pixels decide: this ties the judgement to what the object looks like
    others:   bool [N], the objects that have wrong words: those of another object of their class
    """

    real: ObjectLogits
    fake: ObjectLogits
    permuted: ObjectLogits | None = None
    others: Tensor | None = None


def object_loss(judged: ObjectJudgements, kind: Adversarial, balanced: bool = False) -> dict[str, Tensor]:
    """(real + cond) / 2 + (fake + cond of fake + wrong label + permuted layout + wrong words) / 5; or as many as exist.

    Balanced: as in `text_loss`.
    """
    real, fake, permuted = judged.real, judged.fake, judged.permuted
    right = discriminator_real(real.unconditional, kind) + discriminator_real(real.conditional[0], kind)
    unconditional, wrong = discriminator_fake(fake.unconditional, kind), [discriminator_fake(fake.conditional[0], kind)]
    metrics = {
        "accuracy_real": accuracy(real.unconditional, True),
        "accuracy_fake": accuracy(fake.unconditional, False),
    }
    if permuted is not None:
        wrong += [discriminator_fake(real.conditional[1], kind), discriminator_fake(permuted.conditional[0], kind)]
        metrics["accuracy_wrong_label"] = accuracy(real.conditional[1], False)
        metrics["accuracy_permuted"] = accuracy(permuted.conditional[0], False)
    if judged.others is not None:
        others, apart = real.conditional[-1], judged.others[:, None]
        wrong.append(discriminator_fake(others, kind, apart))
        metrics["accuracy_wrong_words"] = accuracy(others, False, apart)
    conditional = torch.stack(wrong)
    published = right / 2 + (unconditional + conditional.sum()) / (1 + len(wrong))
    return {"loss": right + unconditional + conditional.mean() if balanced else published} | metrics
