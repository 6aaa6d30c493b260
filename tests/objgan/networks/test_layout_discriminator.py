"""Discriminator of labelled boxes: as with dense class planes, gradients, padding; it tells layouts apart."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from objgan.batch import Batch
from objgan.geometry import raster_boxes
from objgan.layout import Layout
from objgan.losses.images import text_loss
from objgan.networks.discriminators import TextLogits
from objgan.networks.layout_discriminator import BoxDiscriminator, ClassPlanes, SoftLayout

MakeBatch = Callable[..., Batch]


@pytest.fixture
def judge() -> BoxDiscriminator:
    torch.manual_seed(0)
    return BoxDiscriminator(classes=5, width=8, text_channels=6).eval()


def test_it_is_the_convolution_of_the_dense_class_planes(make_batch: MakeBatch) -> None:
    torch.manual_seed(0)
    layer = ClassPlanes(5, 6).eval()
    soft = SoftLayout.from_layout(make_batch(3, counts=[0, 2, 4], masks=False).layout, 5)
    dense = torch.einsum("brc,brhw->bchw", soft.classes, raster_boxes(soft.boxes, 64))
    torch.testing.assert_close(layer(soft, 64), functional.leaky_relu(layer.conv(dense), 0.2), atol=1e-5, rtol=1e-5)


def test_patches_of_logits_for_each_sentence(judge: BoxDiscriminator, make_batch: MakeBatch) -> None:
    soft = SoftLayout.from_layout(make_batch(3, masks=False).layout, 5)
    own, other = torch.randn(3, 6), torch.randn(3, 6)
    logits = judge(soft, own, other)
    assert logits.unconditional.shape == (3, 3, 3) and len(logits.conditional) == 2
    torch.testing.assert_close(judge(soft, other).conditional[0], logits.conditional[1])
    assert not torch.allclose(logits.conditional[0], logits.conditional[1])


def test_padding_and_the_order_of_objects_change_nothing(judge: BoxDiscriminator, make_batch: MakeBatch) -> None:
    layout, sentence = make_batch(3, counts=[0, 2, 3], masks=False).layout, torch.randn(3, 6)
    valid = layout.valid
    dirty = replace(
        layout,
        labels=torch.where(valid, layout.labels, 4),
        boxes=torch.where(valid[..., None], layout.boxes, torch.tensor([0.1, 0.2, 0.5, 0.6])),
    )
    plain = SoftLayout.from_layout(layout, 5)
    turned = SoftLayout(plain.classes.flip(1), plain.boxes.flip(1))
    expected = judge(plain, sentence)
    for soft in (SoftLayout.from_layout(dirty, 5), turned):
        torch.testing.assert_close(judge(soft, sentence).unconditional, expected.unconditional)
        torch.testing.assert_close(judge(soft, sentence).conditional, expected.conditional)


def test_a_class_and_another_box_of_it_are_seen(judge: BoxDiscriminator) -> None:
    box = torch.tensor([[[0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.4, 0.5]]])

    def logits(labels: list[int], count: int) -> Tensor:
        layout = Layout(torch.tensor([labels]), box, torch.tensor([count]))
        unconditional: Tensor = judge(SoftLayout.from_layout(layout, 5), torch.zeros(1, 6)).unconditional
        return unconditional

    one = logits([1, 0], 1)
    assert not torch.allclose(one, logits([2, 0], 1)) and not torch.allclose(one, logits([1, 1], 2))


def test_gradients_reach_classes_boxes_and_sentence(judge: BoxDiscriminator, make_batch: MakeBatch) -> None:
    layout, sentence = make_batch(3, counts=[2, 3, 4], masks=False).layout, torch.randn(3, 6, requires_grad=True)
    plain = SoftLayout.from_layout(layout, 5)
    soft = SoftLayout(plain.classes.requires_grad_(), plain.boxes.clone().requires_grad_())
    logits = judge(soft, sentence)
    (logits.unconditional.sum() + logits.conditional[0].sum()).backward()
    assert soft.classes.grad is not None and soft.boxes.grad is not None and sentence.grad is not None
    assert (soft.boxes.grad[layout.valid].abs().sum(0) > 0).all(), "x, y, w and h"
    assert (soft.boxes.grad[~layout.valid] == 0).all()
    assert (soft.classes.grad.abs().sum(-1)[layout.valid] > 0).all() and (sentence.grad.abs().sum(1) > 0).all()
    cut = soft.detach()
    assert not cut.classes.requires_grad and not cut.boxes.requires_grad


def toy(size: int, shift: float, draw: torch.Generator) -> tuple[SoftLayout, Tensor]:
    """Class k, said by the sentence, in the left half; `shift` moves it to the right."""
    labels = torch.randint(0, 5, (size, 1), generator=draw)
    corners = 0.25 * torch.rand(size, 1, 2, generator=draw) + torch.tensor([shift, 0.3])
    layout = Layout(labels, torch.cat([corners, torch.full((size, 1, 2), 0.25)], -1), torch.ones(size).long())
    return SoftLayout.from_layout(layout, 5), functional.one_hot(labels[:, 0], 6).float()


def test_it_learns_to_tell_moved_and_mismatched_layouts() -> None:
    torch.manual_seed(0)
    judge, draw = BoxDiscriminator(5, 8, 6), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(judge.parameters(), 4e-3, betas=(0.5, 0.999))

    def judged(size: int) -> tuple[TextLogits, TextLogits, Tensor]:
        (real, sentence), (fake, of_fake) = toy(size, 0.0, draw), toy(size, 0.5, draw)
        other = sentence.roll(1, 0)
        return judge(real, sentence, other), judge(fake, of_fake), (other != sentence).any(1)

    for _ in range(90):
        optimiser.zero_grad()
        text_loss(*judged(24), "hinge", 1.0)["loss"].backward()
        optimiser.step()
    real, fake, apart = judged(200)

    # Of whole pictures: a patch that sees no box has little to go by.
    right, wrong, moved = (part.mean((1, 2)) for part in (real.conditional[0], real.conditional[1], fake.unconditional))
    whole = real.unconditional.mean((1, 2))
    assert (whole > 0).float().mean() > 0.95 and (moved < 0).float().mean() > 0.95
    assert (right > wrong)[apart].float().mean() > 0.95
    assert (right - wrong)[apart].mean() > 1
