"""Settings of a cluster: one frozen tree, one dotted name per knob, the one source of every manifest.

A knob is a field made by `knob`, which holds the text that `render --list` and the README show.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["RayJob", "RayCluster", "aws", "gcp"]


def knob(default: Any, text: str) -> Any:
    """A field with a default and a text that tells what it does."""
    return dataclasses.field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Job:
    """What a RayJob runs, how long it may take, how often it is tried."""

    recipe: Literal["tiny", "small", "paper", "fast"] = knob("paper", "recipe of the pipelines' commands")
    images: str = knob("", "COCO images: folder or URI; empty: a drawn data set")
    instances: str = knob("", "COCO's instances JSON, seen from the pods")
    captions: str = knob("", "COCO's captions JSON, seen from the pods")
    split: str = knob("hash", "prepare's --split: hash, coco or a JSON file")
    options: tuple[str, ...] = knob((), "NAME=VALUE settings for every command (their --set)")
    command: str = knob("", "one command line instead of prepare, train (four stages) and register")
    retries: int = knob(2, "new clusters after a failure (backoffLimit); wrong input and deadlines are not retried")
    start_seconds: int = knob(3600, "give up when it does not run by then (preRunningDeadlineSeconds)")
    run_seconds: int = knob(14 * 86400, "give up when it is not done by then (activeDeadlineSeconds)")
    keep_seconds: int = knob(600, "keep the cluster so long after the end, for its logs (ttlSecondsAfterFinished)")


@dataclass(frozen=True)
class Head:
    """The head: control plane and driver. It takes no tasks, and never runs on spot machines."""

    cpus: int = knob(4, "CPUs")
    memory: str = knob("16Gi", "memory")
    disk: str = knob("50Gi", "ephemeral storage; disk of the machine with ray up")
    selector: tuple[str, ...] = knob((), "LABEL=VALUE of nodes it may run on")


@dataclass(frozen=True)
class Workers:
    """The workers: all of one kind."""

    min: int = knob(1, "workers at the start, and the fewest")
    max: int = knob(1, "the most; over min: autoscaling, and elastic training")
    cpus: int = knob(8, "CPUs of each")
    gpus: int = knob(0, "GPUs of each (nvidia.com/gpu)")
    memory: str = knob("32Gi", "memory of each, /dev/shm included")
    disk: str = knob("100Gi", "ephemeral storage of each; disk of the machine with ray up")
    shm: str = knob("8Gi", "size of /dev/shm: Ray's object store, and NCCL")
    idle_seconds: int = knob(300, "a worker without work is given back after this")
    spot: bool = knob(False, "run on spot machines")
    selector: tuple[str, ...] = knob((), "LABEL=VALUE of nodes they may run on")
    spot_selector: tuple[str, ...] = knob(
        ("karpenter.sh/capacity-type=spot",), "LABEL=VALUE of spot nodes (GKE: cloud.google.com/gke-spot=true)"
    )
    spot_taint: str = knob("", "KEY=VALUE of the spot nodes' NoSchedule taint; empty: spot_selector is tolerated")


@dataclass(frozen=True)
class Store:
    """What all machines see. Exactly one of claim, share, bucket."""

    claim: str = knob("objgan-data", "PersistentVolumeClaim (ReadWriteMany), mounted at /data (KubeRay)")
    size: str = knob("", "make that claim, of this size; empty: it is there")
    storage_class: str = knob("", "storage class of the claim to make; empty: the cluster's default")
    share: str = knob("", "NFS export HOST:/PATH, mounted at /data (ray up)")
    bucket: str = knob("", "s3://... or gs://... instead of a mount; then job.command says what is where")
    secret: str = knob("", "Secret whose keys become variables: AWS_ACCESS_KEY_ID and the like")


@dataclass(frozen=True)
class Mlflow:
    """The MLflow server."""

    uri: str = knob("http://mlflow.mlflow.svc:5000", "MLFLOW_TRACKING_URI, without a password in it")
    secret: str = knob("", "Secret with MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Security:
    """Who may do what. Token authentication has no switch: it is always on."""

    token: str = knob("objgan-ray-token", "Secret with key auth_token (KubeRay)")
    token_file: str = knob("~/.ray/auth_token", "the token's file on this machine, mode 0600 (ray up)")
    user: int = knob(1000, "user and group of every process")
    network_policy: bool = knob(True, "let in only the cluster itself, KubeRay's operator and Prometheus")
    operator_namespace: str = knob("ray-system", "namespace of KubeRay's operator")
    prometheus_namespace: str = knob("monitoring", "namespace of Prometheus")


@dataclass(frozen=True)
class Monitoring:
    """Objects of the Prometheus operator."""

    scrape: bool = knob(True, "a PodMonitor")
    rules: bool = knob(False, "a PrometheusRule with the alerts; one per Prometheus is enough")
    release: str = knob("prometheus", "label `release` by which Prometheus finds both; empty: none")


@dataclass(frozen=True)
class Kueue:
    """Queueing."""

    queue: str = knob("", "LocalQueue to wait in; empty: no Kueue")
    priority: str = knob("", "WorkloadPriorityClass")
    cluster_queue: str = knob("", "make that LocalQueue, of this ClusterQueue; empty: it is there")


@dataclass(frozen=True)
class Cloud:
    """What `ray up` rents."""

    region: str = knob("", "region")
    zone: str = knob("", "availability zone(s)")
    project: str = knob("", "GCP project")
    head_type: str = knob("", "machine type of the head")
    worker_type: str = knob("", "machine type of a worker")
    accelerator: str = knob("", "GCP accelerator type; empty: the machine type has its GPUs built in")
    machine_image: str = knob("", "AMI or source image; AWS, empty: Ray's choice for the region")
    ssh_user: str = knob("ubuntu", "user of that image")


@dataclass(frozen=True)
class Settings:
    """All of it."""

    kind: Kind = knob("RayJob", "what is rendered; the preset decides")  # noqa: RUF009
    name: str = knob("objgan", "name of job or cluster, and of the run: the same name goes on with it")
    namespace: str = knob("objgan", "Kubernetes namespace")
    image: str = knob("objgan:cuda", "container image, with its registry")
    pull: Literal["IfNotPresent", "Always", "Never"] = knob("IfNotPresent", "imagePullPolicy")
    pull_secret: str = knob("", "Secret for the registry")
    ray_version: str = knob("2.60.0", "Ray of the image")
    job: Job = Job()
    head: Head = Head()
    workers: Workers = Workers()
    store: Store = Store()
    mlflow: Mlflow = Mlflow()
    security: Security = Security()
    monitoring: Monitoring = Monitoring()
    kueue: Kueue = Kueue()
    cloud: Cloud = Cloud()

    @property
    def autoscales(self) -> bool:
        """Whether the number of workers changes."""
        return self.workers.max > self.workers.min

    @property
    def kubernetes(self) -> bool:
        """Whether KubeRay runs it."""
        return self.kind in ("RayJob", "RayCluster")
