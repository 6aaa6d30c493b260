"""FID, KID and the inception score with torch-fidelity's Inception, from a file of its weights; nothing is fetched.

Features can be taken by several actors and put together afterwards: `Inception` gives one row an image, `fidelity`
takes all rows of both sides. The network is the one that TensorFlow published in 2015 and that the field compares by:
`pt_inception-2015-12-05-6726825d.pth` of pytorch-fid; torch-fidelity has it as `weights-inception-...`, with the same
sum in its name. Images are resized by the network itself, as that one did: give them at the size they were made.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from objgan.files import sha256
from objgan.metrics.arrays import Array
from objgan.metrics.distances import frechet_distance, inception_score, kernel_distance
from objgan.metrics.weights import misfit, read_weights

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
_PUBLISHED = "6726825d"  # the file's SHA-256 begins so
_WHAT = f"weights of Inception ({WEIGHTS_FILE})"

NO_WEIGHTS = (
    f"no Inception weights: give the path of {WEIGHTS_FILE} (pytorch-fid's and torch-fidelity's releases have it) "
    "with --inception"
)
"""Why nothing is measured without a path."""


@dataclass(frozen=True)
class Features:
    """Of N images, in order: pooled features float32 [N, 2048], logits without the last bias float32 [N, 1008]."""

    pooled: np.ndarray
    logits: np.ndarray

    @classmethod
    def join(cls, parts: list["Features"]) -> "Features":
        """One after the other; at least one."""
        return cls(np.concatenate([p.pooled for p in parts]), np.concatenate([p.logits for p in parts]))


class Inception:
    """The network, on one device.

    published: whether the file is the published one; figures by any other cannot be compared with other people's
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Read the weights: a state dict by `torch.save` (the published file) or `.safetensors`.

        Raises:
            InputError: the file is missing, broken, or holds another network's weights.
        """
        # A second of import, for those who have the weights.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = read_weights(path, _WHAT)
        # torch-fidelity would unpickle whatever the file holds: it gets the tensors that were read, and nothing else.
        checked = io.BytesIO()
        torch.save(weights, checked)
        checked.seek(0)
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=checked
            )
        except RuntimeError as error:
            raise misfit(error, f"{_WHAT}: {path}") from None
        self.network = network.to(device).eval().requires_grad_(False)  # 0.3.0 leaves it in training
        self.published = sha256(path).startswith(_PUBLISHED)

    @torch.inference_mode()
    def features(self, images: Tensor) -> Features:
        """Of uint8 images [B, 3, H, W] of any size.

        Raises:
            ValueError: images of another kind.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"Inception takes uint8 images [B, 3, H, W], got {images.dtype} {tuple(images.shape)}")
        pooled, logits = self.network(images.to(next(self.network.parameters()).device))
        return Features(pooled.cpu().numpy(), logits.cpu().numpy())


def load_inception(path: Path | None, device: torch.device | str = "cpu") -> Inception | str:
    """The network, or without a path the reason why these figures are left out.

    Raises:
        InputError: a path was given, and the file cannot be used.
    """
    return NO_WEIGHTS if path is None else Inception(path, device)


def fidelity(generated: Features, real: Features) -> dict[str, float]:
    """`fid`, `kid`, `inception_score` of the generated images, as torch-fidelity gives them.

    generated, real: at least 2 images each; equal numbers where figures are to be compared
    """
    return distances(generated.pooled, real.pooled) | {"inception_score": inception_score(generated.logits).mean}


def distances(generated: Array, real: Array) -> dict[str, float]:
    """`fid` and `kid` of pooled features [N, 2048], [M, 2048]."""
    return {"fid": frechet_distance(generated, real), "kid": kernel_distance(generated, real).mean}
