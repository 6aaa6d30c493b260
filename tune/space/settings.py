"""Settings by dotted name over a tree of settings."""

from collections.abc import Mapping
from typing import Any

from objgan.config import Config, build_config
from pipelines.recipes import merge


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The tree with other values by dotted name; a length in steps takes the place of one in epochs.

    Raises:
        InputError: an unknown setting, or a value or combination that objgan refuses.
    """
    values = config.model_dump()
    for name, value in settings.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        merge(values, nested)
    return build_config(values)
