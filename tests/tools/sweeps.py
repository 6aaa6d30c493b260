"""A small sweep of stage `boxes` for the tests of sweeps."""

from pathlib import Path
from typing import Any

from objgan.config import Config
from tests.tools.training import small_config
from tune.space.space import Knob, Space
from tune.sweep.sweep import Budget, Goal, Sweep

LR, WEIGHT = "boxes.training.lr", "boxes.training.label_weight"
SPACE = Space({LR: Knob("log_uniform", 1e-4, 1e-2), WEIGHT: Knob("uniform", 0.5, 2.0)})
GOAL = Goal("label_nll", "min")


def small_sweep(base: Config, data: Path, root: Path, **changes: Any) -> Sweep:
    """4 random trials of 30 steps of a small stage `boxes`, with a report every 10 steps."""
    training = changes.pop("training", {})
    values = small_config(base, "boxes", group=4, **training).model_dump()
    values["boxes"] |= {"hidden": 8, "label_embedding": 4, "coordinate_embedding": 4, "text_encoder": "own"}
    config = Config.model_validate(values)
    known: dict[str, Any] = {"budget": Budget(4), "space": SPACE, "goal": GOAL, "scheduler": "none"}
    return Sweep("small", ("boxes",), config, data, str(root), **(known | changes))
