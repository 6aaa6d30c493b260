"""Settings of a cluster: one frozen tree, one dotted name per setting, the one source of every manifest.

A setting is a field made by `setting`, which holds the text that `render --list` shows and the form of its values.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cluster import forms
from cluster.forms import Form, Number

Kind = Literal["RayJob", "RayCluster", "aws", "gcp"]


def setting(default: Any, text: str, form: Form | None = None) -> Any:
    """A field with a default, a text that says what it does, and a form (switches and choices have none)."""
    return dataclasses.field(default=default, metadata={"text": text, "form": form})


@dataclass(frozen=True)
class Job:
    """What a RayJob runs, how long it may take, how often it is tried."""

    recipe: Literal["tiny", "small", "paper", "fast"] = setting("paper", "recipe of the pipelines' commands")
    images: str = setting("", "COCO images: folder or URI; empty: a drawn data set", forms.LOCATION.or_empty)
    instances: str = setting("", "COCO's instances JSON, seen from the pods", forms.LOCATION.or_empty)
    captions: str = setting("", "COCO's captions JSON, seen from the pods", forms.LOCATION.or_empty)
    split: str = setting("hash", "prepare's --split: hash, coco or a JSON file", forms.LOCATION)
    options: tuple[str, ...] = setting((), "NAME=VALUE settings for every command (their --set)", forms.SETTING)
    command: str = setting(
        "", "one command line instead of prepare, train (four stages) and register", forms.COMMAND.or_empty
    )
    retries: int = setting(2, "run a command again, in the same cluster, so many times after exit code 1", Number(0))
    new_clusters: int = setting(
        0,
        "new clusters after a failure (backoffLimit); over 0, KubeRay also repeats an ask that cannot be met",
        Number(0),
    )
    start_seconds: int = setting(3600, "give up when it does not run by then (preRunningDeadlineSeconds)", Number(1))
    run_seconds: int = setting(14 * 86400, "give up when it is not done by then (activeDeadlineSeconds)", Number(1))
    keep_seconds: int = setting(
        600, "keep the cluster so long after the end, for its logs (ttlSecondsAfterFinished)", Number(0)
    )


@dataclass(frozen=True)
class Head:
    """The head: control plane and driver. It takes no tasks, and never runs on spot machines."""

    cpus: int = setting(4, "CPUs", Number(1))
    memory: str = setting("16Gi", "memory", forms.QUANTITY)
    disk: str = setting("50Gi", "ephemeral storage; disk of the machine with ray up", forms.QUANTITY)
    selector: tuple[str, ...] = setting((), "LABEL=VALUE of nodes it may run on", forms.PAIR)


@dataclass(frozen=True)
class Workers:
    """The workers: all of one kind."""

    min: int = setting(1, "workers at the start, and the fewest", Number(1))
    max: int = setting(1, "the most; over min: autoscaling, and elastic training", Number(1))
    cpus: int = setting(8, "CPUs of each", Number(1))
    gpus: int = setting(0, "GPUs of each (nvidia.com/gpu)", Number(0))
    memory: str = setting("32Gi", "memory of each, /dev/shm included", forms.QUANTITY)
    disk: str = setting("100Gi", "ephemeral storage of each; disk of the machine with ray up", forms.QUANTITY)
    shm: str = setting("8Gi", "size of /dev/shm: Ray's object store, and NCCL", forms.QUANTITY)
    idle_seconds: int = setting(300, "a worker without work is given back after this", Number(0))
    spot: bool = setting(False, "run on spot machines")
    selector: tuple[str, ...] = setting((), "LABEL=VALUE of nodes they may run on", forms.PAIR)
    spot_selector: tuple[str, ...] = setting(
        ("karpenter.sh/capacity-type=spot",),
        "LABEL=VALUE of spot nodes (GKE: cloud.google.com/gke-spot=true)",
        forms.PAIR,
    )
    spot_taint: str = setting(
        "", "KEY=VALUE of the spot nodes' NoSchedule taint; empty: spot_selector is tolerated", forms.PAIR.or_empty
    )


@dataclass(frozen=True)
class Store:
    """What all machines see. Exactly one of claim, share, bucket."""

    claim: str = setting(
        "objgan-data", "PersistentVolumeClaim (ReadWriteMany), mounted at /data (KubeRay)", forms.OBJECT.or_empty
    )
    size: str = setting("", "make that claim, of this size; empty: it is there", forms.QUANTITY.or_empty)
    storage_class: str = setting(
        "", "storage class of the claim to make; empty: the cluster's default", forms.OBJECT.or_empty
    )
    share: str = setting("", "NFS export HOST:/PATH, mounted at /data (ray up)", forms.SHARE.or_empty)
    bucket: str = setting(
        "", "s3://... or gs://... instead of a mount; then job.command says what is where", forms.BUCKET.or_empty
    )
    secret: str = setting(
        "", "Secret whose keys become variables: AWS_ACCESS_KEY_ID and the like", forms.OBJECT.or_empty
    )


@dataclass(frozen=True)
class Mlflow:
    """The MLflow server."""

    uri: str = setting("http://mlflow.mlflow.svc:5000", "MLFLOW_TRACKING_URI, without a password in it", forms.TRACKING)
    secret: str = setting(
        "", "Secret with MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN", forms.OBJECT.or_empty
    )


@dataclass(frozen=True)
class Security:
    """Who may do what. Token authentication has no switch: it is always on."""

    token: str = setting("objgan-ray-token", "Secret with key auth_token (KubeRay)", forms.OBJECT)
    token_file: str = setting(
        "~/.ray/auth_token", "the token's file on this machine, mode 0600 (ray up)", forms.LOCATION
    )
    user: int = setting(1000, "user and group of every process", Number(1))
    network_policy: bool = setting(True, "let in only the cluster itself, KubeRay's operator and Prometheus")
    operator_namespace: str = setting("ray-system", "namespace of KubeRay's operator", forms.LABEL)
    operator_labels: tuple[str, ...] = setting(
        ("app.kubernetes.io/component=kuberay-operator",),
        "LABEL=VALUE of the operator's pods; Helm's and kustomize's operators have the default",
        forms.PAIR,
    )
    prometheus_namespace: str = setting("monitoring", "namespace of Prometheus", forms.LABEL)


@dataclass(frozen=True)
class Monitoring:
    """Objects of the Prometheus operator."""

    scrape: bool = setting(True, "a PodMonitor")
    rules: bool = setting(False, "a PrometheusRule with the alerts; one per Prometheus is enough")
    release: str = setting(
        "prometheus", "label `release` by which Prometheus finds both; empty: none", forms.LABEL_VALUE.or_empty
    )


@dataclass(frozen=True)
class Kueue:
    """Queueing."""

    queue: str = setting("", "LocalQueue to wait in; empty: no Kueue", forms.LABEL.or_empty)
    priority: str = setting("", "WorkloadPriorityClass", forms.LABEL.or_empty)
    cluster_queue: str = setting(
        "", "make that LocalQueue, of this ClusterQueue; empty: it is there", forms.OBJECT.or_empty
    )


@dataclass(frozen=True)
class Cloud:
    """What `ray up` rents."""

    region: str = setting("", "region", forms.CLOUD_WORD.or_empty)
    zone: str = setting("", "availability zone(s)", forms.ZONES.or_empty)
    project: str = setting("", "GCP project", forms.CLOUD_WORD.or_empty)
    head_type: str = setting("", "machine type of the head", forms.CLOUD_WORD.or_empty)
    worker_type: str = setting("", "machine type of a worker", forms.CLOUD_WORD.or_empty)
    accelerator: str = setting(
        "", "GCP accelerator type; empty: the machine type has its GPUs built in", forms.CLOUD_WORD.or_empty
    )
    machine_image: str = setting(
        "", "AMI or source image; AWS, empty: Ray's choice for the region", forms.CLOUD_WORD.or_empty
    )
    ssh_user: str = setting("ubuntu", "user of that image", forms.USER)


@dataclass(frozen=True)
class Settings:
    """All of it."""

    kind: Kind = setting("RayJob", "what is rendered; the preset decides")  # noqa: RUF009
    name: str = setting("objgan", "name of job or cluster, and of the run: the same name goes on with it", forms.NAME)
    namespace: str = setting("objgan", "Kubernetes namespace", forms.LABEL)
    image: str = setting("objgan:cuda", "container image, with its registry", forms.IMAGE)
    pull: Literal["IfNotPresent", "Always", "Never"] = setting("IfNotPresent", "imagePullPolicy")
    pull_secret: str = setting("", "Secret for the registry", forms.OBJECT.or_empty)
    ray_version: str = setting("2.60.0", "Ray of the image", forms.VERSION)
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
