"""Steps: inert data with an identity, run once, skipped when they are there already.

A step's identity is a hash of its settings and of its dependencies' identities, never of paths, and names its folder
(`OUT/encoders-1f0c9a2b41`). So the same command goes on after a kill, changed settings run what they change
and nothing else, and no result is ever overwritten.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objgan.files import read_json, write_atomically
from objgan.json_input import OWN
from pipelines.runtime import console
from pipelines.storage.storage import Storage
from pipelines.tracking.tracker import Tracking, tracked_run

logger = logging.getLogger(__name__)
_DIGITS = 10


@dataclass(frozen=True)
class Step:
    """What is to be done, by name; `needs` are names of earlier steps."""

    name: str
    settings: Mapping[str, Any]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Steps in order with their identities and folders."""

    out: Path
    steps: tuple[Step, ...]
    identities: Mapping[str, str]

    def folder(self, name: str) -> Path:
        """Where a step's results are or will be."""
        return self.out / f"{name}-{self.identities[name]}"

    def result(self, name: str) -> dict[str, Any] | None:
        """What a finished step left in `step.json`; None while it is not finished."""
        path = self.folder(name) / "step.json"
        return read_json(path, f"step {name}", OWN) if path.exists() else None


Action = Callable[[Step, Path, Tracking], Mapping[str, Any]]
"""(step, its folder, where to track) -> facts worth keeping, as JSON."""


def plan(out: Path, steps: Sequence[Step]) -> Plan:
    """Give every step its identity.

    Raises:
        ValueError: a step needs one that does not come before it.
    """
    identities: dict[str, str] = {}
    for step in steps:
        missing = [name for name in step.needs if name not in identities]
        if missing:
            raise ValueError(f"step {step.name} needs {', '.join(missing)} before it")
        facts = [step.name, step.settings, [identities[name] for name in step.needs]]
        text = json.dumps(facts, sort_keys=True, default=str)
        identities[step.name] = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return Plan(out, tuple(steps), identities)


def describe(work: Plan) -> str:
    """One line a step: finished or to do, and where."""
    lines = []
    for step in work.steps:
        result = work.result(step.name)
        state = "to do   " if result is None else "finished"
        lines.append(f"{state} {step.name:<10} {work.folder(step.name)}")
    return "\n".join(lines)


def run_plan(
    work: Plan, actions: Mapping[str, Action], uri: str, parent: str, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Run what is not finished, in order, each in an MLflow run nested in `parent`; every step's facts by name.

    progress: called after each step that was run, with the number of finished steps and of all
    """
    results: dict[str, Any] = {}
    for number, step in enumerate(work.steps, 1):
        heading = f"[{number}/{len(work.steps)}] {step.name}"
        folder, result = work.folder(step.name), work.result(step.name)
        if result is not None:
            logger.info(f"{heading}: finished before, in {result['seconds']:.0f} s ({folder})")
        else:
            with console.lines_with(stage=step.name):
                logger.info(f"{heading} -> {folder}")
                result = _run_step(work, step, actions[step.name], uri, parent)
                progress(number, len(work.steps))
                logger.info(f"{heading}: done in {result['seconds']:.0f} s")
        results[step.name] = result
    return results


def _run_step(work: Plan, step: Step, action: Action, uri: str, parent: str) -> dict[str, Any]:
    folder, began = work.folder(step.name), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    tags = {"objgan.step": step.name, "objgan.identity": work.identities[step.name]}
    with tracked_run(uri, step.name, Storage(folder), tags, parent) as tracking:
        facts = dict(action(step, folder, tracking))
    result = {
        "step": step.name,
        "identity": work.identities[step.name],
        "seconds": round(time.time() - began, 1),
        **facts,
    }
    write_atomically(folder / "step.json", json.dumps(result, indent=1) + "\n")
    return result
