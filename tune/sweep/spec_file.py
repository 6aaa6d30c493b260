"""`sweep.json`: the definition of a sweep, written before it starts; `--resume RUN` and `show RUN` need only this."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from objgan.config import build_config
from objgan.errors import InputError
from objgan.stages import stage_class
from pipelines.redaction import in_a_line, redact, redact_all
from pipelines.storage.storage import Storage
from tune.space.space import Knob, Space
from tune.sweep.sweep import Budget, Goal, Sweep

FILE = "sweep.json"
Form = TypeVar("Form")
_PLAIN = ("run", "stages", "storage", "search", "scheduler", "seed")


def save_sweep(sweep: Sweep) -> None:
    """Write a sweep, without its tracking."""
    sweep.store().write(FILE, json.dumps(to_json(sweep), indent=1) + "\n")


def load_sweep(store: Storage) -> Sweep | None:
    """The sweep in a storage; None: there is none.

    Raises:
        InputError: `save_sweep` did not write this file.
    """
    facts = store.json(FILE)
    if facts is None:
        return None
    try:
        return from_json(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{store}/{FILE} is not a sweep's description ({in_a_line(error)}): restore it") from None


def known_sweep(storage: str, run: str) -> Sweep:
    """A sweep that was started.

    Raises:
        InputError: there is none with this name; the message lists the others.
    """
    base = Storage(storage)
    sweep = load_sweep(base.child(run))
    if sweep is None:
        others = [name for name in base.names() if base.exists(f"{name}/sweep.json")]
        raise InputError(f"no sweep {run} in {base}: known are {', '.join(others) or 'none'}")
    # It may have been moved, or have another path on this machine.
    return replace(sweep, storage=storage if "://" in storage else str(Path(storage).expanduser().resolve()))


def to_json(sweep: Sweep) -> dict[str, Any]:
    """A sweep as JSON values."""
    return {
        **{name: redact_all(getattr(sweep, name)) for name in _PLAIN},
        "stages": list(sweep.stages),
        "data": redact(str(sweep.data)),
        "encoders": None if sweep.encoders is None else str(sweep.encoders),
        "judges": None if sweep.judges is None else str(sweep.judges),
        "goal": asdict(sweep.goal),
        "budget": asdict(sweep.budget),
        "space": {name: {**asdict(knob), "values": list(knob.values)} for name, knob in sweep.space.knobs.items()},
        "config": sweep.config.model_dump(mode="json"),
        "pbt_quantile": sweep.pbt_quantile,
        "pbt_interval": sweep.pbt_interval,
        "points": [dict(point) for point in sweep.points],
    }


def from_json(facts: dict[str, Any]) -> Sweep:
    """The sweep that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `to_json` did not write it.
    """
    values: dict[str, Any] = {
        **{name: facts[name] for name in (*_PLAIN, "data", "encoders")},
        "config": build_config(facts["config"]),
        "space": Space({name: _read(Knob, knob) for name, knob in facts["space"].items()}),
        "goal": _read(Goal, facts["goal"]),
        "budget": _read(Budget, facts["budget"]),
        # Sweeps of earlier versions have none of these.
        **{name: facts[name] for name in ("pbt_quantile", "pbt_interval", "judges") if name in facts},
        "points": tuple(facts.get("points", ())),
    }
    sweep = _read(Sweep, values)
    for stage in sweep.stages:
        stage_class(stage)
    data = str(sweep.data)
    return replace(sweep, data=data if "://" in data else Path(data))


def _read(kind: type[Form], facts: dict[str, Any]) -> Form:
    """An object of `kind` from JSON, with exactly its fields and their types."""
    kind(**facts)
    return TypeAdapter(kind).validate_python(facts)


def changed(new: Sweep, old: Sweep) -> list[str]:
    """`name: old -> new` of all differences but the budget and `compute`, which a resumed sweep may change."""
    config = new.config.model_copy(update={"compute": old.config.compute})
    after, before = _flat(to_json(replace(new, budget=old.budget, config=config))), _flat(to_json(old))
    names = [name for name in after | before if after.get(name) != before.get(name)]
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names]


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    # The reason of a range changes nothing.
    return {name: value for name, value in json.loads(json.dumps(flat)).items() if not name.endswith(".reason")}
