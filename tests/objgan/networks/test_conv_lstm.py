"""Order and padding in the ConvLSTM over objects."""

import torch
from torch import Tensor

from objgan.networks.conv_lstm import BidirectionalConvLSTM, reversed_order


def _padded(count: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], int]:
    """The objects' places in sequences of this length, and the length: padding is run through, too."""
    picture, entry = (torch.arange(length) < count[:, None]).nonzero(as_tuple=True)
    return (picture, entry), length


def test_reversed_order_starts_at_the_last_object_and_undoes_itself() -> None:
    order = reversed_order(torch.tensor([3, 0, 4]), 4)
    assert order.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3], [3, 2, 1, 0]]
    assert torch.equal(order.gather(1, order), torch.arange(4).expand(3, 4))


def test_one_step_by_hand() -> None:
    """From nothing: output = sigmoid(o) tanh(sigmoid(i) tanh(g)), each direction with gates of its own."""
    lstm = BidirectionalConvLSTM(1, 1)
    torch.nn.init.zeros_(lstm.input_gates.weight)
    # keep, write, show, value of the onward direction, then of the backward one
    lstm.input_gates.bias.data = torch.tensor([9.0, 0.5, -0.2, 0.8, 9.0, -1.0, 0.3, 0.4])
    count = torch.tensor([1])
    found = lstm(torch.zeros(1, 1, 2, 2), count, *_padded(count, 3))
    gate = torch.sigmoid(torch.tensor([0.5, -0.2, -1.0, 0.3]))
    value = torch.tanh(torch.tensor([0.8, 0.4]))
    torch.testing.assert_close(found[0, 0], (gate[1] * torch.tanh(gate[0] * value[0])).expand(2, 2))
    torch.testing.assert_close(found[0, 1], (gate[3] * torch.tanh(gate[2] * value[1])).expand(2, 2))


def test_each_direction_sees_the_objects_on_its_side_and_no_padding() -> None:
    torch.manual_seed(0)
    lstm, hidden = BidirectionalConvLSTM(2, 3), 3
    count = torch.tensor([3, 1])
    objects = torch.randn(4, 2, 4, 4, requires_grad=True)
    found = lstm(objects, count, *_padded(count, 5))
    assert found.shape == (4, 2 * hidden, 4, 4)
    for row in range(3):
        for half, seen in ((slice(0, hidden), range(row + 1)), (slice(hidden, None), range(row, 3))):
            (gradient,) = torch.autograd.grad(found[row, half].sum(), objects, retain_graph=True)
            assert gradient.flatten(1).any(1).tolist() == [other in seen for other in range(4)]


def test_a_sequence_alone_or_in_a_batch_is_the_same() -> None:
    torch.manual_seed(0)
    lstm = BidirectionalConvLSTM(2, 3)
    count, objects = torch.tensor([2, 0, 4]), torch.randn(6, 2, 4, 4)
    together = lstm(objects, count, *_padded(count, 6))
    alone = lstm(objects[:2], count[:1], *_padded(count[:1], 2))
    torch.testing.assert_close(together[:2], alone)


def test_no_objects_at_all() -> None:
    lstm = BidirectionalConvLSTM(2, 3)
    count = torch.tensor([0, 0])
    assert lstm(torch.zeros(0, 2, 4, 4), count, *_padded(count, 4)).shape == (0, 6, 4, 4)
