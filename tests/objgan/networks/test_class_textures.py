"""Textures of classes: 0 at first, in their object's box alone, by class, behind what covers them."""

import torch

from objgan.layout import Layout
from objgan.networks.class_textures import ClassTextures
from objgan.networks.painting import owner_shares

BOXES = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]])


def _layout(labels: list[int], masks: torch.Tensor) -> Layout:
    return Layout(torch.tensor([labels]), BOXES, torch.tensor([2]), masks)


def _masks() -> torch.Tensor:
    masks = torch.zeros(1, 3, 32, 32)
    masks[0, 0, :16, :16] = 1
    masks[0, 1, 16:, 16:] = 1
    return masks


def test_a_texture_lies_in_the_boxes_of_its_class() -> None:
    textures, masks = ClassTextures(3, 2), _masks()
    shares = owner_shares(masks)
    assert not textures(_layout([1, 2, 0], masks), shares).any()
    with torch.no_grad():
        textures.textures[1, 0, :, :8] = 1  # the left half of class 1, first channel
        textures.textures[0] = 9  # the label of the padding
    painted = textures(_layout([1, 2, 0], masks), shares)
    assert painted.shape == (1, 2, 32, 32) and not painted[0, 1].any() and not painted[0, :, 16:].any()
    assert (painted[0, 0, :16, :7] == painted[0, 0, 0, 0]).all() and painted[0, 0, 0, 0] > 0
    assert not painted[0, 0, :16, 9:].any()
    moved = textures(_layout([2, 1, 0], masks), shares)
    torch.testing.assert_close(moved[0, :, 16:, 16:], painted[0, :, :16, :16])
    masks[0, 1] = 1  # covers everything
    assert not textures(_layout([1, 2, 0], masks), owner_shares(masks)).any()


def test_textures_of_shown_classes_learn() -> None:
    textures = ClassTextures(3, 2)
    textures(_layout([1, 1, 0], _masks()), owner_shares(_masks())).sum().backward()
    assert textures.textures.grad is not None
    assert textures.textures.grad.flatten(1).any(1).tolist() == [False, True, False]
