"""KubeRay's manifests: against its custom resource definitions, and what is promised of every pod."""

import copy
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.render import kuberay
from cluster.render.pods import LABEL, PROTECTED, toleration
from cluster.render.presets import PRESETS, resolve
from cluster.render.render import text_of
from cluster.render.steps import give_to
from tests.tools import crd

KUBERAY = [name for name in PRESETS if resolve(name).kubernetes]
DEFINITIONS = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}


@pytest.fixture(scope="module")
def schemas(repository: Path) -> dict[str, crd.Schema]:
    folder = repository.parent / "shared" / "kuberay"
    if not folder.is_dir():
        pytest.skip("no ../shared/kuberay beside the repository: tests against KubeRay's definitions need it")
    return {kind: crd.load(folder / name) for kind, name in DEFINITIONS.items()}


def documents(preset: str, *assignments: str) -> dict[str, Any]:
    """By kind, read back from the text that is printed."""
    text = text_of(resolve(preset, assignments), preset)
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def ray(preset: str, *assignments: str) -> Any:
    found = documents(preset, *assignments)
    return found.get("RayJob") or found["RayCluster"]


def cluster_of(resource: Any) -> Any:
    return resource["spec"].get("rayClusterSpec", resource["spec"])


def templates(resource: Any) -> Iterator[tuple[str, Any]]:
    cluster = cluster_of(resource)
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield "worker", group["template"]
    if "submitterPodTemplate" in resource["spec"]:
        yield "submitter", resource["spec"]["submitterPodTemplate"]


@pytest.mark.real
@pytest.mark.parametrize("preset", KUBERAY)
def test_kuberay_knows_every_field(schemas: dict[str, crd.Schema], preset: str) -> None:
    resource = ray(preset)
    assert crd.faults(schemas[resource["kind"]], resource) == []


@pytest.mark.real
@pytest.mark.parametrize(
    "assignment",
    [
        "workers.selector=[zone=a, kind=b]",
        "workers.spot_taint=spot=yes",
        "store.secret=bucket-keys",
        "pull_secret=registry",
        "workers.spot_selector=cloud.google.com/gke-spot=true",
        "security.operator_labels=app=ray",
        "workers.tolerations=[dedicated=ml:NoExecute, big]",
        "head.tolerations=dedicated=ml:NoSchedule",
        "workers.annotations=[sidecar.istio.io/inject=false, note=a b]",
        "head.annotations=note=a",
        "workers.priority_class=training",
        "head.priority_class=training",
        "disruption.protect=none",
        "disruption.protect=head",
        "store.owner=init",
        "store.owner=none",
        f"digest=sha256:{'a' * 64}",
    ],
)
def test_kuberay_knows_what_settings_add(schemas: dict[str, crd.Schema], assignment: str) -> None:
    resource = ray("gpu-spot", assignment)
    assert documents("gpu-spot", assignment) != documents("gpu-spot")
    assert crd.faults(schemas["RayJob"], resource) == []


@pytest.mark.real
def test_the_check_sees_what_an_api_server_would(schemas: dict[str, crd.Schema]) -> None:
    good, schema = ray("gpu-spot"), schemas["RayJob"]
    for path, value in (
        (("spec", "backofLimit"), 1),
        (("spec", "backoffLimit"), "one"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "hostNetworks"), True),
        (("spec", "preRunningDeadlineSeconds"), 0),
    ):
        bad = copy.deepcopy(good)
        *parents, last = path
        place = bad
        for name in parents:
            place = place[name]
        place[last] = value
        assert crd.faults(schema, bad), path
    lacking = copy.deepcopy(good)
    del lacking["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert crd.faults(schema, lacking)


def test_defaults_are_filled_in_where_their_parent_is() -> None:
    schema = {"properties": {"a": {"properties": {"b": {"default": 3}}}, "c": {"default": "d"}}}
    assert crd.with_defaults(schema, {"a": {}}) == {"a": {"b": 3}, "c": "d"}
    assert crd.with_defaults(schema, {}) == {"c": "d"}


def test_objects_are_closed_but_where_anything_goes() -> None:
    closed = crd.strict({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": True}}})
    assert crd.faults(closed, {"a": "1Gi"}) == []
    assert crd.faults(closed, {"a": 1}) == []
    assert crd.faults(closed, {"a": 1.5})
    assert crd.faults(closed, {"b": 1})
    assert not crd.faults(crd.strict({"properties": {}, "x-kubernetes-preserve-unknown-fields": True}), {"b": 1})
    assert not crd.faults(crd.strict({"type": "object", "additionalProperties": {"type": "string"}}), {"b": "1"})


@pytest.mark.parametrize("preset", KUBERAY)
def test_nobody_is_root_and_requests_are_limits(preset: str) -> None:
    for role, template in templates(ray(preset)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, role
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("preset", KUBERAY)
def test_the_token_is_on_and_no_secret_is_written_out(preset: str) -> None:
    resource = ray(preset)
    assert cluster_of(resource)["authOptions"] == {"mode": "token", "secretName": "objgan-ray-token"}
    names = {v["name"] for _, t in templates(resource) for c in t["spec"]["containers"] for v in c.get("env", ())}
    assert not {name for name in names if "KEY" in name or "PASSWORD" in name or "TOKEN" in name}


@pytest.mark.parametrize("preset", KUBERAY)
def test_policy_and_monitor_see_every_pod(preset: str) -> None:
    found = documents(preset)
    name = ray(preset)["metadata"]["name"]
    for kind in ("NetworkPolicy", "PodMonitor"):
        spec = found[kind]["spec"]
        assert (spec.get("podSelector") or spec["selector"])["matchLabels"] == {LABEL: name}
    for role, template in templates(ray(preset)):
        assert template["metadata"]["labels"][LABEL] == name, role
    ports = {p["name"] for _, t in templates(ray(preset)) for c in t["spec"]["containers"] for p in c.get("ports", ())}
    assert {endpoint["port"] for endpoint in found["PodMonitor"]["spec"]["podMetricsEndpoints"]} <= ports


def test_spot_is_for_workers_alone() -> None:
    pods = dict(templates(ray("gpu-spot")))
    assert pods["worker"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pods["worker"]["spec"][
        "tolerations"
    ]
    for role in ("head", "submitter"):
        rule = pods[role]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = rule["nodeSelectorTerms"]
        assert term["matchExpressions"][0]["operator"] == "NotIn"
        assert "tolerations" not in pods[role]["spec"]


def test_the_head_takes_no_tasks_and_a_stopped_job_has_time() -> None:
    cluster = cluster_of(ray("gpu"))
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "120"} in container["env"]


@pytest.mark.parametrize("preset", KUBERAY)
def test_sigterm_leaves_head_and_workers_the_promised_time(preset: str) -> None:
    for role, template in templates(ray(preset)):
        if role == "submitter":
            continue
        (container,) = template["spec"]["containers"]
        seconds = {item["name"]: int(item["value"]) for item in container["env"] if item["value"].isdigit()}
        assert seconds["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == 120, role
        assert template["spec"]["terminationGracePeriodSeconds"] > 120, role


@pytest.mark.parametrize("preset", KUBERAY)
def test_no_container_of_a_job_has_the_service_account_s_token(preset: str) -> None:
    resource = ray(preset)
    for role, template in templates(resource):
        assert template["spec"]["automountServiceAccountToken"] is False, role
        for container in template["spec"]["containers"]:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
            assert not [path for path in paths if "serviceaccount" in path], role


def test_the_autoscaler_alone_has_the_service_account_s_token() -> None:
    cluster = cluster_of(ray("gpu-spot"))
    (mount,) = cluster["autoscalerOptions"]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount" and mount["readOnly"] is True
    volumes = {volume["name"]: volume for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}
    sources = volumes[mount["name"]]["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]
    still = cluster_of(ray("gpu"))["headGroupSpec"]["template"]["spec"]["volumes"]
    assert not [volume for volume in still if "projected" in volume]


def test_the_policy_lets_in_the_operator_by_labels_that_can_be_set() -> None:
    def operator(*assignments: str) -> Any:
        ingress = documents("gpu", *assignments)["NetworkPolicy"]["spec"]["ingress"]
        (peer,) = ingress[1]["from"]
        return peer["podSelector"]["matchLabels"]

    assert operator() == {"app.kubernetes.io/component": "kuberay-operator"}
    assert operator("security.operator_labels=[app=ray, team=a]") == {"app": "ray", "team": "a"}


def test_a_number_of_workers_that_changes_means_autoscaling() -> None:
    assert cluster_of(ray("gpu-spot", "workers.max=16"))["workerGroupSpecs"][0]["maxReplicas"] == 16
    assert cluster_of(ray("gpu-spot"))["enableInTreeAutoscaling"] is True
    assert "enableInTreeAutoscaling" not in cluster_of(ray("gpu"))


def test_shared_memory_is_as_large_as_the_object_store_needs() -> None:
    group = cluster_of(ray("gpu", "workers.shm=4Gi"))["workerGroupSpecs"][0]
    volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert group["rayStartParams"]["object-store-memory"] == str(3 * 2**30)


def test_deadlines_and_retries_are_bounded() -> None:
    spec = ray("gpu", "job.retries=5", "job.run_seconds=7200", "job.start_seconds=600")["spec"]
    assert (spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (7200, 600)
    assert "cluster steps --retries 5 -- " in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] == 600
    assert "\n" not in spec["entrypoint"]


@pytest.mark.parametrize("preset", [name for name in KUBERAY if resolve(name).kind == "RayJob"])
def test_a_job_that_requests_too_much_is_tried_once(preset: str) -> None:
    # KubeRay repeats PreRunningDeadlineExceeded until backoffLimit is used up.
    assert ray(preset)["spec"]["backoffLimit"] == 0
    assert ray(preset, "job.new_clusters=2")["spec"]["backoffLimit"] == 2


def test_labels_name_the_queue_of_kueue_and_the_queue_is_created() -> None:
    found = documents("kueue", "kueue.priority=low")
    labels = found["RayJob"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == found["LocalQueue"]["metadata"]["name"] == "objgan"
    assert labels["kueue.x-k8s.io/priority-class"] == "low"
    assert "LocalQueue" not in documents("kueue", "kueue.cluster_queue=")
    grows = ray("raycluster", "kueue.queue=q")["metadata"]
    assert grows["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}
    assert "annotations" not in ray("raycluster", "kueue.queue=q", "workers.max=1")["metadata"]


def test_the_store_is_a_claim_or_a_bucket() -> None:
    claim = documents("gpu", "store.size=500Gi", "store.storage_class=nfs")["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    bucket = ["store.claim=", "store.bucket=s3://b", "store.secret=keys", "job.command=python -m pipelines runs"]
    for role, template in templates(ray("gpu", *bucket)):
        (container,) = template["spec"]["containers"]
        assert [v["name"] for v in template["spec"].get("volumes", ())] == ([] if role == "submitter" else ["shm"])
        assert role == "submitter" or container["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_resources_come_before_those_that_need_them() -> None:
    kinds = [document["kind"] for document in kuberay.manifests(resolve("kueue", ["store.size=1Gi"]))]
    assert kinds == ["PersistentVolumeClaim", "LocalQueue", "NetworkPolicy", "PodMonitor", "RayJob"]


def annotations_of(*assignments: str) -> dict[str, dict[str, str]]:
    return {role: t["metadata"].get("annotations", {}) for role, t in templates(ray("gpu-spot", *assignments))}


def test_autoscalers_of_nodes_leave_the_pods_alone() -> None:
    wanted = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert wanted == PROTECTED
    for preset in KUBERAY:
        for role, template in templates(ray(preset)):
            assert template["metadata"]["annotations"] == wanted, (preset, role)
    some = annotations_of("disruption.protect=head")
    assert some == {"head": wanted, "worker": {}, "submitter": wanted}
    assert annotations_of("disruption.protect=none") == {"head": {}, "worker": {}, "submitter": {}}


def test_an_annotation_that_is_given_wins() -> None:
    given = annotations_of("workers.annotations=[karpenter.sh/do-not-disrupt=4h, note=a=b c]", "head.annotations=x=")
    assert given["worker"] == PROTECTED | {"karpenter.sh/do-not-disrupt": "4h", "note": "a=b c"}
    assert given["head"] == given["submitter"] == PROTECTED | {"x": ""}


def test_budgets_keep_the_head_and_the_fewest_workers() -> None:
    def budgets(*assignments: str) -> list[Any]:
        text = text_of(resolve("gpu", assignments), "gpu")
        return [d for d in yaml.safe_load_all(text) if d["kind"] == "PodDisruptionBudget"]

    assert budgets() == []
    head, worker = budgets("disruption.budget=true", "workers.min=3")
    name = ray("gpu")["metadata"]["name"]
    for budget, role, least in ((head, "head", 1), (worker, "worker", 3)):
        assert budget["apiVersion"] == "policy/v1"
        assert budget["metadata"]["name"] == f"{name}-{role}"
        assert budget["spec"]["minAvailable"] == least
        # KubeRay's label of the role, and ours, which every pod of the cluster has.
        assert budget["spec"]["selector"]["matchLabels"] == {LABEL: name, "ray.io/node-type": role}
    # Its jobs do not survive its head.
    assert "PodDisruptionBudget" in documents("raycluster")


def test_head_and_submitter_share_taints_and_priority_that_workers_have_of_their_own() -> None:
    given = ("head.tolerations=a=b", "head.priority_class=high", "workers.tolerations=c:NoExecute")
    pods = {role: template["spec"] for role, template in templates(ray("gpu", *given, "workers.priority_class=low"))}
    for role in ("head", "submitter"):
        assert pods[role]["tolerations"] == [{"key": "a", "operator": "Equal", "value": "b"}]
        assert pods[role]["priorityClassName"] == "high"
    assert pods["worker"]["priorityClassName"] == "low"
    assert pods["worker"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "c", "operator": "Exists", "effect": "NoExecute"},
    ]
    assert all("priorityClassName" not in template["spec"] for _, template in templates(ray("gpu")))


@pytest.mark.parametrize(
    ("taint", "expected"),
    [
        ("a", {"key": "a", "operator": "Exists"}),
        ("a:NoExecute", {"key": "a", "operator": "Exists", "effect": "NoExecute"}),
        ("x/a=b", {"key": "x/a", "operator": "Equal", "value": "b"}),
        ("a=b:NoSchedule", {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}),
    ],
)
def test_a_taint_is_read_as_kubectl_writes_it(taint: str, expected: dict[str, str]) -> None:
    assert toleration(taint) == expected


def test_one_of_kubernetes_root_and_nobody_makes_the_claim_writable() -> None:
    def pods(*assignments: str) -> dict[str, Any]:
        return {role: template["spec"] for role, template in templates(ray("gpu", *assignments))}

    for pod in pods("security.user=1234").values():
        assert pod["securityContext"]["fsGroup"] == 1234
        assert "initContainers" not in pod
    for pod in pods("store.owner=none").values():
        assert "fsGroup" not in pod["securityContext"]
        assert "initContainers" not in pod
    made = pods("store.owner=init", "security.user=1234")
    assert [role for role, pod in made.items() if "initContainers" in pod] == ["head"]
    (container,) = made["head"]["initContainers"]
    assert container["command"] == ["sh", "-c", give_to(1234)]
    assert container["securityContext"]["runAsUser"] == 0
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert all(pod["securityContext"]["runAsUser"] == 1234 for pod in made.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the owner of a folder")
def test_root_gives_the_mount_to_the_user_and_nothing_in_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o775)
    (data / "coco").mkdir()
    for _ in range(2):  # a second head finds it done
        subprocess.run(["sh", "-c", give_to(1000, str(data))], check=True)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (data, data / "runs")} == {(1000, 1000)}
    assert (data / "coco").stat().st_uid == 0
    assert data.stat().st_mode & 0o777 == 0o775


def test_the_digest_pins_the_image_of_every_container() -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    resource = ray("gpu", "image=registry.example/objgan:cuda", f"digest={digest}", "store.owner=init")
    pods = [template["spec"] for _, template in templates(resource)]
    images = {c["image"] for pod in pods for c in (*pod["containers"], *pod.get("initContainers", ()))}
    assert images == {f"registry.example/objgan:cuda@{digest}"}


def test_the_queue_is_of_the_version_that_kueue_serves() -> None:
    assert documents("kueue")["LocalQueue"]["apiVersion"] == "kueue.x-k8s.io/v1beta2"
