"""The settings of everything that shapes a model: one frozen tree, one dotted name per knob.

`images.training.generator_lr` is the `--set` key, the search-space key, the MLflow parameter and the path in
`config.json`. The branches and their defaults are in `objgan.sections`.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from objgan.errors import InputError, shown
from objgan.image_sections import ImagesConfig
from objgan.sections import (
    BoxesConfig,
    ComputeConfig,
    DataConfig,
    EncodersConfig,
    JudgeConfig,
    Section,
    ShapesConfig,
)

STAGES = ("encoders", "boxes", "shapes", "images")
_MOST_FAULTS = 8


class Config(Section):
    """The resolved tree: what a run, a checkpoint and a registered model carry as `config.json`."""

    recipe: str = Field("paper", max_length=200, description="name of the recipe that the other settings started from")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of initial weights, noise and the order of samples")
    data: DataConfig = DataConfig()
    encoders: EncodersConfig = EncodersConfig()
    boxes: BoxesConfig = BoxesConfig()
    shapes: ShapesConfig = ShapesConfig()
    images: ImagesConfig = ImagesConfig()
    judge: JudgeConfig = JudgeConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.data.image_size < self.images.sizes[-1]:
            raise ValueError(
                f"data.image_size {self.data.image_size} is under images.sizes[-1] {self.images.sizes[-1]}: "
                f"store larger images"
            )
        for stage in STAGES:
            words = getattr(self, stage).training.max_words
            if words > self.data.max_words:
                raise ValueError(f"{stage}.training.max_words {words} is over data.max_words {self.data.max_words}")
        return self


def build_config(values: Mapping[str, Any]) -> Config:
    """The tree from nested values, defaults elsewhere.

    Raises:
        InputError: names every offending setting by its dotted name.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [_explain(item) for item in error.errors(include_url=False)]
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError("settings: " + "; ".join(faults[:_MOST_FAULTS]) + more) from None


def flatten(config: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value, in the tree's order."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(ours: BaseModel, theirs: BaseModel) -> list[str]:
    """`name: ours -> theirs` for every setting that differs."""
    a, b = flatten(ours), flatten(theirs)
    return [f"{name}: {a.get(name)} -> {b.get(name)}" for name in a | b if a.get(name) != b.get(name)]


def config_to_json(config: Config) -> str:
    """The text of `config.json`."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def _explain(item: Any) -> str:
    name = ".".join(shown(str(part), 60)[1:-1] for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown setting {name}"
    message = item["msg"].removeprefix("Value error, ")
    return (
        f"{name}: {message} (got {shown(item['input'])})"
        if name and not isinstance(item["input"], dict)
        else f"{name}: {message}".removeprefix(": ")
    )
