"""What a run costs the machine, for MLflow: processors, memory, disk, network, and the GPU where there is one."""

import functools
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

_GB, _MB = 1e9, 1e6


def system_metrics(folder: Path | None = None) -> dict[str, float]:
    """Numbers named `system/...`; under 10 ms, and no waiting.

    `system/cpu_percent` is the mean over all processors since the call before (0 at the first call); network bytes
    count from the first call of this process on. `folder` is what disk space is asked of.
    """
    memory = psutil.virtual_memory()
    values = {
        "system/cpu_percent": psutil.cpu_percent(interval=None),
        "system/memory_percent": memory.percent,
        "system/memory_available_gb": memory.available / _GB,
        "system/memory_rss_gb": psutil.Process().memory_info().rss / _GB,
        **_network(),
    }
    if folder is not None and folder.exists():
        values["system/disk_free_gb"] = psutil.disk_usage(str(folder)).free / _GB
    return values | _gpu()


def _network() -> dict[str, float]:
    sent, received = _network_bytes()
    sent_before, received_before = _network_at_first()
    return {
        "system/network_sent_mb": (sent - sent_before) / _MB,
        "system/network_received_mb": (received - received_before) / _MB,
    }


@functools.cache
def _network_at_first() -> tuple[int, int]:
    return _network_bytes()


def _network_bytes() -> tuple[int, int]:
    """Sent and received; a container without a network has no counters."""
    counters = psutil.net_io_counters()
    return (0, 0) if counters is None else (counters.bytes_sent, counters.bytes_recv)


def _gpu() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {
        "system/gpu_memory_gb": torch.cuda.memory_allocated() / _GB,
        "system/gpu_memory_most_gb": torch.cuda.max_memory_allocated() / _GB,
        "system/gpu_memory_reserved_gb": torch.cuda.memory_reserved() / _GB,
    }
