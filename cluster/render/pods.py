"""Pod templates: head, worker, submitter. Requests equal limits, nothing is mounted but the store.

Nobody is root, except the container of the head that `store.owner=init` adds.
"""

from typing import Any

from cluster.render.settings import Settings
from cluster.render.steps import DATA, give_to

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
    if settings.store.claim and settings.store.owner == "init":
        pod["initContainers"] = [_owner(settings)]
    return _head_template(settings, pod)


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
    pod |= _selector(_worker_labels(settings)) | _tolerations((*_implied(settings), *workers.tolerations))
    pod |= _priority(workers.priority_class)
    protected = settings.disruption.protect == "all"
    return _template(settings, pod, _annotations(workers.annotations, protected))


def submitter(settings: Settings) -> Template:
    """The pod that submits the job and prints its log; KubeRay adds its command and the token."""
    small = _resources({"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"})
    container = {
        "name": "ray-job-submitter",
        "image": settings.pinned_image,
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
    return _head_template(settings, pod)


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


PROTECTED = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
"""Annotations of pods whose nodes Karpenter and the cluster autoscaler leave alone."""


def _head_template(settings: Settings, pod: Template) -> Template:
    """Head and submitter: the same nodes, taints, priority and annotations."""
    head = settings.head
    pod = pod | _selector(head.selector) | _tolerations(head.tolerations) | _priority(head.priority_class)
    return _template(settings, pod, _annotations(head.annotations, settings.disruption.protect != "none"))


def _template(settings: Settings, pod: Template, annotations: dict[str, str]) -> Template:
    metadata: dict[str, Any] = {"labels": {LABEL: settings.name}}
    return {"metadata": metadata | ({"annotations": annotations} if annotations else {}), "spec": pod}


def _annotations(given: tuple[str, ...], protected: bool) -> dict[str, str]:
    """An annotation that the user gives wins."""
    return (PROTECTED if protected else {}) | pairs(given)


def _priority(name: str) -> dict[str, Any]:
    return {"priorityClassName": name} if name else {}


def _owner(settings: Settings) -> dict[str, Any]:
    """Root for a moment: gives the mount and its folder of results to the user of all other containers.

    What lies in the mount keeps its owner.
    """
    user = settings.security.user
    return {
        "name": "owner",
        "image": settings.pinned_image,
        "imagePullPolicy": settings.pull,
        "command": ["sh", "-c", give_to(user)],
        "resources": _resources({"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Gi"}),
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            # Change owners and modes of files of others.
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": DATA}],
    }


def _container(settings: Settings, name: str, ports: dict[str, int]) -> dict[str, Any]:
    secrets = [secret for secret in (settings.store.secret, settings.mlflow.secret) if secret]
    container: dict[str, Any] = {
        "name": name,
        "image": settings.pinned_image,
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
    context: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user}
    if settings.store.owner == "fsgroup":
        context |= {"fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return {**context, "seccompProfile": {"type": "RuntimeDefault"}}


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


def _implied(settings: Settings) -> tuple[str, ...]:
    """Taints that the workers' other settings imply."""
    workers = settings.workers
    taints: tuple[str, ...] = ()
    if workers.spot:
        taints = (workers.spot_taint,) if workers.spot_taint else workers.spot_selector
    return tuple(f"{taint}:NoSchedule" for taint in (*(("nvidia.com/gpu",) if workers.gpus else ()), *taints))


def _tolerations(taints: tuple[str, ...]) -> dict[str, Any]:
    tolerated = [toleration(taint) for taint in taints]
    return {"tolerations": tolerated} if tolerated else {}


def toleration(taint: str) -> dict[str, str]:
    """KEY[=VALUE][:EFFECT] as Kubernetes has it. Without a value every value, without an effect every effect."""
    rest, _, effect = taint.partition(":")
    key, equals, value = rest.partition("=")
    made = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return made | ({"effect": effect} if effect else {})
