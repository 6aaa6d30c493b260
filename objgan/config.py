"""The settings of everything that shapes a model: one frozen tree, one dotted name per knob.

`images.training.generator_lr` is the `--set` key, the search-space key, the MLflow parameter and the path in
`config.json`. The branches and their defaults are in `objgan.sections`.
"""

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from objgan.errors import InputError, did_you_mean, nearest, shown
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
_SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<", MultipleOf: "a multiple of"}
_BOUNDS = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MultipleOf: "multiple_of"}
_TYPES = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", types.NoneType: "null"}
_EXAMPLES = {"integer": "4", "number": "0.5", "path": "folder/file"}


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

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are trained: without `shapes` if `data.shapes` stands in for masks."""
        return tuple(stage for stage in STAGES if stage != "shapes" or self.data.shapes == "masks")

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
        faults = error.errors(include_url=False)
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError("settings: " + "; ".join(map(_explain, faults[:_MOST_FAULTS])) + more) from None


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


def form_of(field: FieldInfo) -> str:
    """Type and bounds of a setting, for people: `integer, ≥ 1`."""
    bounds = [
        f"{_SIGNS[type(item)]} {getattr(item, _BOUNDS[type(item)])}" for item in field.metadata if type(item) in _SIGNS
    ]
    return ", ".join([_type(field.annotation), *bounds])


def value_text(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)


def nearest_setting(name: str) -> str | None:
    """The setting or section that a misspelt dotted name means: part by part, by similarity or by its end (`lr`)."""
    known, path = list(flatten(Config())), ""
    for part in name.split(".")[:8]:
        here = list(dict.fromkeys(other[len(path) :].split(".")[0] for other in known if other.startswith(path)))
        near = part if part in here else nearest(part, here)
        near = near or next((other for other in here if other.endswith(f"_{part}")), None)
        if near is None:
            last = name.rsplit(".", 1)[-1]
            return nearest(name, known) or next((other for other in known if other.endswith(f".{last}")), None)
        path += f"{near}."
    return path[:-1]


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    return f"list of {_type(arguments[0])}s" if origin is tuple else _TYPES[annotation]


def _explain(item: Any) -> str:
    name, value, kind = _dotted(item["loc"]), item["input"], item["type"]
    if kind == "extra_forbidden":
        while isinstance(value, Mapping) and value:
            part, value = next(iter(value.items()))
            name += f".{_dotted([part])}"
        near = nearest_setting(name)
        return f"unknown setting {name}" + (f": did you mean {near}?" if near else " (docs/settings.md lists all)")
    if kind.endswith(("_type", "_parsing")) or kind in ("int_from_float", "literal_error"):
        return _wrong_form(item["loc"], value)
    message = item["msg"].removeprefix("Value error, ")
    return (
        f"{name}: {message} (got {shown(value)})"
        if name and not isinstance(value, dict)
        else f"{name}: {message}".removeprefix(": ")
    )


def _dotted(parts: Any) -> str:
    return ".".join(shown(str(part), 60)[1:-1] for part in parts)


def _wrong_form(path: tuple[int | str, ...], value: Any) -> str:
    """The form that a setting takes, with an example; of a section, one of its settings."""
    section: Any = Config
    for depth, part in enumerate(path):
        field = section.model_fields[part]
        name = _dotted(path[: depth + 1])
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            example = value_text(field.default).replace(", ", ",")
            example = _EXAMPLES.get(_type(section).split(" ")[0], example) if example == "null" else example
            meant = did_you_mean(value, typing.get_args(section)) if typing.get_origin(section) is Literal else ""
            return f"{name}: got {shown(value)};{meant} expected {form_of(field)}, for example {example}"
    inner = next(iter(flatten(section().model_dump(mode="json") if path else {}, f"{_dotted(path)}.")), "seed")
    return f"{_dotted(path) or 'settings'}: got {shown(value)}; expected a section, for example {inner}=..."
