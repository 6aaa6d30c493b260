"""Combinations of settings that would fail only in the cluster, refused before."""

import dataclasses
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from cluster.errors import InputError
from cluster.settings import Cloud, Job, Kueue, Settings

_UNITS = {"Mi": 1, "Gi": 1024, "Ti": 1024**2}
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


def mebibytes(name: str, quantity: str) -> int:
    """A quantity like 16Gi, in MiB.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"([1-9][0-9]*)(Mi|Gi|Ti)", quantity)
    if found is None:
        raise InputError(f"--set {name}={quantity}: write a whole number with Mi, Gi or Ti, for example 16Gi")
    return int(found[1]) * _UNITS[found[2]]


def object_store(shm: str) -> str:
    """Bytes of Ray's object store: three quarters of /dev/shm. Ray would take more than is there, and use the disk."""
    return str(mebibytes("workers.shm", shm) * 1024**2 * 3 // 4)


def check(settings: Settings) -> None:
    """Raise the first fault.

    Raises:
        InputError: naming the settings that do not go together.
    """
    for fault in faults(settings):
        raise InputError(fault)


def faults(settings: Settings) -> Iterator[str]:
    """One line for each combination that does not work."""
    if not _NAME.fullmatch(settings.name):
        yield f"name={settings.name}: small letters, digits and dashes, from a letter on, at most 40"
    yield from _machines(settings)
    yield from _shared(settings)
    yield from _job(settings)
    yield from _queue(settings)
    yield from _cloud(settings)


def _machines(settings: Settings) -> Iterator[str]:
    workers, head = settings.workers, settings.head
    if workers.min < 1:
        yield f"workers.min={workers.min}: a job is refused where there is no worker yet; at least 1"
    if workers.max < workers.min:
        yield f"workers.max={workers.max} is under workers.min={workers.min}"
    if min(workers.cpus, head.cpus) < 1 or workers.gpus < 0:
        yield f"workers.cpus={workers.cpus}, head.cpus={head.cpus}: at least 1 each; workers.gpus: at least 0"
    if mebibytes("workers.shm", workers.shm) * 2 > mebibytes("workers.memory", workers.memory):
        yield f"workers.shm={workers.shm} is over half of workers.memory={workers.memory}, of which it is a part"
    for name, disk in (("workers.disk", workers.disk), ("head.disk", head.disk)):
        if mebibytes(name, disk) < 10 * 1024:
            yield f"{name}={disk}: Ray spills and logs there; at least 10Gi"
    mebibytes("head.memory", head.memory)
    if workers.spot and not workers.spot_selector and settings.kubernetes:
        yield "workers.spot=true needs workers.spot_selector, the label of the cluster's spot nodes"
    if workers.spot_taint and "=" not in workers.spot_taint:
        yield f"workers.spot_taint={workers.spot_taint}: write KEY=VALUE"


def _shared(settings: Settings) -> Iterator[str]:
    store = settings.store
    given = [f"store.{name}" for name in ("claim", "share", "bucket") if getattr(store, name)]
    if len(given) != 1:
        yield f"{' and '.join(given) or 'no store'}: exactly one of store.claim, store.share and store.bucket"
    if store.claim and not settings.kubernetes:
        yield "store.claim is Kubernetes'; ray up takes store.share or store.bucket (--set store.claim= empties it)"
    if store.share and settings.kubernetes:
        yield "store.share is for ray up; KubeRay takes store.claim or store.bucket"
    if store.bucket and not store.bucket.startswith(("s3://", "gs://")):
        yield f"store.bucket={store.bucket}: should start with s3:// or gs://"
    if store.size:
        mebibytes("store.size", store.size)
        if not store.claim:
            yield "store.size needs store.claim, the claim to make"
    if urlsplit(settings.mlflow.uri).password:
        yield "mlflow.uri holds a password: put it into a Secret and name that in mlflow.secret"


def _job(settings: Settings) -> Iterator[str]:
    job = settings.job
    if settings.kind != "RayJob":
        changed = [f"job.{f.name}" for f in dataclasses.fields(Job) if getattr(job, f.name) != f.default]
        if changed:
            yield f"{changed[0]}: only a RayJob has a job; give commands to `python -m cluster submit`"
        return
    if settings.store.bucket and not job.command:
        yield "store.bucket needs job.command: only that knows which of its inputs and outputs are in the bucket"
    if not 0 < job.start_seconds < job.run_seconds:
        yield f"job.start_seconds={job.start_seconds} should be over 0 and under job.run_seconds={job.run_seconds}"
    if job.retries < 0 or job.keep_seconds < 0:
        yield f"job.retries={job.retries}, job.keep_seconds={job.keep_seconds}: not under 0"
    coco = {"job.images": job.images, "job.instances": job.instances, "job.captions": job.captions}
    missing = [name for name, value in coco.items() if not value]
    if not job.command and 0 < len(missing) < 3:
        yield f"{missing[0]} is missing beside {next(name for name in coco if name not in missing)}"


def _queue(settings: Settings) -> Iterator[str]:
    kueue = settings.kueue
    if (kueue.priority or kueue.cluster_queue) and not kueue.queue:
        yield "kueue.priority and kueue.cluster_queue need kueue.queue"
    if kueue.queue and settings.kind == "RayJob" and settings.autoscales:
        workers = settings.workers
        yield (
            f"kueue.queue with workers.min={workers.min}, workers.max={workers.max}: Kueue admits a RayJob whole, "
            f"set both alike"
        )


def _cloud(settings: Settings) -> Iterator[str]:
    if settings.kubernetes:
        if settings.cloud != Cloud():
            yield "cloud.* is for ray up (presets aws and gcp)"
        return
    needed = ["region", "zone", "head_type", "worker_type"]
    needed += ["project", "machine_image"] if settings.kind == "gcp" else []
    missing = [f"cloud.{name}" for name in needed if not getattr(settings.cloud, name)]
    if missing:
        yield f"{missing[0]} is needed by ray up"
    if settings.kueue != Kueue() or settings.monitoring.scrape or settings.security.network_policy:
        yield "kueue.*, monitoring.scrape and security.network_policy are Kubernetes', not ray up's"
