"""A job that runs before the real job: lists nodes and their versions, and checks that they share storage.

`python -m cluster.jobs.probe [--seconds S] [LOCATION]` prints one line, `PROBE {json}`. Its tasks request no CPU.
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
"""Seconds after which other nodes must see a file; NFS caches folders for some seconds."""


def main(arguments: list[str]) -> int:
    """Ask every node, and print the answers. Written files are removed, also when the job is stopped."""
    import ray

    parser = argparse.ArgumentParser(prog="python -m cluster.jobs.probe", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_NODE_S, help="time limit for the answers of all nodes")
    parser.add_argument("location", nargs="?", default="")
    options = parser.parse_args(arguments)
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    # Ray's own handler of SIGTERM ends this process at once.
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
    named = [
        {"name": f"{node['NodeName']} ({node['NodeID'][:8]})", **facts}
        for node, facts in zip(nodes, answers, strict=True)
    ]
    print(MARK + json.dumps({"resources": ray.cluster_resources(), "nodes": named}), flush=True)
    return 0


def _ask_all(nodes: list[dict[str, Any]], location: str, name: str, seconds: float) -> list[dict[str, Any]]:
    """Answers of the head, which writes a file, and then of the other nodes, which read it."""
    return [*_ask(nodes[:1], location, name, True, seconds), *_ask(nodes[1:], location, name, False, seconds)]


def _on(node: dict[str, Any], function: Callable[..., Any]) -> Any:
    """A function as a task of one node, which requests no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=on_node)


def _ask(nodes: list[dict[str, Any]], location: str, name: str, write: bool, seconds: float) -> list[dict[str, Any]]:
    """The answer of each node, or why it did not answer."""
    import ray

    tasks = [_on(node, look).remote(location, name, write) for node in nodes]
    end, answers = time.monotonic() + seconds, []
    for task in tasks:
        try:
            answers.append(ray.get(task, timeout=max(0.1, end - time.monotonic())))
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
    """Versions that must be the same on all nodes, without the names of builds (+cpu, +cu128)."""
    numbers = {"python": platform.python_version()}
    for package in ("ray", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            numbers[package] = version(package).partition("+")[0]
    return numbers


def _write(location: str, name: str) -> str:
    """Write the file. Returns what went wrong, empty: nothing."""
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
    """Read the file. Returns what went wrong, empty: nothing."""
    end = time.monotonic() + _SEEN_S
    while True:
        try:
            if "://" not in location:
                content = (Path(location) / name).read_text()
            else:
                system, path = _opened(location)
                with system.open_input_stream(f"{path}/{name}") as stream:
                    content = stream.read().decode()
            if content == name:
                return ""
        except FileNotFoundError:
            pass
        if time.monotonic() > end:
            return "does not see what the head wrote"
        time.sleep(0.5)


def remove(location: str, name: str, new: list[str]) -> None:
    """On the head: remove the file, and each folder of `new` that is empty then."""
    if "://" in location:
        system, path = _opened(location)
        system.delete_file(f"{path}/{name}")
        return
    (Path(location) / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in new:
            Path(folder).rmdir()


def _missing_folders(location: str) -> list[str]:
    """Folders that writing to `location` creates, deepest first."""
    if not location or "://" in location:
        return []
    return [str(folder) for folder in (Path(location), *Path(location).parents) if not folder.exists()]


def _opened(location: str) -> tuple[Any, str]:
    import pyarrow.fs

    system, path = pyarrow.fs.FileSystem.from_uri(location)
    return system, path.rstrip("/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
