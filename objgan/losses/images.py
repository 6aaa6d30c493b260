"""Losses of the image stage's discriminators, on logits (Li et al. 2019, section 3.4).

Each returns "loss", a float32 scalar, and the shares of right judgements "accuracy_...", for the log alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from objgan.losses.adversarial import Adversarial, accuracy, discriminator_fake, discriminator_real
from objgan.networks.discriminators import TextLogits
from objgan.networks.object_discriminator import ObjectLogits


def text_loss(
    real: TextLogits, fake: TextLogits, mismatched: Tensor, kind: Adversarial, weight: float
) -> dict[str, Tensor]:
    """(real + w cond) / 2 + (fake + w (cond of fake + mismatched caption)) / 3.

    real:       of real images, judged with [their sentence, another image's]
    fake:       of generated images, judged with [their sentence]
    mismatched: bool [B], where the other sentence does belong to another image
    weight:     w, of the conditional terms; 0.1 as published
    """
    matched, other = real.conditional
    apart = mismatched[:, None, None]
    right = discriminator_real(real.unconditional, kind) + weight * discriminator_real(matched, kind)
    wrong = discriminator_fake(fake.unconditional, kind) + weight * (
        discriminator_fake(fake.conditional[0], kind) + discriminator_fake(other, kind, apart)
    )
    return {
        "loss": right / 2 + wrong / 3,
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


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of a discriminator's activations, averaged over its layers; a float32 scalar.

    Real and generated images of one layout and caption, layer by layer [B, K, h, w]; no gradient to the real side
    (Wang et al. 2018, pix2pixHD, section 3.3).
    """
    terms = [(one.float() - other.detach().float()).abs().mean() for one, other in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()


def object_loss(
    real: ObjectLogits, fake: ObjectLogits, permuted: ObjectLogits | None, kind: Adversarial
) -> dict[str, Tensor]:
    """(real + cond) / 2 + (fake + cond of fake + wrong label + permuted layout) / 4; without wrong classes, / 2.

    real:     real images, conditions [own, wrong label], the latter only with `permuted`
    fake:     generated images, conditions [own]
    permuted: real images with wrong classes in the layout's code and the same wrong labels as condition. Code and
              label agree, so only the pixels decide: this ties the judgement to what the object looks like
    """
    right = discriminator_real(real.unconditional, kind) + discriminator_real(real.conditional[0], kind)
    wrong = [discriminator_fake(fake.unconditional, kind), discriminator_fake(fake.conditional[0], kind)]
    metrics = {
        "accuracy_real": accuracy(real.unconditional, True),
        "accuracy_fake": accuracy(fake.unconditional, False),
    }
    if permuted is not None:
        wrong += [discriminator_fake(real.conditional[1], kind), discriminator_fake(permuted.conditional[0], kind)]
        metrics["accuracy_wrong_label"] = accuracy(real.conditional[1], False)
        metrics["accuracy_permuted"] = accuracy(permuted.conditional[0], False)
    return {"loss": right / 2 + sum(wrong[1:], wrong[0]) / len(wrong)} | metrics
