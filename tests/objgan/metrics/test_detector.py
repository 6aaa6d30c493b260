"""The detector with random weights in the published file's format, against the one that torchvision itself builds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_resnet50_fpn

from objgan.errors import InputError
from objgan.metrics.detector import CATEGORIES, Detector, build_network, load_detector

CLASSES = ("kite", "castle", "person", "teddy bear", "N/A", "__background__")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """With statistics that a wrong epsilon would show on, and scores that are sometimes high."""
    torch.manual_seed(0)
    weights = build_network().state_dict()
    for name, tensor in weights.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        if name.endswith("bn3.weight"):
            tensor.fill_(0.1)
    weights["backbone.body.bn1.running_var"].uniform_(1e-5, 2e-5)
    weights["backbone.body.bn1.weight"].fill_(0.01)
    weights["roi_heads.box_predictor.cls_score.weight"].normal_(0, 1.0)
    return weights


def published_format(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the file of 2019: convolutions that are now inside a block, counters that are now dropped."""
    old = {}
    for name, tensor in weights.items():
        for blocks in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                name = name.replace(f"{blocks}.{level}.0.", f"{blocks}.{level}.")
        old[name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = tensor
        if name.endswith("running_var"):
            old[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return old


def shrink(network: Any) -> Any:
    """Images are looked at small, so that a test takes no minute."""
    network.transform.min_size = (96,)
    return network


def test_equals_torchvisions_own(weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save(published_format(weights), path)
    detector = load_detector(path, CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: weights)
        theirs = shrink(fasterrcnn_resnet50_fpn(weights=FasterRCNN_ResNet50_FPN_Weights.COCO_V1).eval())
    shrink(detector.network)
    image = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = theirs([image[0] / 255])[0]
        found = detector.network([image[0] / 255])[0]
    assert len(expected["scores"]) and torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"])
    assert detector.found(image).shape == (1, len(CLASSES))


def test_looks_at_images_as_large_as_it_was_trained_on() -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    assert build_network().transform.min_size == theirs.transform.min_size == (800,)


def test_weights_of_another_network(weights: dict[str, Tensor], tmp_path: Path) -> None:
    other = {name: tensor for name, tensor in weights.items() if "box_predictor" not in name}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"detector .*other\.pth: .*box_predictor") as error:
        load_detector(tmp_path / "other.pth", CLASSES)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no file"):
        load_detector(tmp_path / "none.pth", CLASSES)


class Says(nn.Module):
    """Answers with fixed detections."""

    def __init__(self, *answers: list[tuple[str, float]]) -> None:
        super().__init__()
        self.answers, self.weight = answers, nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.seen = images
        return [
            {
                "labels": torch.tensor([CATEGORIES.index(name) for name, _ in answer], dtype=torch.int64),
                "scores": torch.tensor([score for _, score in answer]),
            }
            for answer in self.answers
        ]


def test_classes_by_name_and_threshold() -> None:
    network = Says([("person", 0.9), ("kite", 0.3), ("dog", 0.99)], [("teddy bear", 0.5), ("kite", 0.6)], [])
    detector = Detector(network, CLASSES)  # type: ignore[arg-type]
    assert detector.known.tolist() == [True, False, True, True, False, False]
    found = detector.found(torch.full((3, 3, 8, 8), 255, dtype=torch.uint8))
    assert [{CLASSES[i] for i in row.nonzero()[:, 0].tolist()} for row in found] == [
        {"person"},
        {"teddy bear", "kite"},
        set(),
    ]
    assert network.seen[0].max() == 1
    with pytest.raises(ValueError, match="uint8"):
        detector.found(torch.zeros(1, 3, 8, 8))
