"""Combinations of settings that would fail only in the cluster, refused before."""

import dataclasses
import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from cluster.errors import InputError
from cluster.forms import shown
from cluster.render.settings import Cloud, Job, Kueue, Settings

_UNITS = {"Mi": 1, "Gi": 1024, "Ti": 1024**2}


def mebibytes(quantity: str) -> int:
    """A quantity like 16Gi (`forms.QUANTITY`), in MiB."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def object_store(shm: str) -> str:
    """Bytes of Ray's object store: three quarters of /dev/shm. Ray would take more than is there, and use the disk."""
    return str(mebibytes(shm) * 1024**2 * 3 // 4)


def check(settings: Settings) -> None:
    """Raise the first fault.

    Raises:
        InputError: naming the settings that do not go together.
    """
    for fault in faults(settings):
        raise InputError(fault)


def faults(settings: Settings) -> Iterator[str]:
    """One line for each combination that does not work."""
    yield from _machines(settings)
    yield from _shared(settings)
    yield from _job(settings)
    yield from _queue(settings)
    yield from _cloud(settings)


def _machines(settings: Settings) -> Iterator[str]:
    workers, head = settings.workers, settings.head
    if workers.max < workers.min:
        yield f"workers.max={workers.max} is under workers.min={workers.min}"
    if mebibytes(workers.shm) * 2 > mebibytes(workers.memory):
        yield f"workers.shm={workers.shm} is over half of workers.memory={workers.memory}, of which it is a part"
    for name, disk in (("workers.disk", workers.disk), ("head.disk", head.disk)):
        if mebibytes(disk) < 10 * 1024:
            yield f"{name}={disk}: Ray spills and logs there; at least 10Gi"
    if workers.spot and not workers.spot_selector and settings.kubernetes:
        yield "workers.spot=true needs workers.spot_selector, the label of the cluster's spot nodes"


def _shared(settings: Settings) -> Iterator[str]:
    store = settings.store
    given = [f"store.{name}" for name in ("claim", "share", "bucket") if getattr(store, name)]
    if len(given) != 1:
        yield f"{' and '.join(given) or 'no store'}: exactly one of store.claim, store.share and store.bucket"
    if store.claim and not settings.kubernetes:
        yield "store.claim is Kubernetes'; ray up takes store.share or store.bucket (--set store.claim= empties it)"
    if store.share and settings.kubernetes:
        yield "store.share is for ray up; KubeRay takes store.claim or store.bucket"
    if store.size and not store.claim:
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
    if job.start_seconds >= job.run_seconds:
        yield f"job.start_seconds={job.start_seconds} should be under job.run_seconds={job.run_seconds}"
    yield from _command(job.command)
    coco = {"job.images": job.images, "job.instances": job.instances, "job.captions": job.captions}
    missing = [name for name, value in coco.items() if not value]
    if not job.command and 0 < len(missing) < 3:
        yield f"{missing[0]} is missing beside {next(name for name in coco if name not in missing)}"


def _command(command: str) -> Iterator[str]:
    """Its words are quoted for the shell that reads the entrypoint, so an operator of the shell would become a word."""
    try:
        shlex.split(command)
    except ValueError as error:
        yield f"job.command={shown(command)}: {str(error).lower()}; close the quotes"
        return
    if operators := [sign for sign in _unquoted(command) if sign in ";&|<>()`$"]:
        yield (
            f"job.command={shown(command)}: no shell runs it, so {operators[0]} has no meaning; quote it, or join "
            f"commands by a plus sign: A + B"
        )


def _unquoted(command: str) -> Iterator[str]:
    """The characters of a command line that stand in no quotes."""
    quote, escaped = "", False
    for sign in command:
        if escaped:
            escaped = False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            yield sign


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
