"""Decoders that really crash: certain pictures kill the process, below a command, that opens them.

The killer is put into every process by a `sitecustomize` on PYTHONPATH, as a library with a bug would be.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CRASH = """
import hashlib, json, os, resource, signal, sys

DEEDS = json.loads(os.environ["DEEDS"])


def deed(data):
    what, _, where = DEEDS.get(hashlib.sha256(data).hexdigest(), "").partition(" in ")
    apart = "multiprocessing.spawn" in " ".join(sys.orig_argv)
    if not what or (where == "worker" and apart) or not (apart or "default_worker" in sys.argv[0]):
        return
    if what == "memory":
        hoard = [bytearray(1 << 30) for _ in range(40)]
    if what == "parent" and apart:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), getattr(signal, what, signal.SIGKILL))


class Finder:
    def find_spec(self, name, path, target=None):
        if name != "PIL.Image":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            opened = module.open

            def open(file, *args, **kwargs):
                deed(file.getvalue())
                return opened(file, *args, **kwargs)

            module.open = open

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def crashing(folder: Path, deeds: Mapping[bytes, str]) -> dict[str, str]:
    """Variables of the environment of a process below which pictures crash their decoder.

    folder: for the killer
    deeds:  a picture's bytes -> the name of the signal that ends the process which opens it, "memory" (it takes 40 GiB)
        or "parent" (of a process of a worker's own, the worker dies); with " in worker", a worker alone
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CRASH)
    sums = {hashlib.sha256(data).hexdigest(): what for data, what in deeds.items()}
    return {"PYTHONPATH": str(folder), "DEEDS": json.dumps(sums)}


def run_crashing(
    folder: Path, deeds: Mapping[bytes, str], *arguments: object, cores: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m pipelines ARGUMENTS` with pictures that crash (see `crashing`); cores: it may use; None: all."""
    kept = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, arguments)],
        preexec_fn=lambda: os.sched_setaffinity(0, kept),
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | crashing(folder, deeds),
        capture_output=True,
        text=True,
        timeout=400,
    )
