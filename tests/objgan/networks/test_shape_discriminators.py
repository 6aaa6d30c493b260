"""Sizes of the patch logits, and what each discriminator may and may not depend on."""

from dataclasses import replace

import pytest
import torch

from objgan.layout import Layout
from objgan.networks.shape_discriminators import GlobalDiscriminator, InstanceDiscriminator


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize(("size", "layers", "patches"), [(16, 2, 4), (32, 3, 4), (64, 4, 4), (128, 4, 8)])
def test_patch_logits_and_features(make_batch, size, layers, patches, spectral) -> None:
    layout = make_batch(3, counts=[2, 0, 4]).layout
    masks, valid = torch.rand(3, 4, size, size), layout.valid
    one = InstanceDiscriminator(5, 4, 4, size, spectral)(masks[valid], layout.labels[valid], layout.boxes[valid])
    whole = GlobalDiscriminator(5, 4, 4, size, spectral)(masks, layout)
    assert one.logits.shape == (6, patches, patches)
    assert whole.logits.shape == (3, patches, patches)
    for judgement in (one, whole):
        assert [f.shape[1] for f in judgement.features] == [4 << i for i in range(layers)]
        assert [f.shape[-1] for f in judgement.features] == [size >> (i + 1) for i in range(layers)]


def test_instance_discriminator_knows_class_and_box() -> None:
    torch.manual_seed(0)
    judge = InstanceDiscriminator(5, 4, 4, 32)
    masks, boxes = torch.rand(2, 32, 32), torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 2)
    first = judge(masks, torch.tensor([1, 1]), boxes).logits
    assert not torch.allclose(first, judge(masks, torch.tensor([2, 2]), boxes).logits)
    assert not torch.allclose(first, judge(masks, torch.tensor([1, 1]), boxes + 0.2).logits)


def test_global_discriminator_ignores_padding_and_order(make_batch) -> None:
    torch.manual_seed(0)
    judge, layout = GlobalDiscriminator(5, 4, 4, 32), make_batch(2, counts=[2, 3]).layout
    masks = layout.soft_masks
    expected = judge(masks, layout).logits
    padded = ~layout.valid
    noisy = masks.masked_fill(padded[..., None, None], 1.0)
    boxes = layout.boxes.masked_fill(padded[..., None], 0.5)
    torch.testing.assert_close(judge(noisy, replace(layout, boxes=boxes)).logits, expected)
    order = torch.tensor([1, 0, 2, 3])
    swapped = replace(layout, labels=layout.labels[:, order], boxes=layout.boxes[:, order])
    torch.testing.assert_close(judge(masks[:, order], swapped).logits, expected)


def test_global_discriminator_pools_objects_of_a_class_by_their_maximum() -> None:
    """Two equal objects look like one; the same two of different classes do not."""
    torch.manual_seed(0)
    judge = GlobalDiscriminator(5, 4, 4, 16)
    boxes, masks = torch.tensor([[[0.2, 0.2, 0.5, 0.5]] * 2]), torch.rand(1, 1, 16, 16).expand(-1, 2, -1, -1)
    two = Layout(torch.tensor([[1, 1]]), boxes, torch.tensor([2]))
    one = replace(two, count=torch.tensor([1]))
    other = replace(two, labels=torch.tensor([[1, 2]]))
    torch.testing.assert_close(judge(masks, two).logits, judge(masks, one).logits)
    assert not torch.allclose(judge(masks, two).logits, judge(masks, other).logits)
