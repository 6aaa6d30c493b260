"""YAML that people write, read by one loader: settings, single values, search spaces."""

from pathlib import Path
from typing import Any

import yaml

from objgan.errors import InputError

MOST_NESTED = 32
MOST_BYTES = 1 << 20
MOST_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, what: str) -> tuple[str, Any]:
    """The text and the value of a YAML file. `what`: names the option in the error.

    Raises:
        InputError: it cannot be read, is larger than a person writes, or see `parse_yaml`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{what}: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: cannot read {path} (not UTF-8)") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{what}: {path} has more than {MOST_BYTES >> 20} MiB, which are no settings")
    return text, parse_yaml(text, f"{what} {path}")


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. `where`: what messages begin with.

    Raises:
        InputError: not YAML; a key twice, of which YAML would keep the last; nested too deeply, or in itself.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(where, loader).look(node, "", 0)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {_brief(error)}") from None
    except RecursionError:
        raise InputError(f"{where}: nested more than {MOST_NESTED} deep") from None
    except InputError:
        raise
    except ValueError as error:  # a 13th month
        raise InputError(f"{where}: a value cannot be read ({error})") from None


class _Check:
    """Looks for keys that are there twice, at any depth, and for more values than anybody writes."""

    def __init__(self, where: str, loader: yaml.SafeLoader) -> None:
        self._where, self._loader = where, loader
        self._sizes: dict[int, int] = {}

    def look(self, node: yaml.Node, name: str, depth: int) -> int:
        """Check a part, whose dotted name is `name`; how many values it has, those of its aliases included.

        An alias of a part that is around it never ends: it is nested too deeply.
        """
        if depth > MOST_NESTED:
            raise InputError(f"{self._where}: nested more than {MOST_NESTED} deep (line {node.start_mark.line + 1})")
        if id(node) not in self._sizes:
            parts = self._parts(node, name)
            size = 1 + sum(self.look(part, own, depth + 1) for part, own in parts)
            if size > MOST_VALUES:
                raise InputError(f"{self._where}: aliases make more than {MOST_VALUES} values of it")
            self._sizes[id(node)] = size
        return self._sizes[id(node)]

    def _parts(self, node: yaml.Node, name: str) -> list[tuple[yaml.Node, str]]:
        """What is in a list or a mapping, with its dotted name."""
        if isinstance(node, yaml.SequenceNode):
            return [(part, name) for part in node.value]
        if not isinstance(node, yaml.MappingNode):
            return []
        parts, lines = [], dict[Any, int]()
        for key, value in node.value:
            own = f"{name}.{key.value}".lstrip(".") if isinstance(key, yaml.ScalarNode) else name
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                same = self._loader.construct_object(key)
                line = key.start_mark.line + 1
                if same in lines:
                    where = f"lines {lines[same]} and {line}" if lines[same] != line else f"line {line}"
                    raise InputError(f"{self._where}: {own} is there twice ({where}): keep one, with all that it holds")
                lines[same] = line
            parts.append((value, own))
        return parts


def _brief(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"not YAML ({error})"
    return f"line {mark.line + 1} is not YAML ({getattr(error, 'problem', None) or 'cannot be read'})"
