"""Ray and MLflow as a command finds them: local by default, a cluster or a server where one is named."""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from objgan.cores import available_cores
from objgan.errors import InputError
from objgan.sections import ComputeConfig
from pipelines.redaction import in_a_line
from pipelines.runtime.console import say
from pipelines.runtime.machine import check_machine, ray_folder
from pipelines.runtime.ray_job import job_environment
from pipelines.storage.retry import RayAway

REPOSITORY = Path(__file__).resolve().parents[2]
_CODE = {"working_dir": str(REPOSITORY), "excludes": [".git", ".venv", "/runs", "/data"]}


@contextlib.contextmanager
def ray_session(address: str | None = None, dashboard: bool = False) -> Iterator[None]:
    """Ray for the length of a command; a session that already runs in this process is used and left alone.

    `address` None starts Ray on this machine alone, never joining whatever cluster happens to run here; in a Ray job it
    is the job's own cluster. `dashboard` goes with a Ray of our own: Ray Train needs it to give back the CPUs of a
    training whose own driver died, where this process lives on.

    Raises:
        InputError: no cluster answers at `address`, or this machine lacks what Ray needs.
        RayAway: Ray does not start on this machine.
    """
    if address is None and job_environment() is not None:
        address = "auto"
    # The controller's default poll of 2 s is for large clusters; here it would be most of a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2" if address is None else "2")
    if address is None:
        # No machine will join: an ask that is not met is soon made anew, and can be taken back in between.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
        # An actor a training that asks whether nodes are to be drained, which nobody does to a Ray of our own.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its C++ core would warn on our terminal of things that are not the user's.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        # Workers on this machine find the programs as this process did, whatever folder it was started in.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        _start(dashboard)
    else:
        _connect(address)
    _quieten_ray()
    try:
        yield
    finally:
        ray.shutdown()


def own_cores(address: str | None) -> int | None:
    """Cores of a session at `address` that runs on this machine alone; None: it is a cluster."""
    return available_cores() if address is None and job_environment() is None else None


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts, and would end the process with a code that means nothing here."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's C++ core announces its log level there, below Python; what goes wrong is raised all the same."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _start(dashboard: bool) -> None:
    """A Ray on this machine alone; one that does not start, on a machine that is busy for example, is tried once more.

    Raises:
        InputError: the machine lacks what Ray needs.
        RayAway: Ray did not start.
    """
    import ray

    check_machine()
    for last in (False, True):
        before = _children()
        try:
            with _no_stderr(), _own_sigterm():
                ray.init(
                    address="local",
                    num_cpus=available_cores(),  # Ray itself would count all cores of the machine
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:
            ray.shutdown()
            for process in _children() - before:  # of the Ray that did not start
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if last:
                raise RayAway(
                    f"Ray did not start on this machine in two tries ({in_a_line(error)}); its logs are in "
                    f"{ray_folder()}/session_latest/logs"
                ) from error
            say(f"warning: Ray did not start ({in_a_line(error)}); trying once more")


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _connect(address: str) -> None:
    import ray

    job = job_environment() or {}
    try:
        with _own_sigterm():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # A job has its code from whoever submitted it, and Ray takes it from one place only.
                runtime_env=None if job.get("working_dir") else _CODE,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({in_a_line(error)})") from None


def _quieten_ray() -> None:
    """Ray's own progress stays out of ours."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    _skip_lines("PYTHON worker processes have been started")


def _skip_lines(expression: str) -> None:
    """Lines of Ray's daemons that say nothing to a person: many processes that need no CPU are no mistake here.

    Ray has a variable for that (RAY_DEDUP_LOGS_SKIP_REGEX), which it reads once, as soon as it is imported.
    """
    from ray._private import ray_logging

    for name in ("stdout_deduplicator", "stderr_deduplicator"):
        filtering: Any = getattr(ray_logging, name, None)
        if getattr(filtering, "skip_re", expression) is None:  # else it is the user's own, or another Ray's affair
            filtering.skip_re = re.compile(expression)


def check_without_work(compute: ComputeConfig, address: str | None) -> None:
    """`check_resources`, for a command that will do nothing: no Ray is started on this machine for it.

    Raises:
        InputError: fewer CPUs or GPUs than workers, or no cluster answers at `address`.
    """
    cores = own_cores(address)
    if cores is None:
        with ray_session(address):
            check_resources(compute)
        return
    import torch

    check_resources(compute, {"CPU": cores, "GPU": torch.cuda.device_count()})


def check_resources(compute: ComputeConfig, resources: Mapping[str, float] | None = None) -> bool:
    """Compare the ask with the cluster, which would otherwise wait for ever; True: train on GPUs.

    A cluster that grows by itself (`compute.autoscaling`) is asked, and has `compute.start_deadline` to answer.

    resources: what there is; None: Ray is asked

    Raises:
        InputError: fewer CPUs or GPUs than workers.
    """
    if resources is None:
        import ray

        resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    use_gpu = compute.device == "cuda" or (compute.device == "auto" and gpus > 0)
    kind, there = ("GPU", gpus) if use_gpu else ("CPU", int(resources.get("CPU", 0)))
    if compute.workers > there and not compute.autoscaling:
        raise InputError(
            f"compute.workers={compute.workers}, but there {'is' if there == 1 else 'are'} {there} {kind}"
            f"{'' if there == 1 else 's'}: ask for at most {there}"
        )
    return use_gpu
