"""KubeRay's resources: RayJob and RayCluster, with the objects beside them."""

from typing import Any

from cluster.render import pods, services
from cluster.render.checks import object_store
from cluster.render.settings import Settings
from cluster.render.steps import entrypoint

Manifest = dict[str, Any]


def manifests(settings: Settings) -> list[Manifest]:
    """All resources to apply. The Ray resource is last, because it needs the others."""
    return [*services.manifests(settings), _job(settings) if settings.kind == "RayJob" else _cluster(settings)]


def _cluster(settings: Settings) -> Manifest:
    metadata = services.metadata(settings, services.queue_labels(settings))
    if settings.kueue.queue and settings.autoscales:
        # Without this annotation, Kueue keeps the cluster at the size that it admitted.
        metadata["annotations"] = {"kueue.x-k8s.io/elastic-job": "true"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": cluster_spec(settings),
    }


def _job(settings: Settings) -> Manifest:
    job = settings.job
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": services.metadata(settings, services.queue_labels(settings)),
        "spec": {
            "entrypoint": entrypoint(settings),
            "submissionMode": "K8sJobMode",
            # KubeRay also retries PreRunningDeadlineExceeded: only with 0, a job that requests too much runs once.
            # `cluster steps` retries commands that fail, because it knows their exit codes.
            "backoffLimit": job.new_clusters,
            # Ten minutes for a new head after the end of a head. The submitter first checks whether the job exists, so
            # that its retries never start a second job.
            "submitterConfig": {"backoffLimit": 6},
            "preRunningDeadlineSeconds": job.start_seconds,
            "activeDeadlineSeconds": job.run_seconds,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": job.keep_seconds,
            "submitterPodTemplate": pods.submitter(settings),
            "rayClusterSpec": cluster_spec(settings),
        },
    }


def cluster_spec(settings: Settings) -> Manifest:
    """The cluster: a head without tasks, one group of workers, the token."""
    spec: Manifest = {
        "rayVersion": settings.ray_version,
        "authOptions": {"mode": "token", "secretName": settings.security.token},
    }
    if settings.autoscales:
        spec |= {"enableInTreeAutoscaling": True, "autoscalerOptions": pods.autoscaler(settings)}
    head: Manifest = {
        "serviceType": "ClusterIP",
        # No CPUs for tasks: trainers may die with spot machines, the driver must not.
        "rayStartParams": {
            "num-cpus": "0",
            "dashboard-host": "0.0.0.0",
            "object-store-memory": object_store(pods.HEAD_SHM),
        },
        "template": pods.head(settings),
    }
    return spec | {"headGroupSpec": head, "workerGroupSpecs": [_workers(settings)]}


def _workers(settings: Settings) -> Manifest:
    workers = settings.workers
    return {
        "groupName": "spot" if workers.spot else "workers",
        "replicas": workers.min,
        "minReplicas": workers.min,
        "maxReplicas": workers.max,
        "rayStartParams": {"object-store-memory": object_store(workers.shm)},
        "template": pods.worker(settings),
    }
