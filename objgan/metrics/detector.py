"""A detector that the model never saw: torchvision's Faster R-CNN for COCO, from a file of its published weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from objgan.metrics.weights import fill, read_weights

WEIGHTS_FILE = "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
"""The file's name where torchvision publishes it."""

CATEGORIES: tuple[str, ...] = tuple(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
"""The detector's 91 outputs: COCO's category ids, "N/A" where COCO has none, the background first."""

SIDE = 800
THRESHOLD = 0.5


class Detector:
    """Finds the classes of a data set in images.

    classes: names of the data set's classes; those that COCO has under the same name can be found
    known:   bool [C], which those are
    """

    def __init__(self, network: FasterRCNN, classes: Sequence[str], threshold: float = THRESHOLD) -> None:
        self.network = network.eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.threshold = threshold
        names = {name: index for index, name in enumerate(CATEGORIES) if index and name != "N/A"}
        self.known = torch.tensor([name in names for name in self.classes], dtype=torch.bool)
        self._class_of = torch.full((len(CATEGORIES),), -1)
        for index, name in enumerate(self.classes):
            if name in names:
                self._class_of[names[name]] = index

    @torch.inference_mode()
    def found(self, images: Tensor) -> Tensor:
        """bool [B, C], on the CPU: the classes with a detection of at least the threshold's score.

        images: uint8 [B, 3, H, W]; scaled so that the shorter side has 800 pixels, as the detector was trained
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"a detector takes uint8 images [B, 3, H, W], got {images.dtype} {tuple(images.shape)}")
        device = next(self.network.parameters()).device
        detections = self.network([image.to(device).float() / 255 for image in images])
        found = torch.zeros(len(images), len(self.classes), dtype=torch.bool)
        for row, detection in enumerate(detections):
            sure = detection["labels"][detection["scores"] >= self.threshold].cpu()
            indices = self._class_of[sure]
            found[row, indices[indices >= 0]] = True
        return found


def load_detector(path: Path, classes: Sequence[str], device: torch.device | str = "cpu") -> Detector:
    """The detector with the weights in `path`: a state dict by `torch.save` (torchvision's file) or `.safetensors`.

    Raises:
        InputError: the file is missing, broken, or holds another network's weights.
    """
    what = f"weights of the detector ({WEIGHTS_FILE})"
    weights = read_weights(path, what)
    network = build_network()
    fill(network, weights, f"{what}: {path}")
    return Detector(network.to(device), classes)


def build_network(side: int = SIDE) -> FasterRCNN:
    """The network that torchvision's published weights fit, with random weights; nothing is fetched.

    torchvision builds another one when it is not asked for its weights: with batch statistics that can be trained, and
    another epsilon.
    """
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=0)
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return FasterRCNN(backbone, num_classes=len(CATEGORIES), min_size=side)
