"""How many trials run at once: planned from the cluster before anything starts, so that none waits for ever."""

from collections.abc import Mapping
from dataclasses import dataclass

from objgan.errors import InputError
from tune.sweep.sweep import Sweep

_HEAD = "node:__internal_head__"
_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""
_TRAIN_SHARE = 10
"""Of these, what the clean-up actor of one training takes; without it a training waits for ever."""


@dataclass(frozen=True)
class Allotment:
    """What the trials of a sweep may have.

    concurrent: trials at once
    workers:    CPUs, or GPUs, of one trial
    use_gpu:    whether workers are on GPUs
    threads:    torch threads of a worker; 0: each takes its share of its machine
    """

    concurrent: int
    workers: int
    use_gpu: bool
    threads: int

    @property
    def driver(self) -> dict[str, float]:
        """Ray resources of a trial's own process, which trains nothing.

        A share of the head and no CPU: a hundredth of a CPU each for two drivers would leave two CPUs without room for
        two workers. The shares also keep Ray Tune from starting more trials than planned, whatever its scheduler
        pauses and wakes. What Ray Train itself takes of the head for every training is left over.
        """
        left = _GRAIN - _TRAIN_SHARE * (self.concurrent + 2)
        return {_HEAD: (left // self.concurrent) / _GRAIN}


def plan_resources(sweep: Sweep, cluster: Mapping[str, float], cores: int | None = None) -> Allotment:
    """Fit a sweep's trials into a cluster.

    Args:
        sweep: its `compute` says how many workers a trial has, its budget how many trials may run at once
        cluster: resources by name, as `ray.cluster_resources()` tells
        cores: of this machine, where it is the whole cluster: workers of several trials then share them evenly

    Raises:
        InputError: not even one trial fits, or not as many at once as were asked for.
    """
    compute = sweep.config.compute
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 0))
    use_gpu = compute.device == "cuda" or (compute.device == "auto" and gpus > 0)
    kind, there = ("GPU", gpus) if use_gpu else ("CPU", cpus)
    workers = compute.most_workers if compute.most_workers <= there else compute.workers
    if workers > there:
        raise InputError(
            f"compute.workers={workers}: a trial needs that many {kind}s, and the cluster has {there}: "
            f"ask for at most {there}"
        )
    room, asked = there // workers, sweep.budget.max_concurrent
    if asked is not None and asked > room:
        raise InputError(
            f"--max-concurrent {asked}: the cluster has {there} {kind}{'s' if there > 1 else ''} and a trial takes "
            f"{workers}, so {room} can run at once: ask for at most {room}"
        )
    concurrent = max(1, min(asked or room, sweep.budget.trials))
    threads = compute.threads or (0 if cores is None else max(1, cores // (concurrent * workers)))
    return Allotment(concurrent, workers, use_gpu, threads)
