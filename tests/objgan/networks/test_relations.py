"""Relations: attention by hand, what comes later is not seen, and that "left of" can be learned from few layouts."""

import torch
from torch import Tensor
from torch.nn import functional

from objgan.networks.count_head import PASSING
from objgan.networks.relations import Relations, SaidOfObjects


def of(said: Tensor) -> SaidOfObjects:
    """Objects of which only this is said."""
    return SaidOfObjects(said, torch.zeros(*said.shape[:2], PASSING), torch.zeros(said.shape[:2]))


def test_nothing_is_seen_of_what_comes_later() -> None:
    torch.manual_seed(0)
    relations = Relations(6)
    said, boxes = torch.randn(2, 3, 6), torch.randn(2, 3, 4)
    before = torch.ones(3, 3, dtype=torch.bool).tril(-1)
    seen = relations(of(said), of(said), boxes, before)
    assert seen.shape == (2, 3, relations.channels) and (seen[:, 0] == 0).all(), "the first has none before it"
    other = boxes.clone()
    other[:, 1] += 1
    moved = relations(of(said), of(said), other, before)
    assert torch.equal(moved[:, :2], seen[:, :2]) and not torch.equal(moved[:, 2], seen[:, 2])
    alone = relations(of(said[:, 1:2]), of(said[:, :1]), boxes[:, :1], torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(alone[:, 0], seen[:, 1])


def test_the_box_of_the_other_is_among_the_values() -> None:
    relations = Relations(6)
    with torch.no_grad():
        relations.query.bias.fill_(10.0)
        relations.key.bias.fill_(10.0)
    boxes = torch.randn(1, 1, 4)
    seen = relations(of(torch.zeros(1, 1, 6)), of(torch.zeros(1, 1, 6)), boxes, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(seen[..., :4], boxes)


def test_what_stands_between_two_has_the_sign_of_their_order() -> None:
    relations = Relations(6)
    with torch.no_grad():
        relations.query.bias.fill_(10.0)
        relations.key.bias.fill_(10.0)
    onward, before = torch.randn(1, 2, PASSING), torch.ones(1, 1, dtype=torch.bool)
    both = SaidOfObjects(torch.zeros(1, 2, 6), onward, torch.zeros(1, 2))
    one, other = (SaidOfObjects(*(part[:, [i]] for part in vars(both).values())) for i in (0, 1))
    there, back = (
        relations(*pair, torch.zeros(1, 1, 4), before)[..., -2 * PASSING :] for pair in ((one, other), (other, one))
    )
    torch.testing.assert_close(there[..., :PASSING], (onward[:, :1] - onward[:, 1:]))
    torch.testing.assert_close(back[..., :PASSING], -there[..., :PASSING])
    torch.testing.assert_close(back[..., PASSING:], there[..., :PASSING].abs())


def test_the_likelier_class_is_the_one_looked_at() -> None:
    relations = Relations(6)
    others = SaidOfObjects(torch.zeros(1, 2, 6), torch.zeros(1, 2, PASSING), torch.tensor([[-20.0, 20.0]]))
    boxes = torch.randn(1, 2, 4)
    seen = relations(of(torch.zeros(1, 1, 6)), others, boxes, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(seen[:, 0, :4], boxes[:, 1])


def test_it_learns_to_read_a_place_relative_to_one_of_two_others() -> None:
    """What is said names one of two others and a side; the target is one unit on that side of it."""
    torch.manual_seed(0)
    relations = Relations(4)
    head = torch.nn.Sequential(torch.nn.Linear(4 + relations.channels, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimiser = torch.optim.Adam([*relations.parameters(), *head.parameters()], 1e-2)
    others = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for _ in range(400):
        side, which = torch.randint(2, (64,)), torch.randint(2, (64,))
        own = torch.cat([functional.one_hot(side, 2).float(), functional.one_hot(which, 2).float()], 1)[:, None]
        boxes = torch.randn(64, 2, 4)
        seen = relations(of(own), of(others.expand(64, -1, -1)), boxes, torch.ones(1, 2, dtype=torch.bool))
        target = boxes[torch.arange(64), which, 0] + 2 * side - 1
        loss = functional.mse_loss(head(torch.cat([own, seen], -1))[:, 0, 0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1, "without the other's box the error is about 1"
