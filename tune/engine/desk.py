"""The desk: messages between a sweep's driver and its trials' processes. A Ray actor that needs no CPU."""

from typing import Any

import ray
import ray.util.scheduling_strategies


class Desk:
    """The actor's class."""

    def __init__(self) -> None:
        self._wishes: dict[str, str] = {}
        self._crashes: dict[str, str] = {}
        self._all: str | None = None

    def end(self, trial: str, reason: str) -> None:
        """One trial is to leave a checkpoint and go."""
        self._wishes.setdefault(trial, reason)

    def end_all(self, reason: str) -> None:
        """Every trial is, also those to come."""
        self._all = self._all or reason

    def begin(self, trial: str) -> str | None:
        """A trial starts (again): earlier wishes to it are void. Returns why it should not start, if so."""
        self._wishes.pop(trial, None)
        return self._all

    def crash(self, trial: str, why: str) -> None:
        """A trial's process says why it is about to end with an error."""
        self._crashes[trial] = why

    def take_crash(self, trial: str) -> str | None:
        """Why it ended, once; None: it could not say so."""
        return self._crashes.pop(trial, None)

    def wish(self, trial: str) -> str | None:
        """Why a trial is to go; None: it is not."""
        return self._all or self._wishes.get(trial)


def make_desk() -> Any:
    """A desk on the driver's own node."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(Desk).options(scheduling_strategy=here).remote()
