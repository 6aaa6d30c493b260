"""How a trial ended: the only place that decides which ends are final and which are retried."""

from collections.abc import Iterator

import ray.exceptions
import ray.train
import torch

from objgan.errors import InputError
from pipelines.redaction import in_a_line
from pipelines.training.driver import TrainingStopped
from pipelines.training.supervisor import Preempted
from tune.sweep.results import State

# Errors of the program itself, and a batch that does not fit on the device: a retry would repeat them.
_REPEATING = (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, torch.OutOfMemoryError)
_CAUSES = 4


class SettingsRefused(InputError):
    """The settings of one trial are refused; those of its sweep are valid."""


class TrialCrashed(RuntimeError):
    """An infrastructure failure ended a trial, and Ray Tune retries it. One line, picklable."""


def end_of(error: BaseException | None) -> State:
    """The state of a trial whose training ended with `error`; None: it ran to its last step.

    finished:    complete
    interrupted: stopped with a checkpoint on request of the sweep or of the scheduler (the driver calls it `stopped`)
    diverged:    a loss, a gradient or the goal's metric is not finite
    failed:      the trial's settings are refused, or the program has an error that a retry would repeat
    crashed:     infrastructure: workers that did not start, a lost worker or node, storage that is unreachable or full,
        data that disappeared. Also every other error: a useless retry costs less than a lost trial.
    """
    if error is None:
        return "finished"
    if isinstance(error, Preempted):
        return "interrupted"
    if isinstance(error, TrainingStopped | FloatingPointError):
        return "diverged"
    if isinstance(error, SettingsRefused) or all(isinstance(root, _REPEATING) for root in _roots(error)):
        return "failed"
    return "crashed"


def line_of(error: BaseException) -> str:
    """An error in one line, with its type unless its text is written for the user."""
    text = in_a_line(error, 500) if str(error).strip() else ""
    plain = isinstance(error, InputError | FloatingPointError | TrialCrashed) and text
    return text if plain else f"{type(error).__name__}: {text}".rstrip(": ")


def _roots(error: BaseException, depth: int = _CAUSES) -> Iterator[BaseException]:
    """The errors below Ray's wrappers, one for each worker."""
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
    for cause in inner:
        yield from _roots(cause, depth - 1)
