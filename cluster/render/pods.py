"""Pod templates: head, worker, submitter. Requests equal limits, nobody is root, nothing is mounted but the store."""

from typing import Any

from cluster.render.settings import Settings
from cluster.render.steps import DATA

Template = dict[str, Any]

LABEL = "objgan-cluster"
"""Label of every pod of a cluster, for policies and monitors: KubeRay gives each cluster of a RayJob a new name."""

PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
HEAD_SHM = "2Gi"

CHECKPOINT_SECONDS = 120
"""Time of a run for its checkpoint: after `stop`, after SIGTERM to the head, after a notice of preemption."""

STOP_SECONDS = str(CHECKPOINT_SECONDS)
"""RAY_JOB_STOP_WAIT_TIME_S. Ray's default, 3 s, kills a job before its checkpoint is written."""

TERMINATION_SECONDS = CHECKPOINT_SECONDS + 30
"""terminationGracePeriodSeconds: after SIGTERM, Ray drains for CHECKPOINT_SECONDS and then ends its processes."""

_DRAIN = {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(CHECKPOINT_SECONDS)}
"""`ray start` announces SIGTERM to the cluster and waits this long (30 s by default) before it ends its processes."""

AUTOSCALER_PORTS = {"as-metrics": 44217, "dash-metrics": 44227}


def head(settings: Settings) -> Template:
    """The head's pod, kept off spot machines."""
    ports = PORTS | AUTOSCALER_PORTS
    container = _container(settings, "ray-head", ports) | {
        "resources": _resources(
            {
                "cpu": str(settings.head.cpus),
                "memory": settings.head.memory,
                "ephemeral-storage": settings.head.disk,
            }
        ),
        # Ray answers health checks without a token.
        "readinessProbe": _probe("/api/gcs_healthz", PORTS["dashboard"], failures=10),
        "livenessProbe": _probe("/api/gcs_healthz", PORTS["dashboard"], failures=120),
    }
    container["env"] = [*container["env"], {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": STOP_SECONDS}]
    pod = _ray_pod(settings, container, HEAD_SHM) | _off_spot(settings)
    if settings.autoscales:
        pod["volumes"].append(_account())
    return _template(settings, pod | _selector(settings.head.selector))


def worker(settings: Settings) -> Template:
    """A worker's pod."""
    workers = settings.workers
    amounts = {"cpu": str(workers.cpus), "memory": workers.memory, "ephemeral-storage": workers.disk}
    if workers.gpus:
        amounts["nvidia.com/gpu"] = str(workers.gpus)
    container = _container(settings, "ray-worker", {"metrics": PORTS["metrics"]}) | {
        "resources": _resources(amounts),
        "readinessProbe": _probe("/api/local_raylet_healthz", 52365, failures=10),
        "livenessProbe": _probe("/api/local_raylet_healthz", 52365, failures=120),
    }
    pod = _ray_pod(settings, container, workers.shm)
    return _template(settings, pod | _selector(_worker_labels(settings)) | _tolerations(settings))


def submitter(settings: Settings) -> Template:
    """The pod that submits the job and prints its log; KubeRay adds its command and the token."""
    small = _resources({"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"})
    container = {
        "name": "ray-job-submitter",
        "image": settings.image,
        "imagePullPolicy": settings.pull,
        "resources": small,
        "securityContext": _CONFINED,
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": _user(settings),
        "containers": [container],
        **_off_spot(settings),
        **_pull_secret(settings),
    }
    return _template(settings, pod | _selector(settings.head.selector))


_CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def autoscaler(settings: Settings) -> dict[str, Any]:
    """The autoscaler beside the head."""
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": settings.workers.idle_seconds,
        "resources": _resources({"cpu": "500m", "memory": "1Gi"}),
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": _ACCOUNT, "mountPath": _ACCOUNT_PATH, "readOnly": True}],
    }


_ACCOUNT, _ACCOUNT_PATH = "autoscaler-account", "/var/run/secrets/kubernetes.io/serviceaccount"


def _account() -> dict[str, Any]:
    """The service account's token, which only the autoscaler's container mounts.

    The autoscaler changes the number of workers through Kubernetes' API. Jobs run in the container beside it, and the
    pod's own mount (`automountServiceAccountToken`) would also give them the token.
    """
    sources: list[dict[str, Any]] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": _ACCOUNT, "projected": {"sources": sources}}


def _template(settings: Settings, pod: Template) -> Template:
    return {"metadata": {"labels": {LABEL: settings.name}}, "spec": pod}


def _container(settings: Settings, name: str, ports: dict[str, int]) -> dict[str, Any]:
    secrets = [secret for secret in (settings.store.secret, settings.mlflow.secret) if secret]
    container: dict[str, Any] = {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "env": [{"name": "MLFLOW_TRACKING_URI", "value": settings.mlflow.uri}, dict(_DRAIN)],
        "envFrom": [{"secretRef": {"name": secret}} for secret in secrets],
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    if settings.store.claim:
        container["workingDir"] = DATA
        container["volumeMounts"].append({"name": "data", "mountPath": DATA})
    return {key: value for key, value in container.items() if value}


def _ray_pod(settings: Settings, container: dict[str, Any], shm: str) -> Template:
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}}]
    if settings.store.claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": settings.store.claim}})
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": TERMINATION_SECONDS,
        "securityContext": _user(settings),
        "containers": [container],
        "volumes": volumes,
        **_pull_secret(settings),
    }


def _user(settings: Settings) -> dict[str, Any]:
    user = settings.security.user
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _pull_secret(settings: Settings) -> dict[str, Any]:
    return {"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}


def _resources(amounts: dict[str, str]) -> dict[str, Any]:
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _probe(path: str, port: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": 10,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def pairs(labels: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE settings as a mapping."""
    return {key: value for key, _, value in (label.partition("=") for label in labels)}


def _selector(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"nodeSelector": pairs(labels)} if labels else {}


def _worker_labels(settings: Settings) -> tuple[str, ...]:
    workers = settings.workers
    return workers.selector + (workers.spot_selector if workers.spot else ())


def _off_spot(settings: Settings) -> dict[str, Any]:
    """Never on a node with all labels of spot nodes, even if the workers use no spot nodes."""
    terms = [
        {"key": key, "operator": "NotIn", "values": [value]}
        for key, value in pairs(settings.workers.spot_selector).items()
    ]
    if not terms:
        return {}
    # Terms are alternatives: a node that lacks one of the labels is no spot node.
    alternatives = [{"matchExpressions": [term]} for term in terms]
    return {
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": alternatives}}
        }
    }


def _tolerations(settings: Settings) -> dict[str, Any]:
    workers, tolerated = settings.workers, []
    if workers.gpus:
        tolerated.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if workers.spot:
        taints = (workers.spot_taint,) if workers.spot_taint else workers.spot_selector
        tolerated += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in pairs(taints).items()
        ]
    return {"tolerations": tolerated} if tolerated else {}
