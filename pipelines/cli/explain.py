"""Explains settings: `python -m pipelines explain`, and the page `docs/settings.md`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from objgan.config import Config, flatten, form_of, nearest_setting, value_text
from objgan.errors import InputError
from objgan.sections import Section
from pipelines.cli.options import ExplainOptions
from pipelines.recipes import RECIPES, resolve
from pipelines.runtime.console import say

_INTRODUCTION = """\
# Settings

Every setting has one dotted name. The name is the key of `--set NAME=VALUE`, the path in a YAML file for `--config`
and in `config.json`, the key of a search space and the MLflow parameter. Defaults are the published figures. The last
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


def explain(options: ExplainOptions) -> None:
    """Print the settings whose dotted name starts with `options.name`.

    Raises:
        InputError: no setting has such a name.
    """
    wanted = [item for item in all_settings() if _is_under(item.name, options.name)]
    if not wanted:
        near = nearest_setting(options.name)
        meant = f"did you mean {near}?" if near else "`python -m pipelines explain` lists all settings"
        raise InputError(f"no setting is named {options.name}: {meant}")
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
        default = value_text(field.default)
        changed = {recipe: value_text(values[name]) for recipe, values in recipes.items()}
        changed = {recipe: text for recipe, text in changed.items() if text != default}
        yield Setting(name, form_of(field), default, _description(section, key), changed)
    for branch, name in branches:
        yield from _walk(branch, recipes, f"{name}.")


def _description(section: type[BaseModel], key: str) -> str:
    """The field's own description, or that of the field which it redefines."""
    for base in section.__mro__:
        field = getattr(base, "model_fields", {}).get(key)
        if field is not None and field.description:
            return str(field.description)
    return ""


def _recipes(item: Setting) -> str:
    return ", ".join(f"{recipe} `{value}`" for recipe, value in item.recipes.items())


def _line(item: Setting) -> str:
    changed = ", ".join(f"{recipe}: {value}" for recipe, value in item.recipes.items())
    return f"{item.name} = {item.default}  ({item.kind})\n    {item.description}{changed and f' [{changed}]'}"


def _is_under(name: str, wanted: str) -> bool:
    return not wanted or name == wanted or name.startswith(f"{wanted}.")
