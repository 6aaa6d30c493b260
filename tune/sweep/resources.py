"""How many trials run at once: planned from the cluster before anything starts, so that no trial waits for ever."""

from collections.abc import Mapping
from dataclasses import dataclass

from objgan.errors import InputError
from tune.sweep.sweep import Sweep

_HEAD = "node:__internal_head__"
_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""
_TRAIN_SHARE = 10
"""The share of these that the clean-up actor of one training needs; without it a training waits for ever."""


@dataclass(frozen=True)
class Allotment:
    """Resources of the trials of a sweep.

    concurrent: trials at once
    workers:    training workers of one trial, each on a CPU or GPU
    use_gpu:    whether workers are on GPUs
    share:      share of a GPU that each worker takes
    threads:    torch threads of a worker; 0: each worker uses its share of its machine
    """

    concurrent: int
    workers: int
    use_gpu: bool
    threads: int
    share: float = 1.0

    @property
    def units(self) -> float:
        """CPUs, or GPUs, of one trial."""
        return self.workers * self.share

    @property
    def driver(self) -> dict[str, float]:
        """Ray resources of a trial's own process, which does not train.

        It takes a share of the head and no CPU: even a hundredth of a CPU for each of two drivers would leave no room
        for two workers on two CPUs. The shares also stop Ray Tune from starting more trials than planned, whichever
        trials its scheduler pauses and resumes. The share that Ray Train needs for each training is left free.
        """
        left = _GRAIN - _TRAIN_SHARE * (self.concurrent + 2)
        return {_HEAD: (left // self.concurrent) / _GRAIN}


def plan_resources(sweep: Sweep, cluster: Mapping[str, float], cores: int | None = None) -> Allotment:
    """Fit a sweep's trials into a cluster.

    Args:
        sweep: its `compute` says how many workers a trial has, its budget how many trials may run at once
        cluster: resources by name, see `ray.cluster_resources()`
        cores: of this machine if it is the whole cluster: workers of several trials then share them evenly

    Raises:
        InputError: not even one trial fits, or fewer trials at once than were requested.
    """
    compute = sweep.config.compute
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 0))
    use_gpu = compute.device == "cuda" or (compute.device == "auto" and gpus > 0)
    share = compute.gpus_per_worker
    if gpus == 0 and (share < 1 or compute.device == "cuda"):
        raise InputError(
            f"a trial needs {f'{share:g} of a GPU' if share < 1 else 'a GPU'}, and there is none: use machines with "
            f"GPUs, or leave out --gpus-per-trial and compute.device=cuda"
        )
    kind, whole = ("GPU", gpus) if use_gpu else ("CPU", cpus)
    available = whole * (_GRAIN // round(share * _GRAIN))
    workers = compute.most_workers if compute.most_workers <= available else compute.workers
    if workers > available:
        raise InputError(
            f"compute.workers={workers}: a trial needs that many {kind}s, and the cluster has {available}: "
            f"ask for at most {available}"
        )
    most, asked = available // workers, sweep.budget.max_concurrent
    if asked is not None and asked > most:
        raise InputError(
            f"--max-concurrent {asked}: the cluster has {whole} {kind}{'s' if whole > 1 else ''} and a trial "
            f"takes {workers * share:g}, so {most} can run at once: ask for at most {most}"
        )
    concurrent = max(1, min(asked or most, sweep.budget.trials))
    threads = compute.threads or (0 if cores is None else max(1, cores // (concurrent * workers)))
    return Allotment(concurrent, workers, use_gpu, threads, share)
