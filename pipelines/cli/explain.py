"""Explains settings: `python -m pipelines explain`, and the page `docs/settings.md`."""

import argparse
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from objgan.config import Config, flatten
from objgan.errors import InputError
from objgan.sections import Section
from pipelines.recipes import RECIPES, resolve
from pipelines.runtime.console import say

_SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<", MultipleOf: "a multiple of"}
_BOUNDS = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MultipleOf: "multiple_of"}
_INTRODUCTION = """\
# Settings

Every setting has one dotted name. The name is the key of `--set NAME=VALUE`, the path in a YAML file for `--config` and
in `config.json`, the key of a search space and the MLflow parameter. Defaults are the published figures. The last
column lists the values of recipes that differ from the default.

`python -m pipelines explain --markdown > docs/settings.md` writes this page from the descriptions in
`objgan/sections.py` and `objgan/image_sections.py`.
"""


@dataclass(frozen=True)
class Setting:
    """One leaf of the settings tree.

    name:    dotted, `images.training.generator_lr`
    kind:    type and bounds, for people
    recipes: recipe -> its value, where it differs from the default
    """

    name: str
    kind: str
    default: str
    description: str
    recipes: dict[str, str]


def explain(options: argparse.Namespace) -> None:
    """Print the settings whose dotted name starts with `options.name`.

    Raises:
        InputError: no setting has such a name.
    """
    wanted = [item for item in all_settings() if _is_under(item.name, options.name)]
    if not wanted:
        raise InputError(f"no setting is named {options.name}; `python -m pipelines explain` lists all of them")
    say(markdown(wanted).rstrip() if options.markdown else "\n".join(map(_line, wanted)))


def all_settings() -> list[Setting]:
    """Every setting, in the tree's order."""
    recipes = {name: flatten(resolve(name, None, [])) for name in RECIPES}
    return list(_walk(Config, recipes, ""))


def markdown(listed: list[Setting]) -> str:
    """The page: a table for each section."""
    parts, section = [_INTRODUCTION], None
    for item in listed:
        if (parent := item.name.rpartition(".")[0]) != section:
            section = parent
            parts.append(f"\n## {section or 'General'}\n\n{_HEAD}")
        cells = (f"`{item.name}`", item.kind, f"`{item.default}`", item.description, _recipes(item))
        parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


_HEAD = "| setting | type | default | description | recipes |\n| --- | --- | --- | --- | --- |\n"


def _walk(section: type[BaseModel], recipes: dict[str, dict[str, Any]], prefix: str) -> Iterator[Setting]:
    """Leaves before branches, so that a branch's own settings stand together."""
    branches = []
    for key, field in section.model_fields.items():
        name = prefix + key
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            branches.append((field.annotation, name))
            continue
        default = _text(field.default)
        changed = {recipe: _text(values[name]) for recipe, values in recipes.items()}
        changed = {recipe: text for recipe, text in changed.items() if text != default}
        yield Setting(name, _kind(field), default, _description(section, key), changed)
    for branch, name in branches:
        yield from _walk(branch, recipes, f"{name}.")


def _description(section: type[BaseModel], key: str) -> str:
    """The field's own description, or that of the field which it redefines."""
    for base in section.__mro__:
        field = getattr(base, "model_fields", {}).get(key)
        if field is not None and field.description:
            return str(field.description)
    return ""


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{_SIGNS[type(item)]} {getattr(item, _BOUNDS[type(item)])}" for item in field.metadata if type(item) in _SIGNS
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    """The type for people: `integer or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", types.NoneType: "null"}
    return names[annotation]


def _text(value: Any) -> str:
    """As `--set` takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)


def _recipes(item: Setting) -> str:
    return ", ".join(f"{recipe} `{value}`" for recipe, value in item.recipes.items())


def _line(item: Setting) -> str:
    changed = ", ".join(f"{recipe}: {value}" for recipe, value in item.recipes.items())
    return f"{item.name} = {item.default}  ({item.kind})\n    {item.description}{changed and f' [{changed}]'}"


def _is_under(name: str, wanted: str) -> bool:
    return not wanted or name == wanted or name.startswith(f"{wanted}.")
