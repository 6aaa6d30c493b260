"""torch-fidelity's Inception for FID, KID and the inception score, from a local file of its weights.

The network is the one that TensorFlow published in 2015 and that papers use: `pt_inception-2015-12-05-6726825d.pth` of
pytorch-fid; torch-fidelity has it as `weights-inception-...`, with the same checksum in its name. The network resizes
images itself, like the original: pass them in their own size.
"""

import io
from pathlib import Path

import torch
from torch import Tensor

from objgan.files import sha256
from objgan.metrics.weights import misfit, read_weights

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
_PUBLISHED = "6726825d"  # start of the file's SHA-256
_CONTENT = f"weights of Inception ({WEIGHTS_FILE})"

NO_WEIGHTS = (
    f"no Inception weights: give the path of {WEIGHTS_FILE} (pytorch-fid's and torch-fidelity's releases have it) "
    "with --inception"
)
"""The reason why these metrics are skipped without a path."""


class Inception:
    """The network, on one device.

    published: whether the file is the published one; metrics by another file cannot be compared with papers
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Read the weights: a state dict by `torch.save` (the published file) or `.safetensors`.

        Raises:
            InputError: the file is missing, broken, or holds another network's weights.
        """
        # It takes a second to import.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = read_weights(path, _CONTENT)
        # torch-fidelity unpickles its file: pass only the checked tensors to it.
        checked = io.BytesIO()
        torch.save(weights, checked)
        checked.seek(0)
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=checked
            )
        except RuntimeError as error:
            raise misfit(error, f"{_CONTENT}: {path}") from None
        self.network = network.to(device).eval().requires_grad_(False)  # 0.3.0 leaves it in training
        self.published = sha256(path).startswith(_PUBLISHED)

    @torch.inference_mode()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of uint8 images [B, 3, H, W] of any size: pooled features [B, 2048], logits without the last bias [B, 1008].

        Raises:
            ValueError: images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"Inception takes uint8 images [B, 3, H, W], got {images.dtype} {tuple(images.shape)}")
        pooled, logits = self.network(images.to(next(self.network.parameters()).device))
        return pooled, logits
