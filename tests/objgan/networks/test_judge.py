"""The judge: shapes, sizes of images, and that one image's logits depend on it alone."""

import pytest
import torch

from objgan.batch import resize_images
from objgan.networks.judge import Judge


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(classes=5, width=8, found_threshold=0.5).eval()


@pytest.mark.parametrize("side", [32, 64, 128])
def test_shapes_do_not_depend_on_the_size_of_the_images(judge, side) -> None:
    seen = judge(torch.rand(2, 3, side, side) * 2 - 1)
    assert seen.classes.shape == (2, 6, 32, 32)
    assert seen.colours.shape == (2, 10, 32, 32)
    assert seen.scenes.shape == (2, 4)


def test_larger_images_are_averaged_down(judge) -> None:
    images = torch.rand(2, 3, 128, 128) * 2 - 1
    torch.testing.assert_close(judge(images).classes, judge(resize_images(images, 64)).classes)


def test_a_cell_looks_at_its_own_place(judge) -> None:
    """Cell (row, column) covers pixels 2 row, 2 column on; its logits follow what is there more than what is afar."""
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    judge(images).classes[0, :, 20, 6].pow(2).sum().backward()
    pull = images.grad[0].abs().sum(0)
    near, far = pull[36:46, 8:18].mean(), pull[:10, 50:].mean()
    assert near > 5 * far


def test_other_images_of_a_batch_change_nothing(judge) -> None:
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(judge(images).classes[1:2], judge(images[1:2]).classes, atol=1e-5, rtol=1e-5)
