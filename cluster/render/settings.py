"""Settings of a cluster: one frozen tree, one dotted name per setting, the source of every manifest.

Their types reject what Kubernetes, Ray, Docker or a shell would reject on the cluster.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WrapValidator

from objgan.errors import unknown
from objgan.sections import Section
from pipelines.recipes import RECIPES

T = TypeVar("T")
_LARGEST = 2**31 - 1
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
Kind = Literal["RayJob", "RayCluster", "aws", "gcp"]


def form(words: str, pattern: str, longest: int = 253) -> BeforeValidator:
    """Check that a value is a text of a pattern. words: the form, for the error."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"expected {words}, at most {longest} characters")
        return value

    return BeforeValidator(check)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """`A=1` is a list of one text, `[A=1, B=2]` of two."""
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


def _each_once(texts: tuple[str, ...]) -> tuple[str, ...]:
    names = [text.partition("=")[0] for text in texts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is given twice; give it once")
    return texts


def _known(recipe: str) -> str:
    if recipe not in RECIPES:
        raise ValueError(str(unknown("recipe", recipe, RECIPES)))
    return recipe


# A text that may be left out.
OrEmpty = Annotated[T, WrapValidator(lambda value, check: value if value == "" else check(value))]

Whole = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]

Recipe = Annotated[str, AfterValidator(_known)]
Label = Annotated[str, form("a DNS label (small letters, digits and dashes)", _LABEL, 63)]
# KubeRay appends to the name of a RayJob for clusters and services.
Name = Annotated[
    str, form("a DNS label (small letters, digits and dashes, from a letter on)", r"[a-z]([-a-z0-9]*[a-z0-9])?", 40)
]
ObjectName = Annotated[
    str, form("the name of a Kubernetes object (DNS labels, joined by dots)", rf"{_LABEL}(\.{_LABEL})*")
]
LabelValue = Annotated[str, form("the value of a label (letters, digits, '-', '_' and '.')", _WORD, 63)]
_Pair = Annotated[
    str,
    form(
        "KEY=VALUE, a Kubernetes label; several: [A=1, B=2]",
        rf"({_LABEL}(\.{_LABEL})*/)?(?=[^/=]{{1,63}}=)({_WORD})=(?=.{{1,63}}$)({_WORD})",
        380,
    ),
]
Labels = Annotated[tuple[_Pair, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
Taint = _Pair
_Annotation = Annotated[
    str,
    form(
        "KEY=VALUE, a Kubernetes annotation; several: [A=1, B=2]",
        rf"({_LABEL}(\.{_LABEL})*/)?(?=[^/=]{{1,63}}=)({_WORD})=[^\x00-\x1f\x7f]*",
        4096,
    ),
]
Annotations = Annotated[tuple[_Annotation, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
_Toleration = Annotated[
    str,
    form(
        "KEY[=VALUE][:EFFECT], a taint (EFFECT: NoSchedule, PreferNoSchedule, NoExecute; none: all); several: [A, B]",
        rf"({_LABEL}(\.{_LABEL})*/)?(?=[^/=:]{{1,63}}([=:]|$))({_WORD})(=(?=[^:]{{1,63}}(:|$))({_WORD}))?"
        r"(:(NoSchedule|PreferNoSchedule|NoExecute))?",
        400,
    ),
]
Tolerations = Annotated[tuple[_Toleration, ...], BeforeValidator(_as_tuple)]
_Assignment = Annotated[
    str,
    form(
        "KEY=VALUE without control characters; several: [A=1, B=2]", r"[A-Za-z_][A-Za-z0-9_.]*=[^\x00-\x1f\x7f]+", 1024
    ),
]
Assignments = Annotated[tuple[_Assignment, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
Image = Annotated[
    str,
    form(
        "the name of an image, like registry.example/objgan:cuda",
        r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+|/)[a-z0-9]+)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        400,
    ),
]
Digest = Annotated[str, form("sha256: and 64 digits from 0 to f", r"sha256:[0-9a-f]{64}", 71)]
Quantity = Annotated[str, form("a whole number with Mi, Gi or Ti, for example 16Gi", r"[1-9][0-9]*(Mi|Gi|Ti)", 12)]
Version = Annotated[str, form("a version, like 2.60.0", r"[0-9]+\.[0-9]+(\.[0-9]+)?([a-z]+[0-9]+)?", 20)]
Location = Annotated[
    str, form("a path or a URI without control characters", r"[^-+\x00-\x20\x7f][^\x00-\x1f\x7f]*", 1024)
]
CommandLine = Annotated[str, form("one command line", r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*", 4096)]
ServerUri = Annotated[
    str,
    form(
        "the URI of an MLflow server, like http://mlflow.example:5000", r"[a-z][a-z0-9+.-]*://[^\x00-\x20\x7f]+", 1024
    ),
]
Bucket = Annotated[
    str,
    form(
        "s3://BUCKET or gs://BUCKET, with a folder or without",
        r"(s3|gs)://[a-z0-9][a-z0-9._-]*([/?][^\x00-\x20\x7f]*)?",
        1024,
    ),
]
Share = Annotated[str, form("an NFS export, HOST:/PATH", r"[A-Za-z0-9][A-Za-z0-9._-]*:/[A-Za-z0-9._/-]*", 1024)]
CloudWord = Annotated[str, form("a name of the cloud (letters, digits and . _ : / -)", r"[A-Za-z0-9][A-Za-z0-9._:/-]*")]
Zones = Annotated[str, form("a zone, or several with commas between them", r"[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*")]
User = Annotated[str, form("the name of a user", r"[a-z_][a-z0-9_-]*", 32)]


class ClusterSection(Section):
    """Frozen settings. `render` has read the values as YAML, so that types are compared strictly."""

    model_config = ConfigDict(strict=True)


class Job(ClusterSection):
    """Commands, deadlines and retries of a RayJob."""

    recipe: Recipe = Field("paper", description="recipe of the pipelines' commands")
    images: OrEmpty[Location] = Field("", description="COCO images: folder or URI; empty: the drawn sample data")
    instances: OrEmpty[Location] = Field("", description="COCO's instances JSON, as the pods see it")
    captions: OrEmpty[Location] = Field("", description="COCO's captions JSON, as the pods see it")
    split: Location = Field("hash", description="prepare's --split: hash, coco or a JSON file")
    options: Assignments = Field((), description="NAME=VALUE settings for every command (their --set)")
    command: OrEmpty[CommandLine] = Field(
        "", description="one command line instead of prepare, train (four stages) and register"
    )
    retries: Whole = Field(2, description="retries of a command in the same cluster after exit code 1")
    new_clusters: Whole = Field(
        0,
        description="new clusters after a failure (backoffLimit); over 0, KubeRay also retries a job without resources",
    )
    start_seconds: Positive = Field(3600, description="seconds until the job must run (preRunningDeadlineSeconds)")
    run_seconds: Positive = Field(14 * 86400, description="seconds until the job must be done (activeDeadlineSeconds)")
    keep_seconds: Whole = Field(
        600, description="seconds that the cluster stays after the end, for its logs (ttlSecondsAfterFinished)"
    )


class Head(ClusterSection):
    """The head: control plane and driver. It takes no tasks, and never runs on spot machines."""

    cpus: Positive = Field(4, description="CPUs")
    memory: Quantity = Field("16Gi", description="memory")
    disk: Quantity = Field("50Gi", description="ephemeral storage; disk of the machine with ray up")
    selector: Labels = Field((), description="LABEL=VALUE of the nodes that it may run on, with the submitter")
    tolerations: Tolerations = Field(
        (), description="KEY[=VALUE][:EFFECT] of taints that it and the submitter tolerate (KubeRay)"
    )
    annotations: Annotations = Field((), description="KEY=VALUE annotations of its pod and the submitter's (KubeRay)")
    priority_class: OrEmpty[ObjectName] = Field(
        "", description="PriorityClass of its pod and the submitter's; empty: the cluster's default (KubeRay)"
    )


class Workers(ClusterSection):
    """The workers: all of one kind."""

    min: Positive = Field(1, description="fewest workers, and workers at the start")
    max: Positive = Field(1, description="most workers; over min: autoscaling and elastic training")
    cpus: Positive = Field(8, description="CPUs of each")
    gpus: Whole = Field(0, description="GPUs of each (nvidia.com/gpu)")
    memory: Quantity = Field("32Gi", description="memory of each, /dev/shm included")
    disk: Quantity = Field("100Gi", description="ephemeral storage of each; disk of the machine with ray up")
    shm: Quantity = Field("8Gi", description="size of /dev/shm: Ray's object store, and NCCL")
    idle_seconds: Whole = Field(300, description="seconds after which an idle worker is released")
    spot: bool = Field(False, description="run on spot machines")
    selector: Labels = Field((), description="LABEL=VALUE of the nodes that they may run on")
    spot_selector: Labels = Field(
        ("karpenter.sh/capacity-type=spot",),
        description="LABEL=VALUE of spot nodes (GKE: cloud.google.com/gke-spot=true)",
    )
    spot_taint: OrEmpty[Taint] = Field(
        "", description="KEY=VALUE of the spot nodes' NoSchedule taint; empty: spot_selector is tolerated"
    )
    tolerations: Tolerations = Field(
        (), description="KEY[=VALUE][:EFFECT] of further taints that they tolerate (KubeRay)"
    )
    annotations: Annotations = Field((), description="KEY=VALUE annotations of their pods (KubeRay)")
    priority_class: OrEmpty[ObjectName] = Field(
        "", description="PriorityClass of their pods; empty: the cluster's default (KubeRay)"
    )


class Disruption(ClusterSection):
    """Evictions that Kubernetes could put off: consolidation, upgrades, drains. They stop neither preemption nor loss.

    The annotations are those of Karpenter and of the cluster autoscaler, which then do not remove the pods' nodes.
    """

    protect: Literal["none", "head", "all"] = Field(
        "all",
        description="pods that get karpenter.sh/do-not-disrupt=true and "
        "cluster-autoscaler.kubernetes.io/safe-to-evict=false; head: head and submitter",
    )
    budget: bool = Field(
        False,
        description="create PodDisruptionBudgets: no drain evicts the head, or leaves fewer than workers.min workers",
    )


class Store(ClusterSection):
    """Storage that all machines share: exactly one of claim, share and bucket."""

    claim: OrEmpty[ObjectName] = Field(
        "objgan-data", description="PersistentVolumeClaim (ReadWriteMany), mounted at /data (KubeRay)"
    )
    size: OrEmpty[Quantity] = Field("", description="create the claim with this size; empty: it exists")
    storage_class: OrEmpty[ObjectName] = Field(
        "", description="storage class of the new claim; empty: the cluster's default"
    )
    owner: Literal["fsgroup", "init", "none"] = Field(
        "fsgroup",
        description="who makes the claim writable for security.user; fsgroup: Kubernetes, where the volume's driver "
        "supports it (NFS does not); init: a container of the head that is root and runs first; none: it is writable",
    )
    share: OrEmpty[Share] = Field("", description="NFS export HOST:/PATH, mounted at /data (ray up)")
    bucket: OrEmpty[Bucket] = Field(
        "", description="s3://... or gs://... instead of a mount; needs job.command, which names the files in it"
    )
    secret: OrEmpty[ObjectName] = Field(
        "", description="Secret whose keys become environment variables, such as AWS_ACCESS_KEY_ID"
    )


class Mlflow(ClusterSection):
    """The MLflow server."""

    uri: ServerUri = Field("http://mlflow.mlflow.svc:5000", description="MLFLOW_TRACKING_URI, without a password in it")
    secret: OrEmpty[ObjectName] = Field(
        "", description="Secret with MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )


class Security(ClusterSection):
    """Access. Token authentication is always on."""

    token: ObjectName = Field("objgan-ray-token", description="Secret with key auth_token (KubeRay)")
    token_file: Location = Field(
        "~/.ray/auth_token", description="the token's file on this machine, mode 0600 (ray up)"
    )
    user: Positive = Field(1000, description="user and group of every process")
    network_policy: bool = Field(True, description="admit only the cluster itself, KubeRay's operator and Prometheus")
    operator_namespace: Label = Field("ray-system", description="namespace of KubeRay's operator")
    operator_labels: Labels = Field(
        ("app.kubernetes.io/component=kuberay-operator",),
        description="LABEL=VALUE of the operator's pods; Helm's and kustomize's operators have the default",
    )
    prometheus_namespace: Label = Field("monitoring", description="namespace of Prometheus")


class Monitoring(ClusterSection):
    """Resources of the Prometheus operator."""

    scrape: bool = Field(True, description="create a PodMonitor")
    rules: bool = Field(False, description="create a PrometheusRule with the alerts; one per Prometheus is enough")
    release: OrEmpty[LabelValue] = Field(
        "prometheus", description="label `release` by which Prometheus finds both; empty: none"
    )


class Kueue(ClusterSection):
    """Queueing by Kueue."""

    queue: OrEmpty[Label] = Field("", description="LocalQueue of the job; empty: no Kueue")
    priority: OrEmpty[Label] = Field("", description="WorkloadPriorityClass")
    cluster_queue: OrEmpty[ObjectName] = Field(
        "", description="create the LocalQueue for this ClusterQueue; empty: it exists"
    )


class Cloud(ClusterSection):
    """Machines that `ray up` rents."""

    region: OrEmpty[CloudWord] = Field("", description="region")
    zone: OrEmpty[Zones] = Field("", description="availability zone(s)")
    project: OrEmpty[CloudWord] = Field("", description="GCP project")
    head_type: OrEmpty[CloudWord] = Field("", description="machine type of the head")
    worker_type: OrEmpty[CloudWord] = Field("", description="machine type of a worker")
    accelerator: OrEmpty[CloudWord] = Field(
        "", description="GCP accelerator type; empty: the machine type has its GPUs built in"
    )
    machine_image: OrEmpty[CloudWord] = Field(
        "", description="AMI or source image; empty, AWS only: Ray's choice for the region"
    )
    ssh_user: User = Field("ubuntu", description="user of that image")


class Settings(ClusterSection):
    """All settings."""

    kind: Kind = Field("RayJob", description="resource to render, set by the preset")
    name: Name = Field(
        "objgan", description="name of the job or cluster, and of its run; the same name resumes the run"
    )
    namespace: Label = Field("objgan", description="Kubernetes namespace")
    image: Image = Field("objgan:cuda", description="container image, with its registry")
    digest: OrEmpty[Digest] = Field("", description="sha256:... of the image, which pins it; empty: the tag decides")
    pull: Literal["IfNotPresent", "Always", "Never"] = Field("IfNotPresent", description="imagePullPolicy")
    pull_secret: OrEmpty[ObjectName] = Field("", description="Secret for the registry")
    ray_version: Version = Field("2.60.0", description="version of Ray in the image")
    job: Job = Job()
    head: Head = Head()
    workers: Workers = Workers()
    disruption: Disruption = Disruption()
    store: Store = Store()
    mlflow: Mlflow = Mlflow()
    security: Security = Security()
    monitoring: Monitoring = Monitoring()
    kueue: Kueue = Kueue()
    cloud: Cloud = Cloud()

    @property
    def pinned_image(self) -> str:
        """The image, with its digest if one is set."""
        return f"{self.image}@{self.digest}" if self.digest else self.image

    @property
    def autoscales(self) -> bool:
        """Whether the number of workers changes."""
        return self.workers.max > self.workers.min

    @property
    def kubernetes(self) -> bool:
        """Whether KubeRay runs it."""
        return self.kind in ("RayJob", "RayCluster")
