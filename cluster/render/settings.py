"""Settings of a cluster: one frozen tree, one dotted name per setting, the source of every manifest."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cluster.render import forms
from cluster.render.forms import OR_EMPTY
from objgan.sections import Section

Kind = Literal["RayJob", "RayCluster", "aws", "gcp"]


class ClusterSection(Section):
    """Frozen settings. `render` has read the values as YAML, so that types are compared strictly."""

    model_config = ConfigDict(strict=True)


class Job(ClusterSection):
    """Commands, deadlines and retries of a RayJob."""

    recipe: forms.Recipe = Field("paper", description="recipe of the pipelines' commands")
    images: Annotated[forms.Location, OR_EMPTY] = Field(
        "", description="COCO images: folder or URI; empty: the drawn sample data"
    )
    instances: Annotated[forms.Location, OR_EMPTY] = Field("", description="COCO's instances JSON, as the pods see it")
    captions: Annotated[forms.Location, OR_EMPTY] = Field("", description="COCO's captions JSON, as the pods see it")
    split: forms.Location = Field("hash", description="prepare's --split: hash, coco or a JSON file")
    options: forms.Assignments = Field((), description="NAME=VALUE settings for every command (their --set)")
    command: Annotated[forms.CommandLine, OR_EMPTY] = Field(
        "", description="one command line instead of prepare, train (four stages) and register"
    )
    retries: forms.Whole = Field(2, description="retries of a command in the same cluster after exit code 1")
    new_clusters: forms.Whole = Field(
        0,
        description="new clusters after a failure (backoffLimit); over 0, KubeRay also retries a job without resources",
    )
    start_seconds: forms.Positive = Field(
        3600, description="seconds until the job must run (preRunningDeadlineSeconds)"
    )
    run_seconds: forms.Positive = Field(
        14 * 86400, description="seconds until the job must be done (activeDeadlineSeconds)"
    )
    keep_seconds: forms.Whole = Field(
        600, description="seconds that the cluster stays after the end, for its logs (ttlSecondsAfterFinished)"
    )


class Head(ClusterSection):
    """The head: control plane and driver. It takes no tasks, and never runs on spot machines."""

    cpus: forms.Positive = Field(4, description="CPUs")
    memory: forms.Quantity = Field("16Gi", description="memory")
    disk: forms.Quantity = Field("50Gi", description="ephemeral storage; disk of the machine with ray up")
    selector: forms.Labels = Field((), description="LABEL=VALUE of the nodes that it may run on")


class Workers(ClusterSection):
    """The workers: all of one kind."""

    min: forms.Positive = Field(1, description="fewest workers, and workers at the start")
    max: forms.Positive = Field(1, description="most workers; over min: autoscaling and elastic training")
    cpus: forms.Positive = Field(8, description="CPUs of each")
    gpus: forms.Whole = Field(0, description="GPUs of each (nvidia.com/gpu)")
    memory: forms.Quantity = Field("32Gi", description="memory of each, /dev/shm included")
    disk: forms.Quantity = Field("100Gi", description="ephemeral storage of each; disk of the machine with ray up")
    shm: forms.Quantity = Field("8Gi", description="size of /dev/shm: Ray's object store, and NCCL")
    idle_seconds: forms.Whole = Field(300, description="seconds after which an idle worker is released")
    spot: bool = Field(False, description="run on spot machines")
    selector: forms.Labels = Field((), description="LABEL=VALUE of the nodes that they may run on")
    spot_selector: forms.Labels = Field(
        ("karpenter.sh/capacity-type=spot",),
        description="LABEL=VALUE of spot nodes (GKE: cloud.google.com/gke-spot=true)",
    )
    spot_taint: Annotated[forms.Taint, OR_EMPTY] = Field(
        "", description="KEY=VALUE of the spot nodes' NoSchedule taint; empty: spot_selector is tolerated"
    )


class Store(ClusterSection):
    """Storage that all machines share: exactly one of claim, share and bucket."""

    claim: Annotated[forms.ObjectName, OR_EMPTY] = Field(
        "objgan-data", description="PersistentVolumeClaim (ReadWriteMany), mounted at /data (KubeRay)"
    )
    size: Annotated[forms.Quantity, OR_EMPTY] = Field(
        "", description="create the claim with this size; empty: it exists"
    )
    storage_class: Annotated[forms.ObjectName, OR_EMPTY] = Field(
        "", description="storage class of the new claim; empty: the cluster's default"
    )
    share: Annotated[forms.Share, OR_EMPTY] = Field("", description="NFS export HOST:/PATH, mounted at /data (ray up)")
    bucket: Annotated[forms.Bucket, OR_EMPTY] = Field(
        "", description="s3://... or gs://... instead of a mount; needs job.command, which names the files in it"
    )
    secret: Annotated[forms.ObjectName, OR_EMPTY] = Field(
        "", description="Secret whose keys become environment variables, such as AWS_ACCESS_KEY_ID"
    )


class Mlflow(ClusterSection):
    """The MLflow server."""

    uri: forms.ServerUri = Field(
        "http://mlflow.mlflow.svc:5000", description="MLFLOW_TRACKING_URI, without a password in it"
    )
    secret: Annotated[forms.ObjectName, OR_EMPTY] = Field(
        "", description="Secret with MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )


class Security(ClusterSection):
    """Access. Token authentication is always on."""

    token: forms.ObjectName = Field("objgan-ray-token", description="Secret with key auth_token (KubeRay)")
    token_file: forms.Location = Field(
        "~/.ray/auth_token", description="the token's file on this machine, mode 0600 (ray up)"
    )
    user: forms.Positive = Field(1000, description="user and group of every process")
    network_policy: bool = Field(True, description="admit only the cluster itself, KubeRay's operator and Prometheus")
    operator_namespace: forms.Label = Field("ray-system", description="namespace of KubeRay's operator")
    operator_labels: forms.Labels = Field(
        ("app.kubernetes.io/component=kuberay-operator",),
        description="LABEL=VALUE of the operator's pods; Helm's and kustomize's operators have the default",
    )
    prometheus_namespace: forms.Label = Field("monitoring", description="namespace of Prometheus")


class Monitoring(ClusterSection):
    """Resources of the Prometheus operator."""

    scrape: bool = Field(True, description="create a PodMonitor")
    rules: bool = Field(False, description="create a PrometheusRule with the alerts; one per Prometheus is enough")
    release: Annotated[forms.LabelValue, OR_EMPTY] = Field(
        "prometheus", description="label `release` by which Prometheus finds both; empty: none"
    )


class Kueue(ClusterSection):
    """Queueing by Kueue."""

    queue: Annotated[forms.Label, OR_EMPTY] = Field("", description="LocalQueue of the job; empty: no Kueue")
    priority: Annotated[forms.Label, OR_EMPTY] = Field("", description="WorkloadPriorityClass")
    cluster_queue: Annotated[forms.ObjectName, OR_EMPTY] = Field(
        "", description="create the LocalQueue for this ClusterQueue; empty: it exists"
    )


class Cloud(ClusterSection):
    """Machines that `ray up` rents."""

    region: Annotated[forms.CloudWord, OR_EMPTY] = Field("", description="region")
    zone: Annotated[forms.Zones, OR_EMPTY] = Field("", description="availability zone(s)")
    project: Annotated[forms.CloudWord, OR_EMPTY] = Field("", description="GCP project")
    head_type: Annotated[forms.CloudWord, OR_EMPTY] = Field("", description="machine type of the head")
    worker_type: Annotated[forms.CloudWord, OR_EMPTY] = Field("", description="machine type of a worker")
    accelerator: Annotated[forms.CloudWord, OR_EMPTY] = Field(
        "", description="GCP accelerator type; empty: the machine type has its GPUs built in"
    )
    machine_image: Annotated[forms.CloudWord, OR_EMPTY] = Field(
        "", description="AMI or source image; empty, AWS only: Ray's choice for the region"
    )
    ssh_user: forms.User = Field("ubuntu", description="user of that image")


class Settings(ClusterSection):
    """All settings."""

    kind: Kind = Field("RayJob", description="resource to render, set by the preset")
    name: forms.Name = Field(
        "objgan", description="name of the job or cluster, and of its run; the same name resumes the run"
    )
    namespace: forms.Label = Field("objgan", description="Kubernetes namespace")
    image: forms.Image = Field("objgan:cuda", description="container image, with its registry")
    pull: Literal["IfNotPresent", "Always", "Never"] = Field("IfNotPresent", description="imagePullPolicy")
    pull_secret: Annotated[forms.ObjectName, OR_EMPTY] = Field("", description="Secret for the registry")
    ray_version: forms.Version = Field("2.60.0", description="version of Ray in the image")
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
