"""How a trial ended: the one place that decides which ends count and which are worth another try."""

from collections.abc import Iterator

import ray.exceptions
import ray.train
import torch

from objgan.errors import InputError
from pipelines.redaction import in_a_line
from pipelines.training.driver import TrainingStopped
from pipelines.training.supervisor import Preempted
from tune.sweep.results import State

# Errors of the program itself, and a batch that does not fit into the device: another try would repeat them.
_REPEATING = (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, torch.OutOfMemoryError)
_CAUSES = 4


class SettingsRefused(InputError):
    """The settings of one trial are wrong; those of its sweep are not."""


class TrialCrashed(RuntimeError):
    """An infrastructure failure ended a trial: Ray Tune tries it again. One line, picklable."""


def end_of(error: BaseException | None) -> State:
    """The state of a trial whose training ended with `error`; None: it ran to its last step.

    finished:    done
    interrupted: asked to stop with a checkpoint, by the sweep's end or by the scheduler (the driver calls it `stopped`)
    diverged:    the loss, a gradient or the measure is not finite
    failed:      its own settings are refused, or the program has an error that another try would repeat
    crashed:     infrastructure: workers that did not start, a lost worker or node, storage away or full, data that went
        away. Also every other error: a trial that is tried again in vain costs less than one that is lost.
    """
    if error is None:
        return "finished"
    if isinstance(error, Preempted):
        return "interrupted"
    if isinstance(error, TrainingStopped | FloatingPointError):
        return "diverged"
    if isinstance(error, SettingsRefused) or all(isinstance(one, _REPEATING) for one in _roots(error)):
        return "failed"
    return "crashed"


def line_of(error: BaseException) -> str:
    """An error in one line, with its type unless the text is for the person who chose the settings."""
    text = in_a_line(error, 500) if str(error).strip() else ""
    plain = isinstance(error, InputError | FloatingPointError | TrialCrashed) and text
    return text if plain else f"{type(error).__name__}: {text}".rstrip(": ")


def _roots(error: BaseException, depth: int = _CAUSES) -> Iterator[BaseException]:
    """What went wrong below the wrappers of Ray, on each of the workers."""
    inner: list[BaseException] = []
    if isinstance(error, ray.train.WorkerGroupError):
        inner = list(error.worker_failures.values())
    elif isinstance(error, ray.train.ControllerError):
        inner = [error.controller_failure]
    elif isinstance(error, ray.exceptions.RayTaskError):
        inner = [error.cause]
    elif isinstance(base := getattr(error, "_base_exc", None), BaseException):  # Ray Train's, of a worker's own error
        inner = [base]
    if not inner or not depth:
        yield error
        return
    for one in inner:
        yield from _roots(one, depth - 1)
