"""`sweep.json`: what a sweep is, written before it starts, so that `--resume RUN` and `show RUN` need nothing else."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from objgan.config import build_config
from objgan.errors import InputError
from pipelines.storage import Storage
from redaction import redact, redact_all
from tune.space import Knob, Space
from tune.sweep import Budget, Goal, Sweep

FILE = "sweep.json"
_PLAIN = ("run", "stages", "storage", "search", "scheduler", "seed")


def save_sweep(sweep: Sweep) -> None:
    """Write down a sweep, but not where it is tracked."""
    sweep.store().write(FILE, json.dumps(to_json(sweep), indent=1) + "\n")


def load_sweep(store: Storage) -> Sweep | None:
    """The sweep that lives in a storage; None: none does.

    Raises:
        InputError: the file is not what `save_sweep` writes.
    """
    facts = store.json(FILE)
    if facts is None:
        return None
    try:
        return from_json(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{store}/{FILE} is not a sweep's description ({error}): restore it") from None


def known_sweep(storage: str, run: str) -> Sweep:
    """A sweep that was begun.

    Raises:
        InputError: there is none of that name; others are named.
    """
    base = Storage(storage)
    sweep = load_sweep(base.child(run))
    if sweep is None:
        others = [name for name in base.names() if base.exists(f"{name}/sweep.json")]
        raise InputError(f"no sweep {run} in {base}: known are {', '.join(others) or 'none'}")
    # It may have been moved, or be named differently from here.
    return replace(sweep, storage=storage if "://" in storage else str(Path(storage).expanduser().resolve()))


def to_json(sweep: Sweep) -> dict[str, Any]:
    """A sweep as JSON knows it."""
    return {
        **{name: redact_all(getattr(sweep, name)) for name in _PLAIN},
        "stages": list(sweep.stages),
        "data": redact(str(sweep.data)),
        "encoders": None if sweep.encoders is None else str(sweep.encoders),
        "goal": asdict(sweep.goal),
        "budget": asdict(sweep.budget),
        "space": {name: {**asdict(knob), "values": list(knob.values)} for name, knob in sweep.space.knobs.items()},
        "config": sweep.config.model_dump(mode="json"),
    }


def from_json(facts: dict[str, Any]) -> Sweep:
    """The sweep that `to_json` told of."""
    knobs = {name: Knob(**{**knob, "values": tuple(knob["values"])}) for name, knob in facts["space"].items()}
    data = str(facts["data"])
    return Sweep(
        **{name: facts[name] for name in _PLAIN} | {"stages": tuple(facts["stages"])},
        config=build_config(facts["config"]),
        data=data if "://" in data else Path(data),
        space=Space(knobs),
        goal=Goal(**facts["goal"]),
        budget=Budget(**facts["budget"]),
        encoders=None if facts["encoders"] is None else Path(facts["encoders"]),
    )


def changed(ours: Sweep, theirs: Sweep) -> list[str]:
    """`name: theirs -> ours` of everything but the budget, which a resumed sweep may be given anew."""
    free = replace(ours, budget=theirs.budget)
    a, b = _flat(to_json(free)), _flat(to_json(theirs))
    return [f"{name}: {b.get(name)} -> {a.get(name)}" for name in a | b if a.get(name) != b.get(name)]


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    # Why a range is what it is changes nothing.
    return {name: value for name, value in json.loads(json.dumps(flat)).items() if not name.endswith(".reason")}
