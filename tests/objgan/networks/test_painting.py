"""Painting: maximum over objects and 0, gradients to the winner, little memory."""

import torch

from objgan.networks.painting import owner_shares, paint, paint_owners


def test_painting_by_hand() -> None:
    values = torch.tensor([[[1.0, -3.0], [2.0, 5.0], [9.0, 9.0]]])
    masks = torch.tensor([[[[1.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]], [[0.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[[1.0, 2.0, 1.0]], [[0.0, 5.0, 2.5]]]])
    torch.testing.assert_close(paint(values, masks), expected)


def test_padding_changes_nothing_whatever_the_sign() -> None:
    """Without the 0 in the maximum, one padded object would hide every negative value."""
    torch.manual_seed(0)
    values, masks = torch.randn(2, 3, 5), torch.rand(2, 3, 4, 4)
    padded_values = torch.cat([values, torch.randn(2, 2, 5)], 1)
    padded_masks = torch.cat([masks, torch.zeros(2, 2, 4, 4)], 1)
    assert torch.equal(paint(values, masks), paint(padded_values, padded_masks))


def test_equal_to_the_dense_maximum_with_its_gradients() -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    dense = (values[..., None, None] * masks[:, :, None]).amax(1).clamp_min(0)
    torch.testing.assert_close(paint(values, masks), dense)
    assert torch.autograd.gradcheck(paint, (values, masks))
    gradient = torch.randn_like(dense)
    ours = torch.autograd.grad(paint(values, masks), (values, masks), gradient)
    theirs = torch.autograd.grad(dense, (values, masks), gradient)
    torch.testing.assert_close(ours, theirs)


def test_a_nan_comes_out() -> None:
    values = torch.tensor([[[1.0], [float("nan")]]])
    assert paint(values, torch.ones(1, 2, 2, 2)).isnan().all()


def test_memory_for_the_backward_pass_does_not_grow_with_objects() -> None:
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    batch, objects, channels, side = 2, 10, 48, 32
    values = torch.randn(batch, objects, channels, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        painted = paint(values, torch.rand(batch, objects, side, side))
    inputs = 4 * batch * objects * (channels + side * side)
    assert sum(kept) <= inputs + painted.nbytes / 4


def test_no_objects_at_all() -> None:
    assert not paint(torch.randn(2, 0, 3), torch.zeros(2, 0, 4, 4)).any()


def test_the_last_object_owns_its_cells_and_shares_sum_to_one() -> None:
    masks = torch.tensor([[[[1.0, 1.0, 0.0, 0.5]], [[0.0, 1.0, 0.0, 0.5]]]])
    shares = owner_shares(masks)
    expected = torch.tensor([[[[0.0, 0.0, 1.0, 0.25]], [[1.0, 0.0, 0.0, 0.25]], [[0.0, 1.0, 0.0, 0.5]]]])
    torch.testing.assert_close(shares, expected)
    painted = paint_owners(torch.tensor([[[0.0], [-1.0], [2.0]]]), shares)
    torch.testing.assert_close(painted, torch.tensor([[[[-1.0, 2.0, 0.0, 0.75]]]]))
    padded = owner_shares(torch.cat([masks, torch.zeros_like(masks)], 1))
    assert torch.equal(padded[:, :3], shares) and not padded[:, 3:].any()
    assert owner_shares(torch.zeros(2, 0, 4, 4)).eq(1).all()
