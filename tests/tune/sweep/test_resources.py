"""Which sweeps fit into a cluster; the others are refused before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest
from ray.train import ScalingConfig

from objgan.config import Config
from objgan.errors import InputError
from objgan.sections import ComputeConfig
from pipelines.training.driver import worker_resources
from tests.tools.sweeps import small_sweep
from tune.sweep.resources import plan_resources
from tune.sweep.sweep import Budget, Sweep

LAPTOP = {"CPU": 2.0, "node:__internal_head__": 1.0}


@pytest.fixture
def sweep(data_config: Config, tmp_path: Path) -> Sweep:
    """4 trials of one worker each; threads are left to the plan."""
    small = small_sweep(data_config, tmp_path, tmp_path)
    return _compute(small, threads=0)


def _compute(sweep: Sweep, **values: object) -> Sweep:
    return replace(sweep, config=sweep.config.model_copy(
        update={"compute": sweep.config.compute.model_copy(update=values)}
    ))  # fmt: skip


def test_two_cores_take_two_trials_of_a_thread_each(sweep: Sweep) -> None:
    plan = plan_resources(sweep, LAPTOP, cores=2)
    assert (plan.concurrent, plan.workers, plan.use_gpu, plan.threads) == (2, 1, False, 1)
    alone = plan_resources(replace(sweep, budget=Budget(4, max_concurrent=1)), LAPTOP, cores=2)
    assert (alone.concurrent, alone.threads) == (1, 2)
    assert plan_resources(replace(sweep, budget=Budget(1)), LAPTOP, cores=2).concurrent == 1


@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 16, 60])
def test_shares_of_the_head_admit_exactly_the_planned_trials(sweep: Sweep, cpus: int) -> None:
    """They leave a share for Ray Train's own actor of each training."""
    plan = plan_resources(replace(sweep, budget=Budget(100)), {"CPU": float(cpus)})
    (share,) = plan.driver.values()
    assert plan.concurrent == cpus
    assert "CPU" not in plan.driver
    assert cpus * (share + 0.001) < 1
    assert (cpus + 1) * share + cpus * 0.001 > 1


def test_gpus_are_used_if_there_are_any(sweep: Sweep) -> None:
    there = {"CPU": 64.0, "GPU": 8.0}
    assert plan_resources(_compute(sweep, workers=4), there).concurrent == 2
    assert plan_resources(_compute(sweep, workers=4, device="cpu"), there).concurrent == 4
    elastic = plan_resources(_compute(sweep, workers=1, max_workers=4), there)
    assert (elastic.concurrent, elastic.workers) == (2, 4)


@pytest.mark.parametrize(("share", "concurrent"), [(0.25, 8), (0.1, 20), (1 / 3, 6), (0.3, 6), (0.6, 2)])
def test_trials_share_gpus_and_none_is_spread_over_two(sweep: Sweep, share: float, concurrent: int) -> None:
    shared = replace(_compute(sweep, gpus_per_worker=share), budget=Budget(100))
    plan = plan_resources(shared, {"CPU": 64.0, "GPU": 2.0})
    assert (plan.concurrent, plan.workers, plan.use_gpu, plan.units) == (concurrent, 1, True, share)


def test_a_worker_asks_ray_for_its_share() -> None:
    shared = ComputeConfig(gpus_per_worker=0.25)
    scaling = ScalingConfig(use_gpu=True, resources_per_worker=worker_resources(shared, use_gpu=True))
    assert scaling.num_gpus_per_worker == 0.25 and scaling.num_cpus_per_worker == 0
    assert worker_resources(shared, use_gpu=False) is None
    assert worker_resources(ComputeConfig(), use_gpu=True) is None, "a whole GPU"
    for wrong in ({"max_workers": 2}, {"device": "cpu"}):
        with pytest.raises(ValueError, match=r"gpus_per_worker 0\.25"):
            ComputeConfig(gpus_per_worker=0.25, **wrong)


def test_a_sweep_that_does_not_fit_is_refused(sweep: Sweep) -> None:
    with pytest.raises(InputError, match=r"compute.workers=3: .*has 2: ask for at most 2"):
        plan_resources(_compute(sweep, workers=3), LAPTOP)
    with pytest.raises(InputError, match=r"--max-concurrent 3: .* so 2 can run at once"):
        plan_resources(replace(sweep, budget=Budget(4, max_concurrent=3)), LAPTOP)
    with pytest.raises(InputError, match="needs a GPU, and there is none"):
        plan_resources(_compute(sweep, device="cuda"), LAPTOP)
