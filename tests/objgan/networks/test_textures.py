"""Textures: 0 at first, in the boxes of their class alone, behind what covers them; backgrounds beside them."""

import torch

from objgan.layout import Layout
from objgan.networks.painting import owner_shares
from objgan.networks.textures import Textures

CODE = torch.ones(1, 4)
BOXES = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]])


def _layout(labels: list[int], masks: torch.Tensor) -> Layout:
    return Layout(torch.tensor([labels]), BOXES, torch.tensor([2]), masks)


def _masks() -> torch.Tensor:
    masks = torch.zeros(1, 3, 32, 32)
    masks[0, 0, :16, :16] = 1
    masks[0, 1, 16:, 16:] = 1
    return masks


def test_a_texture_lies_in_the_boxes_of_its_class() -> None:
    textures, masks = Textures(3, 2, 4), _masks()
    shares = owner_shares(masks)
    assert not textures(_layout([1, 2, 0], masks), shares, CODE).any()
    with torch.no_grad():
        textures.classes[1, 0, :, :8] = 1  # the left half of class 1, first channel
        textures.classes[0] = 9  # the label of the padding
    painted = textures(_layout([1, 2, 0], masks), shares, CODE)
    assert painted.shape == (1, 2, 32, 32) and not painted[0, 1].any() and not painted[0, :, 16:].any()
    assert (painted[0, 0, :16, :7] == painted[0, 0, 0, 0]).all() and painted[0, 0, 0, 0] > 0
    assert not painted[0, 0, :16, 9:].any()
    moved = textures(_layout([2, 1, 0], masks), shares, CODE)
    torch.testing.assert_close(moved[0, :, 16:, 16:], painted[0, :, :16, :16])
    masks[0, 1] = 1  # covers everything
    assert not textures(_layout([1, 2, 0], masks), owner_shares(masks), CODE).any()


def test_textures_of_shown_classes_learn() -> None:
    textures = Textures(3, 2, 4)
    textures(_layout([1, 1, 0], _masks()), owner_shares(_masks()), CODE).sum().backward()
    assert textures.classes.grad is not None
    assert textures.classes.grad.flatten(1).any(1).tolist() == [False, True, False]


def test_the_background_has_a_mixture_of_its_own_where_no_object_is() -> None:
    torch.manual_seed(0)
    textures, shares = Textures(3, 2, 4), owner_shares(_masks())
    with torch.no_grad():
        textures.backgrounds += torch.randn_like(textures.backgrounds)
    painted = textures(_layout([1, 2, 0], _masks()), shares, CODE)[0]
    assert not painted[:, :16, :16].any() and not painted[:, 16:, 16:].any()
    assert painted[:, :16, 16:].abs().min() > 0
    other = textures(_layout([1, 2, 0], _masks()), shares, -CODE)[0]
    assert not torch.allclose(other, painted)
