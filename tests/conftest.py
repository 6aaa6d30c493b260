"""What all tests share: the environment, real COCO, and one local Ray.

Marks: `real` reads genuine COCO from ../shared/coco (fixture `shared_coco`), `ray` starts Ray (fixture `ray_local`, or
a command that starts its own), `slow` takes more than about 20 seconds, `gpu` needs two GPUs and is skipped without.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.logged import logged

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_COCO = REPOSITORY.parent / "shared" / "coco"

# Before torch and Ray are first imported, and for every process that a test starts: one thread (sums in one order, and
# no fight for the cores), quick polls, nothing sent home, and no cluster or server of the person who runs the tests.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
    os.environ.pop(name, None)


_RAY_SECONDS = 900
"""Of a test that starts Ray: several times what the slowest takes on two cores, for a machine that is busy."""


_LONGEST = ("test_readme", "test_run", "test_draining", "test_engine", "test_driver", "test_worker_deaths")
"""Files with tests that start Ray, the longest first: two files run at once, and the last should be a short one."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray get more time, and the longest files of them come first."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.timeout(_RAY_SECONDS))
    rank = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """The lines that our modules log during the test."""
    with logged() as lines:
        yield lines


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def clean_root() -> Iterator[None]:
    """Tests leave nothing at the repository's root: no `mlflow.db` of MLflow's own choice, no `runs`, no `s3:`."""
    caches = {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "__pycache__"}
    before = {path.name for path in REPOSITORY.iterdir()}
    yield
    left = {path.name for path in REPOSITORY.iterdir()} - before - caches
    assert not left, f"tests left {', '.join(sorted(left))} at the root of the repository"


@pytest.fixture(scope="session")
def shared_coco() -> Path:
    """The folder of genuine COCO images and annotations, which lies beside the repository and is never copied."""
    if not SHARED_COCO.is_dir():
        pytest.skip("no ../shared/coco beside the repository: tests on genuine COCO need it")
    return SHARED_COCO


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray on this machine alone, with 2 CPUs, until the tests end."""
    import ray

    # As `pipelines.runtime.ray_session` has it for a Ray of its own.
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=True,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
    del os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"]
