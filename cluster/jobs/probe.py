"""Runs on the cluster, as a job, before the real one: its nodes, their versions, and whether they share storage.

`python -m cluster.jobs.probe [--seconds S] [LOCATION]` prints one line, `PROBE {json}`. Nothing here needs a CPU of the
cluster.
"""

import argparse
import contextlib
import json
import os
import platform
import secrets
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MARK = "PROBE "
_NODE_S = 25.0
_REMOVE_S = 10.0
"""Ray kills a job that it asked to stop after `RAY_JOB_STOP_WAIT_TIME_S`: 120 s here, 3 s by default."""
_SEEN_S = 5.0
"""Seconds after which a file must be visible elsewhere; NFS caches folders for some."""


def main(arguments: list[str]) -> int:
    """Ask every node, and print what they say; what was written is removed, also when the job is stopped."""
    import ray

    parser = argparse.ArgumentParser(prog="python -m cluster.jobs.probe", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_NODE_S, help="for the answers of all nodes")
    parser.add_argument("location", nargs="?", default="")
    options = parser.parse_args(arguments)
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    # Ray takes SIGTERM for itself, and would end this process on the spot.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: "node:__internal_head__" in node["Resources"], reverse=True)
    name = f".objgan-check-{secrets.token_hex(8)}"
    new = _missing_folders(options.location)
    try:
        answers = _ask_all(nodes, options.location, name, options.seconds)
    finally:
        if options.location:
            with contextlib.suppress(Exception):
                ray.get(_on(nodes[0], remove).remote(options.location, name, new), timeout=_REMOVE_S)
    found = [
        {"name": f"{node['NodeName']} ({node['NodeID'][:8]})", **facts}
        for node, facts in zip(nodes, answers, strict=True)
    ]
    print(MARK + json.dumps({"resources": ray.cluster_resources(), "nodes": found}), flush=True)
    return 0


def _ask_all(nodes: list[dict[str, Any]], location: str, name: str, seconds: float) -> list[dict[str, Any]]:
    """The head's answer, which writes a file, then those of the others, which read it."""
    return [*_ask(nodes[:1], location, name, True, seconds), *_ask(nodes[1:], location, name, False, seconds)]


def _on(node: dict[str, Any], function: Callable[..., Any]) -> Any:
    """A function as a task of one node, which needs no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=there)


def _ask(nodes: list[dict[str, Any]], location: str, name: str, write: bool, seconds: float) -> list[dict[str, Any]]:
    """What each node says; a node that says nothing says so."""
    import ray

    asked = [_on(node, look).remote(location, name, write) for node in nodes]
    end, answers = time.monotonic() + seconds, []
    for one in asked:
        try:
            answers.append(ray.get(one, timeout=max(0.1, end - time.monotonic())))
        except Exception as error:
            answers.append({"silent": (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]})
    return answers


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


def remove(location: str, name: str, new: list[str]) -> None:
    """On the head: remove the file, and those of the folders `new` in which nothing else is."""
    if "://" in location:
        system, path = _opened(location)
        system.delete_file(f"{path}/{name}")
        return
    (Path(location) / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in new:
            Path(folder).rmdir()


def _missing_folders(location: str) -> list[str]:
    """The folders that a file in `location` needs and that are not there yet, deepest first."""
    if not location or "://" in location:
        return []
    return [str(folder) for folder in (Path(location), *Path(location).parents) if not folder.exists()]


def _opened(location: str) -> tuple[Any, str]:
    import pyarrow.fs

    system, path = pyarrow.fs.FileSystem.from_uri(location)
    return system, path.rstrip("/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
