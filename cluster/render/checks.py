"""Combinations of settings that would fail only on the cluster."""

import re
import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from cluster.render.settings import Settings
from objgan.errors import one_line
from pipelines.redaction import redact

_UNITS = {"Mi": 1, "Gi": 1024, "Ti": 1024**2}
# Escaped and quoted parts of a command line.
_QUOTED = re.compile(r"""\\.|'[^']*'|"(\\.|[^"\\])*["]""")


def mebibytes(quantity: str) -> int:
    """A quantity like 16Gi (`settings.Quantity`), in MiB."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def object_store(shm: str) -> str:
    """Bytes of Ray's object store: three quarters of /dev/shm. Ray would take more than that, and use the disk."""
    return str(mebibytes(shm) * 1024**2 * 3 // 4)


def faults(settings: Settings) -> Iterator[str]:
    """A line for each combination that does not work."""
    yield from _image(settings)
    yield from _machines(settings)
    yield from _pods(settings)
    yield from _shared(settings)
    yield from _job(settings)
    yield from _queue(settings)
    yield from _cloud(settings)


def _image(settings: Settings) -> Iterator[str]:
    if settings.digest and "@" in settings.image:
        yield f"digest={settings.digest[:19]}... and image={settings.image} both name a digest; give one of them"


def _pods(settings: Settings) -> Iterator[str]:
    """Settings of pods, which `ray up` has not."""
    if settings.kubernetes:
        return
    for section in ("head", "workers"):
        for name in ("tolerations", "annotations", "priority_class"):
            if getattr(getattr(settings, section), name):
                yield f"{section}.{name} is for Kubernetes, not for ray up"
    if settings.disruption.model_dump(exclude_defaults=True):
        yield "disruption.* is for Kubernetes, not for ray up"


def _machines(settings: Settings) -> Iterator[str]:
    workers, head = settings.workers, settings.head
    if workers.max < workers.min:
        yield f"workers.max={workers.max} is under workers.min={workers.min}"
    if mebibytes(workers.shm) * 2 > mebibytes(workers.memory):
        yield f"workers.shm={workers.shm} is over half of workers.memory={workers.memory}, of which it is a part"
    for name, disk in (("workers.disk", workers.disk), ("head.disk", head.disk)):
        if mebibytes(disk) < 10 * 1024:
            yield f"{name}={disk}: Ray spills objects and writes logs there; give at least 10Gi"
    if workers.spot and not workers.spot_selector and settings.kubernetes:
        yield "workers.spot=true needs workers.spot_selector, the label of the cluster's spot nodes"


def _shared(settings: Settings) -> Iterator[str]:
    store = settings.store
    given = [f"store.{name}" for name in ("claim", "share", "bucket") if getattr(store, name)]
    if len(given) != 1:
        yield f"{' and '.join(given) or 'no store'}: set exactly one of store.claim, store.share and store.bucket"
    if store.claim and not settings.kubernetes:
        yield "store.claim is for KubeRay; ray up takes store.share or store.bucket (--set store.claim= empties it)"
    if store.share and settings.kubernetes:
        yield "store.share is for ray up; KubeRay takes store.claim or store.bucket"
    if store.owner != "fsgroup" and not store.claim:
        yield f"store.owner={store.owner} needs store.claim, the volume that it is about"
    if store.size and not store.claim:
        yield "store.size needs store.claim, the name of the new claim"
    if urlsplit(settings.mlflow.uri).password:
        yield "mlflow.uri holds a password: put it into a Secret, and name the Secret in mlflow.secret"


def _job(settings: Settings) -> Iterator[str]:
    job = settings.job
    if settings.kind != "RayJob":
        for name in job.model_dump(exclude_defaults=True):
            yield f"job.{name}: only a RayJob has a job; give commands to `python -m cluster submit`"
        return
    if settings.store.bucket and not job.command:
        yield "store.bucket needs job.command, which names its inputs and outputs in the bucket"
    if job.start_seconds >= job.run_seconds:
        yield f"job.start_seconds={job.start_seconds} should be under job.run_seconds={job.run_seconds}"
    yield from _command(job.command)
    coco = {"job.images": job.images, "job.instances": job.instances, "job.captions": job.captions}
    missing = [name for name, value in coco.items() if not value]
    if not job.command and 0 < len(missing) < 3:
        yield f"{missing[0]} is missing beside {next(name for name in coco if name not in missing)}"


def _command(command: str) -> Iterator[str]:
    """Its words are quoted for the shell that reads the entrypoint, so an operator of the shell would become a word."""
    shown = f"job.command={one_line(redact(command), 120)}"
    try:
        shlex.split(command)
    except ValueError as error:
        yield f"{shown}: {str(error).lower()}; close the quotes"
        return
    if operator := re.search(r"[;&|<>()`$]", _QUOTED.sub("", command)):
        yield (
            f"{shown}: no shell runs it, so {operator[0]} has no meaning; quote it, or join commands by a plus sign: "
            f"A + B"
        )


def _queue(settings: Settings) -> Iterator[str]:
    kueue = settings.kueue
    if (kueue.priority or kueue.cluster_queue) and not kueue.queue:
        yield "kueue.priority and kueue.cluster_queue need kueue.queue"
    if kueue.queue and settings.kind == "RayJob" and settings.autoscales:
        workers = settings.workers
        yield (
            f"kueue.queue with workers.min={workers.min}, workers.max={workers.max}: Kueue admits a "
            f"RayJob as a whole; set both to one number"
        )


def _cloud(settings: Settings) -> Iterator[str]:
    if settings.kubernetes:
        if settings.cloud.model_dump(exclude_defaults=True):
            yield "cloud.* is for ray up (presets aws and gcp)"
        return
    needed = ["region", "zone", "head_type", "worker_type"]
    needed += ["project", "machine_image"] if settings.kind == "gcp" else []
    missing = [f"cloud.{name}" for name in needed if not getattr(settings.cloud, name)]
    if missing:
        yield f"{missing[0]} is needed by ray up"
    if (
        settings.kueue.model_dump(exclude_defaults=True)
        or settings.monitoring.scrape
        or settings.security.network_policy
    ):
        yield "kueue.*, monitoring.scrape and security.network_policy are for Kubernetes, not for ray up"
