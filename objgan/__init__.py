"""Text-to-image synthesis that shows its working: caption, boxes, shapes, image (Obj-GAN, Li et al., CVPR 2019)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objgan.generation import ObjGAN

__version__ = "0.1.0"


def load(folder: Path | str, device: str = "auto") -> "ObjGAN":
    """The finished model in `folder` (see `objgan.generation.ObjGAN`), on a GPU where there is one.

    Raises:
        objgan.errors.InputError: no model there, or a broken one.
    """
    from objgan.generation import ObjGAN  # seconds of imports, only for those who load a model

    return ObjGAN.load(folder, device)
