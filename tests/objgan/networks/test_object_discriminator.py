"""Object-wise discriminator: where it looks, whom it judges, and batches without objects."""

import pytest
import torch
from torch import Tensor, nn

from objgan.layout import Layout
from objgan.networks.discriminators import trunk_layers
from objgan.networks.object_discriminator import ObjectDiscriminator, ObjectHead, split_by_size

CLASSES, CONDITION, SIDE = 5, 7, 128


def _layout(boxes: Tensor, count: Tensor | None = None) -> Layout:
    batch, objects = boxes.shape[:2]
    count = torch.full((batch,), objects) if count is None else count
    return Layout(torch.ones(batch, objects, dtype=torch.int64), boxes, count, torch.rand(batch, objects, 32, 32))


def _network(layers: int, norm: str = "batch", side: int = SIDE) -> ObjectDiscriminator:
    torch.manual_seed(0)
    return ObjectDiscriminator(side, 4, CLASSES, CONDITION, layers, norm)  # type: ignore[arg-type]


def _gradient_extent(network: ObjectDiscriminator, box: tuple[float, float, float, float]) -> list[int]:
    """Pixels (left, top, right, bottom; the latter exclusive) that the object's logits depend on."""
    layout = _layout(torch.tensor([[box]]))
    images = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)
    logits = network(images, network.encode(layout), layout.boxes, layout.places, torch.randn(1, 1, CONDITION))
    (logits.unconditional + logits.conditional[0]).sum().backward()
    assert images.grad is not None
    hit = images.grad.abs().sum((0, 1)) > 0
    columns, rows = hit.any(0).nonzero(), hit.any(1).nonzero()
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def _margin(layers: int) -> int:
    """Pixels beyond the box: bilinear sampling reaches one cell further, a cell sees (4 - 2) (2^layers - 1) more."""
    return 2**layers + 2 * (2**layers - 1)


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("corner", [(0.125, 0.125), (0.75, 0.125), (0.125, 0.75), (0.75, 0.75)])
def test_input_gradient_lies_at_the_objects_box(layers: int, corner: tuple[float, float]) -> None:
    extent = _gradient_extent(_network(layers).eval(), (*corner, 0.125, 0.125))
    low = [round(c * SIDE) for c in corner]
    high = [c + SIDE // 8 for c in low]
    margin = _margin(layers)
    assert extent[0] >= max(low[0] - margin, 0) and extent[1] >= max(low[1] - margin, 0)
    assert extent[2] <= min(high[0] + margin, SIDE) and extent[3] <= min(high[1] + margin, SIDE)
    # and all of the box is looked at
    assert extent[0] <= low[0] and extent[1] <= low[1] and extent[2] >= high[0] and extent[3] >= high[1]


@pytest.mark.parametrize("layers", [3, 4])
def test_input_gradient_moves_with_the_box(layers: int) -> None:
    network = _network(layers).eval()
    here, there = (_gradient_extent(network, (x, 0.375, 0.125, 0.125)) for x in (0.375, 0.5))
    assert [there[0] - here[0], there[2] - here[2]] == [SIDE // 8, SIDE // 8]
    assert here[1::2] == there[1::2]


def test_boxes_are_not_changed_in_place() -> None:
    network, layout = _network(3), _layout(torch.rand(2, 3, 4) / 2)
    before = layout.boxes.clone()
    images, code = torch.randn(2, 3, SIDE, SIDE), network.encode(layout)
    first = network.eval()(images, code, layout.boxes, layout.places)
    again = network(images, code, layout.boxes, layout.places)
    assert torch.equal(layout.boxes, before) and torch.equal(first.unconditional, again.unconditional)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_batch_without_objects_passes_with_zero_gradients(norm: str) -> None:
    network, layout = _network(3, norm), _layout(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64))
    images = torch.randn(2, 3, SIDE, SIDE, requires_grad=True)
    logits = network(images, network.encode(layout), layout.boxes, layout.places, torch.zeros(2, 3, CONDITION))
    assert logits.unconditional.shape == logits.conditional[0].shape == (0, 1)
    (logits.unconditional.sum() + logits.conditional[0].sum()).backward()
    assert images.grad is not None and not images.grad.any()


def test_one_object_alone_trains() -> None:
    network, layout = _network(3), _layout(torch.tensor([[[0.1, 0.1, 0.2, 0.2]]]))
    images = torch.randn(1, 3, SIDE, SIDE)
    logits = network(images, network.encode(layout), layout.boxes, layout.places, torch.zeros(1, 1, CONDITION))
    assert logits.unconditional.shape == (1, 1) and torch.isfinite(logits.conditional[0]).all()


def test_padding_changes_nothing_and_logits_follow_the_objects() -> None:
    network = _network(3).train()
    boxes, conditions = torch.rand(2, 3, 4) / 2, torch.randn(2, 3, CONDITION)
    count = torch.tensor([2, 1])
    images, layout = torch.randn(2, 3, SIDE, SIDE), _layout(boxes, count)
    code = network.encode(layout)
    first = network(images, code, layout.boxes, layout.places, conditions)
    boxes, conditions = boxes.clone(), conditions.clone()
    boxes[~layout.valid], conditions[~layout.valid] = 0.3, 9.0
    again = network(images, code, boxes, layout.places, conditions)
    torch.testing.assert_close(first.conditional[0], again.conditional[0])
    network.eval()
    whole = network(images, code, layout.boxes, layout.places, conditions).conditional[0]
    second = layout[1:]
    alone = network(images[1:], code[1:], second.boxes, second.places, conditions[1:]).conditional[0]
    torch.testing.assert_close(whole[2:], alone, atol=1e-5, rtol=1e-4)


def test_every_size_is_small_or_large_and_never_both() -> None:
    sides = torch.linspace(0.01, 1, 100)
    boxes = torch.zeros(1, 101, 4)
    boxes[0, :100, 2], boxes[0, :100, 3] = sides, sides.flip(0) / 2
    layout = Layout(torch.zeros(1, 101, dtype=torch.int64), boxes, torch.tensor([100]))
    small, large = split_by_size(layout, 0.25)
    assert torch.equal(small ^ large, layout.valid) and not (small & large).any()
    assert torch.equal(large[0, :100], torch.maximum(sides, sides.flip(0) / 2) >= 0.25)


def test_objects_between_a_quarter_and_a_half_are_large() -> None:
    boxes = torch.tensor([[[0, 0, 0.1, 0.24], [0, 0, 0.25, 0.1], [0, 0, 0.3, 0.3], [0, 0, 0.1, 0.45]]])
    small, large = split_by_size(_layout(boxes), 0.25)
    assert small.tolist() == [[True, False, False, False]] and large.tolist() == [[False, True, True, True]]


def test_parameters_at_the_papers_size() -> None:
    # label vectors of 50 channels, c_obj of 48
    counts = [sum(p.numel() for p in ObjectDiscriminator(256, 96, 80, 98, n).parameters()) / 1e6 for n in (3, 4)]
    assert counts == [pytest.approx(5.55, abs=0.05), pytest.approx(12.63, abs=0.05)]


def test_both_pass_at_the_smallest_resolutions() -> None:
    for side in (16, 32, 64):
        for most in (3, 4):
            network, layout = _network(most, side=side), _layout(torch.tensor([[[0.1, 0.1, 0.2, 0.2]]]))
            assert len(network.trunk) == min(most, trunk_layers(side))
            images = torch.randn(1, 3, side, side)
            assert network(images, network.encode(layout), layout.boxes, layout.places).unconditional.shape == (1, 1)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_bfloat16_autocast(norm: str) -> None:
    network, layout = _network(3, norm), _layout(torch.rand(2, 3, 4) / 2 + 0.1)
    images = torch.randn(2, 3, SIDE, SIDE, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images, network.encode(layout), layout.boxes, layout.places, torch.randn(2, 3, CONDITION))
    logits.conditional[0].float().sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


@pytest.mark.parametrize("roi_size", [5, 8])
def test_the_split_joint_convolution_is_that_of_objects_and_condition_concatenated(roi_size: int) -> None:
    torch.manual_seed(0)
    head = ObjectHead(4, 1, 6, "batch", roi_size).double().eval()
    objects = torch.randn(3, 16, roi_size - 1, roi_size - 1, dtype=torch.float64, requires_grad=True)
    conditions = [torch.randn(3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def concatenated(condition: Tensor) -> Tensor:
        spread = condition[:, :, None, None].expand(-1, -1, *objects.shape[2:])
        joint = head.joint_norm(head.joint(torch.cat([objects, spread], 1)))
        logits: Tensor = head.conditional(nn.functional.leaky_relu(joint, 0.2)).flatten(1)
        return logits

    split, whole = head._fit(objects, conditions), [concatenated(condition) for condition in conditions]
    slopes = [
        torch.autograd.grad(torch.cat(logits).square().sum(), [objects, *conditions, head.joint.weight])
        for logits in (split, whole)
    ]
    torch.testing.assert_close(split, whole)
    torch.testing.assert_close(*slopes)
