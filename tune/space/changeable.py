"""Which settings can change between the steps of a training, as population-based training changes them."""

from tune.space.space import Knob

_FIXED_RATES = ("cooldown", "ema_decay")


def fixed_reason(name: str, knob: Knob, stage: str) -> str | None:
    """Why a setting cannot change between steps; None: it can."""
    last = name.rsplit(".", 1)[-1]
    if not name.startswith(f"{stage}.training.") or last in _FIXED_RATES:
        return "it determines networks, data or the length of the run"
    values = knob.values if knob.kind == "choice" else (knob.low,)
    if knob.when:
        return "it has a condition"
    if knob.whole or not all(isinstance(value, int | float) for value in values):
        return "only learning rates and loss weights can"
    if any(isinstance(value, bool) or value == 0 for value in values):
        return "at 0 the stage has other networks"
    return (
        None
        if last.endswith(("lr", "weight", "ratio", "clip", "decay", "floor"))
        else "only learning rates and loss weights can"
    )
