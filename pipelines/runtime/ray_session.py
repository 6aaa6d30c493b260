"""The Ray session of a command: local by default, or a cluster by its address."""

import contextlib
import functools
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
from pipelines.runtime.machine import check_machine, ray_folder
from pipelines.runtime.ray_job import job_environment
from pipelines.storage.retry import RayAway

logger = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
_CODE = {"working_dir": str(REPOSITORY), "excludes": [".git", ".venv", "/runs", "/data"]}


@contextlib.contextmanager
def ray_session(address: str | None = None, dashboard: bool = False) -> Iterator[None]:
    """Ray for the length of a command; a session that already runs in this process is used and not shut down.

    `address` None starts Ray on this machine only, and never joins a cluster that runs here; in a Ray job it is the
    job's own cluster. `dashboard` starts the dashboard of a local Ray: Ray Train needs it to release the CPUs of a
    training whose driver died while this process is still alive. Where it does not start, Ray runs without it.

    Raises:
        InputError: no cluster answers at `address`, or this machine does not meet Ray's needs.
        RayAway: Ray does not start on this machine.
    """
    if address is None and job_environment() is not None:
        address = "auto"
    # The controller's default poll of 2 s is for large clusters; it would dominate a short local run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2" if address is None else "2")
    if address is None:
        # No machine will join: a request that is not met is soon repeated, and can be cancelled in between.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
        # One actor per training that polls for node drains, which never happen in a local Ray.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its C++ core would print warnings that do not concern the user.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        # Workers on this machine import the code from the same place, whatever the working folder is.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        url = _start(dashboard)
    else:
        url = _connect(address)
    _quieten_ray()
    _announce(url)
    try:
        yield
    finally:
        ray.shutdown()


@functools.cache  # a command may open several sessions of one cluster
def _announce(url: str | None) -> None:
    if url:
        logger.info(f"Ray's dashboard: http://{url}")


def own_cores(address: str | None) -> int | None:
    """Cores of a session at `address` that runs on this machine only; None: it is a cluster."""
    return available_cores() if address is None and job_environment() is None else None


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Restore our SIGTERM handler, which Ray replaces at its start; Ray's exit code would be wrong."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Hide what Ray's C++ core prints to stderr; errors are still raised."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def _start(dashboard: bool) -> str | None:
    """Start Ray on this machine only; after a failed start, for example on a busy machine, try once more.

    Returns the address of the dashboard, if there is one: a dashboard that does not start stops nothing.

    Raises:
        InputError: the machine does not meet Ray's needs.
        RayAway: Ray did not start.
    """
    import ray

    check_machine()
    url: str | None = None
    for last in (False, True):
        before = _children()
        try:
            with _no_stderr(), _own_sigterm():
                started = ray.init(
                    address="local",
                    num_cpus=available_cores(),  # Ray itself would count all cores of the machine
                    include_dashboard=None if dashboard else False,  # None: if it can be started
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            if dashboard and not started.dashboard_url:
                logger.warning("Ray's dashboard is off: a trial whose process dies may keep its CPUs until the end")
            url = started.dashboard_url
            break
        except Exception as error:
            ray.shutdown()
            for process in _children() - before:  # of the failed start
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if last:
                raise RayAway(
                    f"Ray did not start on this machine in two tries ({in_a_line(error)}); its logs are in "
                    f"{ray_folder()}/session_latest/logs"
                ) from error
            logger.warning(f"Ray did not start ({in_a_line(error)}); retrying once")
    return url or None


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _connect(address: str) -> str | None:
    """Connect to a cluster; returns the address of its dashboard, if there is one."""
    import ray

    job = job_environment() or {}
    try:
        with _own_sigterm():
            context = ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # The submission already contains the code, and Ray accepts one working_dir only.
                runtime_env=None if job.get("working_dir") else _CODE,
            )
            return context.dashboard_url or None
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({in_a_line(error)})") from None


def _quieten_ray() -> None:
    """Silence Ray's own log lines and progress bars."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    _skip_lines("PYTHON worker processes have been started")


def _skip_lines(expression: str) -> None:
    """Hide lines of Ray's daemons that match: many processes that need no CPU are not a mistake here.

    Ray's variable for this (RAY_DEDUP_LOGS_SKIP_REGEX) is read only once, at import.
    """
    from ray._private import ray_logging

    for name in ("stdout_deduplicator", "stderr_deduplicator"):
        filtering: Any = getattr(ray_logging, name, None)
        if (
            getattr(filtering, "skip_re", expression) is None
        ):  # otherwise the user has set one, or this version of Ray differs
            filtering.skip_re = re.compile(expression)


def check_without_work(compute: ComputeConfig, address: str | None) -> None:
    """`check_resources`, for a command that changes nothing: it does not start a local Ray.

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
    """Compare the requested workers with the cluster, which would otherwise wait for ever; True: train on GPUs.

    An autoscaling cluster (`compute.autoscaling`) may start with fewer; it has `compute.start_deadline` to grow.

    resources: of the cluster; None: Ray reports them

    Raises:
        InputError: fewer CPUs or GPUs than workers.
    """
    if resources is None:
        import ray

        resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    use_gpu = compute.device == "cuda" or (compute.device == "auto" and gpus > 0)
    kind, available = ("GPU", gpus) if use_gpu else ("CPU", int(resources.get("CPU", 0)))
    if compute.workers > available and not compute.autoscaling:
        raise InputError(
            f"compute.workers={compute.workers}, but there {'is' if available == 1 else 'are'} {available} {kind}"
            f"{'' if available == 1 else 's'}: ask for at most {available}"
        )
    return use_gpu
