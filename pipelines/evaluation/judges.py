"""Who judges generated images: second encoders, a judge of objects, Inception, a detector. Each is there or is not."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.layout import Layout
from objgan.metrics.diversity import feature_diversity, pixel_diversity
from objgan.metrics.named_classes import NamedClasses
from pipelines.evaluation.inception import Inception, load_inception
from pipelines.evaluation.synthesis import Prompts, scaled
from pipelines.evaluation.trained_judges import ObjectJudge, SecondEncoders

if TYPE_CHECKING:
    from objgan.metrics.detector import Detector

SECOND_ENCODERS, JUDGE = "second_encoders", "judge"


@dataclass(frozen=True)
class JudgePaths:
    """Where the judges are, None for those that are not there.

    judges:    folder of the checkpoints `second_encoders` and `judge`, as the command `judges` writes it
    inception: Inception's weights; detector: weights of a Faster R-CNN for COCO
    """

    judges: Path | None = None
    inception: Path | None = None
    detector: Path | None = None

    def absolute(self) -> "JudgePaths":
        """The same from any working directory."""
        return JudgePaths(*(path and path.resolve() for path in (self.judges, self.inception, self.detector)))


class Judges:
    """All judges that the paths lead to, on the model's device; `skipped` says which measures go without, and why."""

    def __init__(self, paths: JudgePaths, model: ObjGAN) -> None:
        """Load them.

        Raises:
            InputError: a path is given, and leads to nothing that fits the model.
        """
        self._device, self._named = model.device, NamedClasses.of(model.domain)
        self.skipped: dict[str, str] = {}
        self._encoders = self._load_encoders(paths.judges, model)
        self._judge = self._load_judge(paths.judges, model)
        self._inception = self._load_inception(paths.inception)
        self._detector = self._load_detector(paths.detector, model)

    @property
    def any(self) -> bool:
        """Whether anybody looks at images."""
        return any(one is not None for one in (self._encoders, self._judge, self._inception, self._detector))

    def of_captions(self, prompts: Prompts) -> dict[str, Tensor]:
        """words: int64 [B, T]; named: bool [B, C], the classes that the captions name; named_detectable: those of them
        that the detector knows; caption_vectors: [B, D], by the second encoders.
        """
        named = torch.zeros(len(prompts), len(self._named.classes), dtype=torch.bool)
        for row, tokens in enumerate(prompts.tokens):
            named[row, sorted(self._named.find(tokens))] = True
        found = {"words": prompts.batch.words, "named": named}
        if self._detector is not None:
            found["named_detectable"] = named & self._detector.known
        if self._encoders is not None:
            found["caption_vectors"] = self._encoders.of_captions(prompts)
        return found

    def of_images(self, images: Tensor, prompts: Prompts) -> dict[str, Tensor]:
        """What needs no layout, from uint8 [B, 3, S, S]: features, classes found, whether what is stated is there."""
        pixels, found = scaled(images).to(self._device), {}
        if self._encoders is not None:
            found["image_vectors"] = self._encoders.of_images(pixels)
        if self._judge is not None:
            found |= self._judge.stated(pixels, prompts, self.of_captions(prompts)["named"])
        if self._inception is not None:
            features = self._inception.features(images)
            found["inception"] = torch.from_numpy(features.pooled)
            found["inception_logits"] = torch.from_numpy(features.logits)
        if self._detector is not None:
            found["detected"] = self._detector.found(images)
        return found

    def of_objects(self, images: Tensor, layout: Layout, prompts: Prompts) -> dict[str, Tensor]:
        """Whether the true objects are there, from uint8 [B, 3, S, S] made from a layout of true boxes."""
        if self._judge is None:
            return {}
        named = self.of_captions(prompts)["named"]
        return self._judge.objects(scaled(images).to(self._device), layout, prompts, named)

    def diversity(self, images: Tensor) -> dict[str, Tensor]:
        """How much K images of one caption differ, uint8 [B, K, 3, S, S]: by pixels, and by the second encoders."""
        pixels = scaled(images)
        found = {"diversity_pixels": pixel_diversity(pixels)}
        if self._encoders is not None:
            vectors = self._encoders.of_images(pixels.flatten(0, 1).to(self._device))
            found["diversity_encoder"] = feature_diversity(vectors.unflatten(0, images.shape[:2]))
        return found

    def _load_encoders(self, folder: Path | None, model: ObjGAN) -> SecondEncoders | None:
        if folder is None:
            self.skipped["r_precision, fd_encoder, diversity_encoder"] = "no --judges, so no second encoders"
            return None
        if not folder.is_dir():
            raise InputError(f"judges: no folder {folder}; the command judges makes one")
        return SecondEncoders(folder / SECOND_ENCODERS, model)

    def _load_judge(self, folder: Path | None, model: ObjGAN) -> ObjectJudge | None:
        if folder is None or not (folder / JUDGE).is_dir():
            why = "no --judges" if folder is None else f"no {folder / JUDGE}"
            self.skipped["soa_c, soa_i, object_accuracy, colour_accuracy, scene_accuracy"] = f"{why}, so no judge"
            return None
        return ObjectJudge(folder / JUDGE, model)

    def _load_inception(self, path: Path | None) -> Inception | None:
        found = load_inception(path, self._device)
        if isinstance(found, str):
            self.skipped["fid, kid, is"] = found
            return None
        if not found.published:
            self.skipped["fid, kid, is for others"] = f"{path} is not the published file: compare among your own only"
        return found

    def _load_detector(self, path: Path | None, model: ObjGAN) -> "Detector | None":
        if path is None:
            self.skipped["soa_c_detector, soa_i_detector"] = "no --detector weights"
            return None
        # torchvision's detectors are a second of import, for those who have the weights.
        from objgan.metrics.detector import load_detector

        return load_detector(path, model.domain.classes, self._device)
