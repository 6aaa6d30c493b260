"""The folder of a finished model: JSON and safetensors, nothing pickled.

```
model.json          format, objgan's version, sha256 of each file below, what it was made of
config.json         the resolved settings; networks are rebuilt from these, never from today's defaults
domain/             vocabulary, classes, layout statistics
networks/           text_encoder, image_encoder, box_generator, shape_generator, image_generator (.safetensors)
```
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import objgan
from objgan.checkpoint import load_network, read_config, save_network
from objgan.config import Config, config_to_json
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import folder_aside, read_json, sha256, write_atomically
from objgan.stages import NETWORKS, build_network

FORMAT = 1


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
    _check_files(folder)
    config, domain = read_config(folder), Domain.load(folder / "domain")
    networks = {name: build_network(name, config, domain) for name in NETWORKS}
    for name, network in networks.items():
        load_network(folder / "networks" / f"{name}.safetensors", network)
    return ModelParts(config, domain, networks)


def _check_files(folder: Path) -> None:
    if not (folder / "model.json").is_file():
        raise InputError(f"model: no {folder / 'model.json'}; give the folder that holds a finished model")
    facts = read_json(folder / "model.json", "model")
    if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), dict):
        raise InputError(f"model: {folder / 'model.json'} is not a model's model.json")
    if facts.get("format", 0) > FORMAT:
        raise InputError(f"model: {folder} has format {facts['format']}, newer than {FORMAT}: update objgan")
    for name, expected in facts["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"model: {path} is missing: take another copy of the model")
        if sha256(path) != expected:
            raise InputError(f"model: {path} was changed after it was written: take another copy of the model")
