"""The judges of generated images: second encoders, a judge of objects, Inception, a detector. Each is optional."""

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
from pipelines.evaluation.inception import NO_WEIGHTS, Inception
from pipelines.evaluation.synthesis import Prompts, scaled
from pipelines.evaluation.trained_judges import ObjectJudge, SecondEncoders

if TYPE_CHECKING:
    from objgan.metrics.detector import Detector

SECOND_ENCODERS, JUDGE = "second_encoders", "judge"


@dataclass(frozen=True)
class JudgePaths:
    """Locations of the judges; None: no such judge.

    judges:    folder of the checkpoints `second_encoders` and `judge`, as the command `judges` writes it
    inception: Inception's weights
    detector:  weights of a Faster R-CNN for COCO
    """

    judges: Path | None = None
    inception: Path | None = None
    detector: Path | None = None

    def absolute(self) -> "JudgePaths":
        """The same paths, valid in any working directory."""
        return JudgePaths(*(path and path.resolve() for path in (self.judges, self.inception, self.detector)))


class Judges:
    """The judges at these paths, on the model's device. `skipped`: metrics without a judge, and the reason."""

    def __init__(self, paths: JudgePaths, model: ObjGAN) -> None:
        """Load them.

        Raises:
            InputError: a path has no judge that fits the model.
        """
        self._device, self._named = model.device, NamedClasses.of(model.domain)
        self.skipped: dict[str, str] = {}
        self._encoders = self._load_encoders(paths.judges, model)
        self._judge = self._load_judge(paths.judges, model)
        self._inception = self._load_inception(paths.inception)
        self._detector = self._load_detector(paths.detector, model)

    @property
    def any(self) -> bool:
        """Whether any judge is given."""
        return any(judge is not None for judge in (self._encoders, self._judge, self._inception, self._detector))

    def named(self, prompts: Prompts) -> Tensor:
        """bool [B, C]: the classes that the captions name."""
        named = torch.zeros(len(prompts), len(self._named.classes), dtype=torch.bool)
        for row, tokens in enumerate(prompts.tokens):
            named[row, sorted(self._named.find(tokens))] = True
        return named

    def of_captions(self, prompts: Prompts) -> dict[str, Tensor]:
        """words: int64 [B, T]; named: bool [B, C], see `named`; named_detectable: the same for the detector's classes;
        caption_vectors: [B, D], by the second encoders.
        """
        metrics = {"words": prompts.batch.words, "named": self.named(prompts)}
        if self._detector is not None:
            metrics["named_detectable"] = metrics["named"] & self._detector.known
        if self._encoders is not None:
            metrics["caption_vectors"] = self._encoders.of_captions(prompts)
        return metrics

    def of_images(self, images: Tensor, prompts: Prompts, layout: Layout | None = None) -> dict[str, Tensor]:
        """Features, classes and accuracies of images, uint8 [B, 3, S, S].

        layout: of true boxes, from which the images were made; adds the accuracies of its objects
        """
        pixels, metrics = scaled(images).to(self._device), {}
        if self._encoders is not None:
            metrics["image_vectors"] = self._encoders.of_images(pixels)
        if self._judge is not None:
            metrics |= self._judge.measure(pixels, prompts, self.named(prompts), layout)
        if self._inception is not None:
            metrics["inception"], metrics["inception_logits"] = self._inception.features(images)
        if self._detector is not None:
            metrics["detected"] = self._detector.found(images)
        return metrics

    def diversity(self, images: Tensor) -> dict[str, Tensor]:
        """Difference among K images of each caption, uint8 [B, K, 3, S, S]: by pixels and by the second encoders."""
        pixels = scaled(images)
        metrics = {"diversity_pixels": pixel_diversity(pixels)}
        if self._encoders is not None:
            vectors = self._encoders.of_images(pixels.flatten(0, 1).to(self._device))
            metrics["diversity_encoder"] = feature_diversity(vectors.unflatten(0, images.shape[:2]))
        return metrics

    def _load_encoders(self, folder: Path | None, model: ObjGAN) -> SecondEncoders | None:
        if folder is None:
            self.skipped["r_precision, fd_encoder, diversity_encoder"] = "no --judges, so no second encoders"
            return None
        if not folder.is_dir():
            raise InputError(f"judges: no folder {folder}; train judges with the command judges")
        return SecondEncoders(folder / SECOND_ENCODERS, model)

    def _load_judge(self, folder: Path | None, model: ObjGAN) -> ObjectJudge | None:
        if folder is None or not (folder / JUDGE).is_dir():
            reason = "no --judges" if folder is None else f"no {folder / JUDGE}"
            self.skipped["soa_c, soa_i, object_accuracy, colour_accuracy, scene_accuracy"] = f"{reason}, so no judge"
            return None
        return ObjectJudge(folder / JUDGE, model)

    def _load_inception(self, path: Path | None) -> Inception | None:
        if path is None:
            self.skipped["fid, kid, is"] = NO_WEIGHTS
            return None
        inception = Inception(path, self._device)
        if not inception.published:
            self.skipped["comparison of fid, kid, is with papers"] = f"{path} is not the published file"
        return inception

    def _load_detector(self, path: Path | None, model: ObjGAN) -> "Detector | None":
        if path is None:
            self.skipped["soa_c_detector, soa_i_detector"] = "no --detector weights"
            return None
        # torchvision's detectors take a second to import.
        from objgan.metrics.detector import load_detector

        return load_detector(path, model.domain.classes, self._device)
