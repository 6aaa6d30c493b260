"""Held-out measures of stage `images` while it trains, by judges that no generator is trained with.

They are the metrics of `evaluate` in the row of images from true layouts, which the stage generates. A name has no
protocol at its end, because the images are the first `validation_samples` of a split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from objgan.checkpoint import read_state
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import NETWORKS, build_network
from objgan.stages.base import Stage
from pipelines.evaluation.captions_and_layouts import row_reader
from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS, JudgePaths, Judges
from pipelines.evaluation.protocols import FROM_LAYOUTS, Protocol
from pipelines.evaluation.rows import RowMeasurer
from pipelines.evaluation.scores import SampleMetrics, score
from pipelines.evaluation.synthesis import Synthesis, read_prompts
from pipelines.training.job import VALIDATION_BATCH, OpenRun, identity

STAGE = "images"
_POOLED = f"{FROM_LAYOUTS}/r_precision"
_BY_ENCODERS: Mapping[str, Literal["max", "min"]] = {_POOLED: "max", f"{FROM_LAYOUTS}/fd_encoder": "min"}
_COLOURS = tuple(f"{FROM_LAYOUTS}/{name}" for name in ("colour_accuracy", "told_colour_accuracy", "scene_accuracy"))
_OBJECTS = tuple(f"{FROM_LAYOUTS}/{name}" for name in ("object_accuracy", "soa_c", "soa_i"))
MEASURES: Mapping[str, Literal["max", "min"]] = {**_BY_ENCODERS, **dict.fromkeys((*_OBJECTS, *_COLOURS), "max")}
"""The measures that a sweep may improve, and which way is better."""


@dataclass(frozen=True)
class ImageJudges:
    """The judges in `folder`, as the command `judges` writes them (`pipelines.training.job.HeldOutJudges`)."""

    folder: Path

    def identity(self) -> Mapping[str, str]:
        """See `HeldOutJudges`."""
        return {name: identity(self.folder / name) for name in self._names()}

    def lacking(self, run: OpenRun) -> dict[str, str]:
        """The measures of `MEASURES` that this run does not have, and the reason."""
        reasons = {}
        pool, images = Protocol("").pool, _protocol(run, "validation").limit(len(run.reader("validation")))
        if images < pool:
            reasons[_POOLED] = f"a pool of {pool} captions needs {pool} validation images; there are {images}"
        if JUDGE not in self._names():
            reasons |= dict.fromkeys((*_OBJECTS, *_COLOURS), f"{self.folder} has no folder {JUDGE}")
        elif not run.data.manifest["columns"].get("attributes", False):
            reasons |= dict.fromkeys(_COLOURS, f"{run.data} has no colours and scenes")
        return reasons

    def check(self, run: OpenRun) -> None:
        """See `HeldOutJudges`. It reads no weights."""
        if run.job.stage != STAGE:
            raise InputError(f"judges: they measure images, and stage {run.job.stage} makes none")
        if not self.folder.is_dir():
            raise InputError(f"judges: no folder {self.folder}; train judges with the command judges")
        for name, stage in self._names().items():
            folder = self.folder / name
            facts = read_state(folder)
            if facts["stage"] != stage:
                raise InputError(f"judges: {folder} is of stage {facts['stage']}, not {stage}")
            if Domain.load(folder / "domain").classes != run.domain().classes:
                raise InputError(f"judges: {folder} has other classes than {run.data}: train judges on these data")
            if any(read_state(need)["sha256"] == facts["sha256"] for need in run.job.needs.values()):
                raise InputError(f"judges: {folder} are the encoders of the training itself: train others with judges")

    def open(self, run: OpenRun, stage: Stage, split: str = "validation") -> "OpenImageJudges":
        """See `HeldOutJudges`."""
        return OpenImageJudges(self.folder, run, stage, split)

    def _names(self) -> dict[str, str]:
        """The judges there are, and the stage of each. There is always one of `SECOND_ENCODERS`."""
        judge = {JUDGE: "judge"} if (self.folder / JUDGE).is_dir() else {}
        return {SECOND_ENCODERS: "encoders", **judge}


class OpenImageJudges:
    """Loaded judges and the prompts of a split (`pipelines.training.job.OpenJudges`)."""

    def __init__(self, folder: Path, run: OpenRun, stage: Stage, split: str) -> None:
        config = run.job.config
        self._model = _model(stage)
        self._reader = row_reader(run.data, split, config)
        protocol = _protocol(run, split)
        self._places = protocol.places(len(self._reader))
        judges, synthesis = Judges(JudgePaths(folder), self._model), Synthesis(self._model, config.seed)
        self._rows = RowMeasurer(synthesis, judges, protocol)
        self.batches = -(-len(self._places) // VALIDATION_BATCH)
        self._true: dict[int, dict[str, Tensor]] = {}  # by batch: they do not change while the stage is trained

    def measure(self, stage: Stage, number: int) -> SampleMetrics:
        """See `OpenJudges`."""
        # The averages while the stage is evaluated, which are other modules than the trained networks.
        self._model.networks["image_generator"] = stage.networks["image_generator"]
        places = self._places[number * VALIDATION_BATCH : (number + 1) * VALIDATION_BATCH]
        prompts = read_prompts(self._reader, places, self._seed, self._model.domain.vocabulary.words)
        prompts = replace(prompts, batch=prompts.batch.to(self._model.device))
        samples = SampleMetrics()
        if number not in self._true:
            self._true[number] = self._rows.true_images(prompts)
        samples.add(self._rows.from_layouts(prompts) | self._true[number], prompts.keys)
        return samples

    def scores(self, parts: Sequence[SampleMetrics]) -> dict[str, float]:
        """See `OpenJudges`."""
        protocol = self._rows.protocol
        scores, _ = score(SampleMetrics.join(parts), protocol, self._seed, resample=False)
        named = {name.removesuffix(f"_{protocol.name}"): entry.value for name, entry in scores.items()}
        return {name: value for name, value in named.items() if name.startswith(f"{FROM_LAYOUTS}/")}

    @property
    def _seed(self) -> int:
        return self._rows.synthesis.seed


def _protocol(run: OpenRun, split: str) -> Protocol:
    return Protocol("held_out", split, run.job.training.validation_samples)


def _model(stage: Stage) -> ObjGAN:
    """A model of the stage's helpers; its other networks are untrained, and `measure` sets the image generator."""
    networks = {
        name: stage.helpers[name] if name in stage.helpers else build_network(name, stage.config, stage.domain)
        for name in NETWORKS
    }
    return ObjGAN(stage.config, stage.domain, networks).to(next(stage.parameters()).device)
