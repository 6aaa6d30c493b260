"""The four stages of training, by name, the networks that a finished model keeps of them, and the judge's stage."""

from collections.abc import Callable, Mapping

from torch import nn

from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import unknown
from objgan.stages.base import Stage
from objgan.stages.boxes import BoxesStage, build_box_generator
from objgan.stages.encoders import EncodersStage, build_image_encoder, build_text_encoder
from objgan.stages.images import ImagesStage, build_image_generator
from objgan.stages.judge import JudgeStage, build_judge
from objgan.stages.shapes import ShapesStage, build_shape_generator

STAGE_CLASSES: dict[str, type[Stage]] = {cls.name: cls for cls in (EncodersStage, BoxesStage, ShapesStage, ImagesStage)}
"""Those that a model is made of."""
_ALL_STAGES: dict[str, type[Stage]] = STAGE_CLASSES | {JudgeStage.name: JudgeStage}

_BUILDERS: dict[str, Callable[[Config, Domain], nn.Module]] = {
    "text_encoder": build_text_encoder,
    "image_encoder": build_image_encoder,
    "box_generator": build_box_generator,
    "shape_generator": build_shape_generator,
    "image_generator": build_image_generator,
}
NETWORKS = tuple(_BUILDERS)
_ALL_BUILDERS = _BUILDERS | {"judge": build_judge}


def stage_class(name: str) -> type[Stage]:
    """The class of a stage, of the four or the judge's.

    Raises:
        InputError: no stage has this name.
    """
    if name not in _ALL_STAGES:
        raise unknown("stage", name, _ALL_STAGES)
    return _ALL_STAGES[name]


def build_stage(name: str, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> Stage:
    """A new stage, weights drawn from torch's global RNG; `helpers` are earlier stages' networks by name."""
    return stage_class(name)(config, domain, helpers)


def build_network(name: str, config: Config, domain: Domain) -> nn.Module:
    """One network of a finished model (`NETWORKS`), or "judge", freshly initialised."""
    return _ALL_BUILDERS[name](config, domain)
