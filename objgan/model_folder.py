"""The folder of a finished model: JSON and safetensors, nothing pickled.

```
model.json          format, objgan's version, sha256 of each file below, what it was made of
config.json         the resolved settings; networks are rebuilt from these, never from today's defaults
domain/             vocabulary, classes, layout statistics
networks/           text_encoder, image_encoder, box_generator, shape_generator, image_generator (.safetensors)
```
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import objgan
from objgan.checkpoint import build_networks, read_config, save_network
from objgan.config import Config, config_to_json
from objgan.domain import DOMAIN_FILES, Domain
from objgan.errors import InputError
from objgan.files import check_sums, folder_aside, read_json, sha256, write_atomically
from objgan.stages import NETWORKS

FORMAT = 1
_FILES = re.compile(rf"config\.json|domain/({DOMAIN_FILES})|networks/({'|'.join(NETWORKS)})\.safetensors")


@dataclass(frozen=True)
class ModelParts:
    """What a model is made of; networks by the names in `objgan.stages.NETWORKS`."""

    config: Config
    domain: Domain
    networks: Mapping[str, nn.Module]


def write_model(folder: Path, parts: ModelParts, sources: Mapping[str, Any] | None = None) -> None:
    """Write a model's folder, whole or not at all; `sources` (JSON) says what it was made of."""
    with folder_aside(folder) as aside:
        write_atomically(aside / "config.json", config_to_json(parts.config))
        parts.domain.save(aside / "domain")
        for name in NETWORKS:
            save_network(aside / "networks" / f"{name}.safetensors", parts.networks[name])
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        facts = {
            "format": FORMAT,
            "objgan": objgan.__version__,
            "sha256": {path.relative_to(aside).as_posix(): sha256(path) for path in files},
            "sources": dict(sources or {}),
        }
        write_atomically(aside / "model.json", json.dumps(facts, indent=1) + "\n")


def read_model(folder: Path) -> ModelParts:
    """Read what `write_model` wrote, networks on the CPU.

    Raises:
        InputError: no model there, of a newer format, or with a missing or changed file.
    """
    read_facts(folder)
    config, domain = read_config(folder), Domain.load(folder / "domain")
    files = {name: folder / "networks" / f"{name}.safetensors" for name in NETWORKS}
    return ModelParts(config, domain, build_networks(config, domain, files))


def only_model(folder: Path, shown: str) -> Path:
    """The one model's folder in `folder`: what an MLflow model or a run holds. Messages name it `shown`.

    Raises:
        InputError: none, or several.
    """
    found = sorted(path.parent for path in folder.rglob("model.json"))
    if len(found) != 1:
        raise InputError(f"model {shown} holds {len(found) or 'no'} model folders: give one model's address")
    return found[0]


def read_facts(folder: Path) -> dict[str, Any]:
    """`model.json` of a model's folder, whose files are checked against their sums.

    Raises:
        InputError: no model there, of a newer format, or with a missing or changed file, or one without a sum.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(f"model: no file {path}; give the folder that holds a finished model")
    facts = read_json(path, "model")
    if not isinstance(facts, dict) or type(facts.get("format")) is not int:
        raise InputError(f"model: {path} is not a model's model.json")
    if facts["format"] > FORMAT:
        raise InputError(f"model: {folder} has format {facts['format']}, newer than {FORMAT}: update objgan")
    check_sums(folder, facts.get("sha256"), _FILES, "model")
    return facts
