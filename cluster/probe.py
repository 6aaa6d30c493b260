"""Runs on the cluster, as a job, before the real one: its nodes, their versions, and whether they share storage.

`python -m cluster.probe [LOCATION]` prints one line, `PROBE {json}`. Nothing here needs a CPU of the cluster.
"""

import contextlib
import json
import os
import platform
import secrets
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MARK = "PROBE "
_NODE_S = 25.0
_SEEN_S = 5.0
"""Seconds after which a file must be visible elsewhere; NFS caches folders for some."""


def main(arguments: list[str]) -> int:
    """Ask every node, and print what they say."""
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    location = arguments[0] if arguments else ""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: "node:__internal_head__" in node["Resources"], reverse=True)
    found = [{"name": f"{node['NodeName']} ({node['NodeID'][:8]})"} for node in nodes]
    name = f".objgan-check-{secrets.token_hex(8)}"
    first = _ask(nodes[:1], location, name, True)
    others = _ask(nodes[1:], location, name, False)
    if location:
        with contextlib.suppress(Exception):
            _remove(location, name)
    for facts, told in zip(found, [*first, *others], strict=True):
        facts.update(told)
    print(MARK + json.dumps({"resources": ray.cluster_resources(), "nodes": found}), flush=True)
    return 0


def _ask(nodes: list[dict[str, Any]], location: str, name: str, write: bool) -> list[dict[str, Any]]:
    """What each node says; a node that says nothing says so."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            location, name, write
        )
        for node in nodes
    ]
    end, told = time.monotonic() + _NODE_S, []
    for one in asked:
        try:
            told.append(ray.get(one, timeout=max(0.1, end - time.monotonic())))
        except Exception as error:
            told.append({"silent": (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]})
    return told


def look(location: str, name: str, write: bool) -> dict[str, Any]:
    """On a node: its versions, and whether it can write or read the file `name` in storage."""
    facts: dict[str, Any] = {"versions": versions()}
    if location:
        try:
            facts["storage"] = _write(location, name) if write else _read(location, name)
        except Exception as error:
            facts["storage"] = " ".join(str(error).split())[:200] or type(error).__name__
    return facts


def versions() -> dict[str, str]:
    """Of what must be the same on all nodes; of torch without the build's name (+cpu, +cu128)."""
    found = {"python": platform.python_version()}
    for package in ("ray", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package).partition("+")[0]
    return found


def _write(location: str, name: str) -> str:
    """Empty if all is well."""
    if "://" not in location:
        folder = Path(location)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("x") as file:
            file.write(name)
            os.fsync(file.fileno())
        return ""
    system, path = _opened(location)
    system.create_dir(path, recursive=True)
    with system.open_output_stream(f"{path}/{name}") as stream:
        stream.write(name.encode())
    return ""


def _read(location: str, name: str) -> str:
    """Empty if the file is there."""
    end = time.monotonic() + _SEEN_S
    while True:
        try:
            if "://" not in location:
                there = (Path(location) / name).read_text()
            else:
                system, path = _opened(location)
                with system.open_input_stream(f"{path}/{name}") as stream:
                    there = stream.read().decode()
            if there == name:
                return ""
        except FileNotFoundError:
            pass
        if time.monotonic() > end:
            return "does not see what the head wrote"
        time.sleep(0.5)


def _remove(location: str, name: str) -> None:
    if "://" not in location:
        (Path(location) / name).unlink(missing_ok=True)
    else:
        system, path = _opened(location)
        system.delete_file(f"{path}/{name}")


def _opened(location: str) -> tuple[Any, str]:
    import pyarrow.fs

    system, path = pyarrow.fs.FileSystem.from_uri(location)
    return system, path.rstrip("/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
