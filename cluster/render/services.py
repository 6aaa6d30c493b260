"""Resources beside the Ray resource: claim, queue, network policy, disruption budgets, monitor, alerts."""

from typing import Any

from cluster.render.alerts import rules
from cluster.render.pods import AUTOSCALER_PORTS, LABEL, PORTS, pairs
from cluster.render.settings import Settings

Manifest = dict[str, Any]

KUEUE = "kueue.x-k8s.io/v1beta2"
"""Kueue's API from 0.15 on; 0.20 serves the earlier v1beta1 no more."""


def manifests(settings: Settings) -> list[Manifest]:
    """The resources that the settings enable."""
    resources = []
    if settings.store.size:
        resources.append(_claim(settings))
    if settings.kueue.cluster_queue:
        resources.append(_queue(settings))
    if settings.security.network_policy:
        resources.append(_policy(settings))
    if settings.disruption.budget:
        resources += [_budget(settings, "head", 1), _budget(settings, "worker", settings.workers.min)]
    if settings.monitoring.scrape:
        resources.append(_monitor(settings))
    if settings.monitoring.rules:
        resources.append(_rules(settings))
    return resources


def metadata(settings: Settings, labels: dict[str, str] | None = None, name: str = "") -> Manifest:
    """Name, namespace and labels."""
    return {
        "name": name or settings.name,
        "namespace": settings.namespace,
        "labels": {LABEL: settings.name, **(labels or {})},
    }


def queue_labels(settings: Settings) -> dict[str, str]:
    """Labels that assign a resource to Kueue."""
    labels = {"queue-name": settings.kueue.queue, "priority-class": settings.kueue.priority}
    return {f"kueue.x-k8s.io/{key}": value for key, value in labels.items() if value}


def _claim(settings: Settings) -> Manifest:
    store = settings.store
    spec: Manifest = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": store.size}}}
    if store.storage_class:
        spec["storageClassName"] = store.storage_class
    named = metadata(settings, name=store.claim)
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": named, "spec": spec}


def _queue(settings: Settings) -> Manifest:
    return {
        "apiVersion": KUEUE,
        "kind": "LocalQueue",
        "metadata": {"name": settings.kueue.queue, "namespace": settings.namespace},
        "spec": {"clusterQueue": settings.kueue.cluster_queue},
    }


def _policy(settings: Settings) -> Manifest:
    """Ingress only: outgoing traffic (storage, MLflow, Kubernetes' API) differs in every cluster."""
    security = settings.security
    own = {"podSelector": {"matchLabels": {LABEL: settings.name}}}
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": security.operator_namespace}},
        "podSelector": {"matchLabels": pairs(security.operator_labels)},
    }
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": security.prometheus_namespace}}}
    metrics = [PORTS["metrics"], *AUTOSCALER_PORTS.values()]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(settings),
        "spec": {
            "podSelector": own["podSelector"],
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [own]},
                {"from": [operator], "ports": [{"protocol": "TCP", "port": PORTS["dashboard"]}]},
                {"from": [prometheus], "ports": [{"protocol": "TCP", "port": port} for port in metrics]},
            ],
        },
    }


def _budget(settings: Settings, role: str, least: int) -> Manifest:
    """Evictions may not leave fewer pods of a role. A count, because Kubernetes computes no shares of a RayCluster."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(settings, name=f"{settings.name}-{role}"),
        "spec": {
            "minAvailable": least,
            # Pods that are not ready keep no node from its drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {LABEL: settings.name, "ray.io/node-type": role}},
        },
    }


def _monitor(settings: Settings) -> Manifest:
    """Selects pods, not services: the services of a RayJob change their names, and workers have none."""
    ports = ["metrics", *AUTOSCALER_PORTS]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(settings, _release(settings)),
        "spec": {
            "selector": {"matchLabels": {LABEL: settings.name}},
            "podTargetLabels": ["ray.io/cluster", "ray.io/node-type"],
            "podMetricsEndpoints": [{"port": port, "path": "/metrics", "interval": "15s"} for port in ports],
        },
    }


def _rules(settings: Settings) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata(settings, _release(settings)),
        "spec": rules(),
    }


def _release(settings: Settings) -> dict[str, str]:
    release = settings.monitoring.release
    return {"release": release} if release else {}
