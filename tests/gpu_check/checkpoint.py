"""A checkpoint that is written while training goes on, read back into another state."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from objgan.checkpoint import resume, snapshot, write_snapshot
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from tests.gpu_check.drawn import Case
from tests.gpu_check.forms import Form

_AFTER = 2
"""Steps beside the writing, and once more from the checkpoint."""


def checkpoint_fault(case: Case, form: Form, folder: Path) -> str | None:
    """What differs between a state and its checkpoint that was written during later steps; None: nothing.

    On a CPU, the steps from the checkpoint must have the losses of those beside the writing.
    """
    state = case.state(form)
    _steps(case, state, form)
    kept = {name: tensor.clone() for name, tensor in tensors(state).items()}
    with ThreadPoolExecutor(1) as thread:
        written = thread.submit(write_snapshot, folder, snapshot(state))
        on_the_way = _steps(case, state, form)
        written.result()
    again = case.state(form)
    resume(folder, again)
    found = tensors(again)
    if found.keys() != kept.keys():
        return f"{', '.join(sorted(found.keys() ^ kept.keys()))} on one side alone"
    if wrong := [name for name, tensor in kept.items() if not torch.equal(tensor, found[name])]:
        return f"{len(wrong)} of {len(kept)} tensors differ, first {wrong[0]}"
    if case.device.type == "cpu" and not torch.equal(on_the_way, _steps(case, again, form)):
        return "the steps from it have other losses"
    return None


def tensors(state: TrainState) -> dict[str, Tensor]:
    """Everything that a checkpoint keeps, by name, as it lies."""
    found = dict(state.stage.networks.state_dict())
    found |= {f"average {name}": tensor for name, tensor in state.ema.state_dict().items()}
    for phase, optimiser in state.optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            found |= {f"optimiser {phase} {index} {key}": value for key, value in values.items()}
    return found


def _steps(case: Case, state: TrainState, form: Form) -> Tensor:
    """Some steps; their results, one after the other."""
    context, values = StepContext(seed=0, precision=form.dtype), []
    for _ in range(_AFTER):
        values.append(train_step(state, case.few(state.step), context).values)
    return torch.cat(values)
