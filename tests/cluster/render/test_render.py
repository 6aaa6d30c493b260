"""`python -m cluster render`: the committed files, settings, and refused values."""

import typing
from pathlib import Path

import pytest
import yaml

from cluster.__main__ import main
from cluster.render.presets import PRESETS, SETTINGS, build, resolve
from cluster.render.render import files, listing

SHA = f"sha256:{'a' * 64}"


def test_the_committed_examples_are_what_is_rendered(repository: Path) -> None:
    folder = repository / "cluster" / "manifests"
    assert {path.name: path.read_text() for path in folder.iterdir()} == files(), (
        "run: python -m cluster render --all cluster/manifests"
    )


def test_all_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--all", str(tmp_path / "new")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == files()
    (tmp_path / "file").write_text("")
    assert main(["render", "--all", str(tmp_path / "file")]) == 2
    assert "--all" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_printed_as_it_is_committed(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--preset", preset]) == 0
    printed = capsys.readouterr().out
    assert printed == files()[f"{preset}.yaml"]
    assert list(yaml.safe_load_all(printed))


def test_a_setting_overrides_the_preset_and_is_in_the_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--preset", "gpu-spot", "--set", "workers.max=16", "--set", "image=registry/x:1"]) == 0
    printed = capsys.readouterr().out
    assert "maxReplicas: 16" in printed
    assert "image: registry/x:1" in printed
    assert "--preset gpu-spot --set workers.max=16" in printed


@pytest.mark.parametrize(
    ("preset", "assignments", "expected"),
    [
        ("gpus", [], ["--preset", "unknown preset 'gpus': did you mean gpu?", "gpu-spot"]),
        ("gpu", ["worker.max=3"], ["'worker.max': did you mean workers.max?"]),
        ("gpu", ["max=3"], ["'max': did you mean workers.max?"]),
        ("gpu", ["nothing=3"], ["nothing", "unknown setting", "render --list"]),
        ("gpu", ["job.recipe=papr"], ["job.recipe=papr", "did you mean paper?"]),
        ("gpu", ["workers.max=many"], ["workers.max=many: expected integer, ≥ 1"]),
        ("gpu", ["workers.max=1.5"], ["workers.max=1.5", "integer"]),
        ("gpu", ["workers.spot=perhaps"], ["workers.spot", "true or false"]),
        ("gpu", ["workers.max=true"], ["workers.max=true", "integer"]),
        ("gpu", ["pull=Sometimes"], ["pull=Sometimes", "IfNotPresent"]),
        ("gpu", ["workers.max"], ["workers.max", "NAME=VALUE"]),
        ("gpu", ["kind=RayCluster"], ["kind", "--preset"]),
        ("gpu", ["job.options=[1, 2]"], ["job.options", "KEY=VALUE"]),
        ("gpu", ["workers.max=2"], ["workers.max=2", "workers.min=4"]),
        ("gpu", ["workers.min=0"], ["workers.min=0"]),
        ("gpu", ["workers.memory=lots"], ["workers.memory=lots", "16Gi"]),
        ("gpu", ["workers.shm=30Gi"], ["workers.shm=30Gi", "workers.memory"]),
        ("gpu", ["head.disk=1Gi"], ["head.disk"]),
        ("gpu", ["name=Big_Job"], ["name=Big_Job"]),
        ("gpu", [f"name={'a' * 41}"], ["name=", "40"]),
        ("gpu", ["store.claim="], ["no store", "store.bucket"]),
        ("gpu", ["store.bucket=s3://b"], ["store.claim and store.bucket"]),
        ("gpu", ["store.claim=", "store.bucket=s3://b"], ["store.bucket", "job.command"]),
        ("gpu", ["store.claim=", "store.bucket=b", "job.command=x"], ["store.bucket=b", "s3://"]),
        ("gpu", ["job.captions="], ["job.captions is missing"]),
        ("gpu", ["job.start_seconds=9999999"], ["job.start_seconds", "job.run_seconds"]),
        ("gpu", ["job.retries=-1"], ["job.retries=-1", "≥ 0"]),
        ("gpu", ["cloud.region=x"], ["cloud.*"]),
        ("gpu", ["mlflow.uri=https://me:word@host"], ["mlflow.uri", "mlflow.secret"]),
        ("kueue", ["workers.max=8"], ["kueue.queue", "workers.max=8"]),
        ("gpu", ["kueue.priority=low"], ["kueue.queue"]),
        ("gpu-spot", ["workers.spot_selector=[]"], ["workers.spot_selector"]),
        ("raycluster", ["job.retries=1"], ["job.retries", "RayJob"]),
        ("aws", ["store.claim=x"], ["store.claim"]),
        ("aws", ["cloud.worker_type="], ["cloud.worker_type"]),
        ("aws", ["security.network_policy=true"], ["security.network_policy"]),
        ("gcp", ["cloud.project="], ["cloud.project"]),
        ("gpu", [f"image=x@{SHA}", f"digest={SHA}"], ["digest=", "image=", "one of them"]),
        ("aws", ["workers.tolerations=a"], ["workers.tolerations", "ray up"]),
        ("gcp", ["head.priority_class=a"], ["head.priority_class", "ray up"]),
        ("aws", ["head.annotations=a=b"], ["head.annotations", "ray up"]),
        ("aws", ["disruption.budget=true"], ["disruption.*", "ray up"]),
        ("aws", ["store.owner=init"], ["store.owner=init", "store.claim"]),
        ("gpu", ["store.claim=", "store.bucket=s3://b", "job.command=x", "store.owner=none"], ["store.owner=none"]),
    ],
)
def test_a_refusal_is_one_line_that_names_the_setting(
    preset: str, assignments: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for assignment in assignments for word in ("--set", assignment)]
    assert main(["render", "--preset", preset, *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert all(part in line for part in expected), line


REFUSED = {
    "image": [
        "",
        "null",
        "Registry/X:1",
        "registry.example/objgan:",
        "objgan:a b",
        "objgan;rm",
        "a/../b",
        ":cuda",
        "objgan@sha256:12",
        "-x",
        "http://registry/objgan",
    ],
    "name": ["", "1a", "a_b", "a.b", "-a", "a-", "A", "a b", "ünder", "a\n", "x" * 41],
    "namespace": ["", "a.b", "A", "a b", "-a", "x" * 64],
    "pull_secret": ["A", "a b", "a..b", "a/b"],
    "ray_version": ["", "two", "2", "2.60.0 "[:-1] + ";x"],
    "security.token": ["", "null", "A_B", "a b", "../x", "x" * 254],
    "security.user": ["0", "-1", "2147483648", "root", "1.5", "99999999999999999999"],
    "security.operator_namespace": ["", "Ray", "a/b"],
    "security.operator_labels": ["x", "a b=c", "=c", "a=", "[a=1, a=2]", "a/b/c=d", "a=b c"],
    "security.prometheus_namespace": ["", "a b"],
    "mlflow.uri": ["", "mlflow:5000", "http://a b", "http://", "mlflow.example:5000;x"],
    "mlflow.secret": ["A", "a b"],
    "store.secret": ["a_b"],
    "store.claim": ["My_Claim", "a b"],
    "store.size": ["500", "0Gi", "500GB", "5.5Gi", "-1Gi"],
    "store.storage_class": ["A b"],
    "kueue.queue": ["a.b", "a b", "Q"],
    "monitoring.release": ["a b", "-a", "x" * 64],
    "workers.min": ["0", "-1", "2147483648", "1e3", "one", "true", ""],
    "workers.max": ["0", "2147483648"],
    "workers.cpus": ["0"],
    "workers.gpus": ["-1"],
    "workers.memory": ["lots", "16", "16GB", "0Gi", "", "1e3Gi"],
    "workers.idle_seconds": ["-1"],
    "workers.selector": ["zone", "[a=b, c]", "a b=c", "zone=a;b", "[zone=a, zone=b]", "x" * 64 + "=a", "[[a=b]]"],
    "workers.spot_taint": ["yes", "a=b=c d"],
    "workers.tolerations": ["a b", "a=b:Sometimes", "a=", "a:", ":NoSchedule", "x/y/z", "a=b=c", f"{'x' * 64}=a"],
    "head.tolerations": ["-a", f"a={'x' * 64}"],
    "workers.annotations": ["a", "=b", "a b=c", "a/b/c=d", "[a=1, a=2]"],
    "head.annotations": ["a"],
    "workers.priority_class": ["High", "a b"],
    "head.priority_class": ["a_b"],
    "disruption.protect": ["yes", "workers"],
    "disruption.budget": ["some"],
    "store.owner": ["root"],
    "digest": ["cuda", "sha256:12", f"sha512:{'a' * 64}", f"@{SHA}", f"sha256:{'G' * 64}"],
    "head.cpus": ["0"],
    "head.disk": ["", "10"],
    "job.run_seconds": ["0", "2147483648"],
    "job.new_clusters": ["-1"],
    "job.images": ["-rf", "+"],
    "job.split": [""],
    "job.options": ["seed", "a b=c", ";=c", "[a=1, a=2]", "{a: 1}"],
    "job.recipe": ["", "big", "[tiny]"],
    "job.command": ["' '", "a; b", "a && b", "a | b", "a > b", "a $(b)", "a `b`", "a 'b", "a & b", "echo $HOME"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_value_that_the_cluster_would_reject_is_refused(
    name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--preset", "gpu-spot", "--set", f"{name}={value}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert name in line and len(line) < 600, line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", "registry.example:5000/team/objgan:1.2-cuda"),
        ("image", f"ghcr.io/x/objgan@sha256:{'a' * 64}"),
        ("workers.selector", "[cloud.google.com/gke-nodepool=big, zone=a]"),
        ("security.operator_labels", "[app.kubernetes.io/name=kuberay-operator, tier=x]"),
        ("store.claim", "team.objgan-data"),
        ("mlflow.uri", "https://mlflow.example/path"),
        ("job.images", "s3://bucket/my images;x/"),
        ("job.command", "python -m pipelines run --out '/data/my; runs' + python -m pipelines runs"),
        ("security.user", "65534"),
        ("digest", SHA),
        ("workers.tolerations", "[nvidia.com/gpu=present:NoSchedule, dedicated, spot:NoExecute]"),
        ("workers.annotations", "[cluster.example/topology=a.b, 'note=1: 2']"),
        ("head.annotations", "iam.example/role=arn:aws:iam::1:role/x"),
        ("head.priority_class", "system-cluster-critical"),
        ("namespace", "123"),
    ],
)
def test_a_value_that_the_cluster_accepts_is_accepted(
    name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--preset", "gpu-spot", "--set", f"{name}={value}"]) == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out))


def test_every_text_and_number_has_a_form_and_every_default_fits_it() -> None:
    for name, field in SETTINGS.items():
        assert build({name: field.default})
        if field.annotation is not bool and typing.get_origin(field.annotation) is not typing.Literal:
            assert field.metadata, name


def test_a_password_is_not_repeated_by_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--preset", "gpu", "--set", "mlflow.uri=https://me:geheim@ho st"]) == 2
    assert "geheim" not in capsys.readouterr().err


def test_a_text_is_taken_as_it_is_written() -> None:
    assert resolve("gpu", ["ray_version=2.60"]).ray_version == "2.60"
    assert resolve("gpu", ["namespace=0123"]).namespace == "0123"
    assert resolve("gpu", ["namespace=no"]).namespace == "no"
    assert resolve("gpu", ["image='objgan:1'"]).image == "objgan:1"
    assert resolve("gpu", ["job.split=2024-13-45"]).job.split == "2024-13-45"


def test_list_has_every_preset_and_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}=" in printed for name in SETTINGS)
    assert all(f"  {name}" in printed for name in PRESETS)
    assert main(["render", "--list", "--set", "a=b"]) == 2
    assert main(["render", "--list", "--preset", "gpu"]) == 2
    assert main(["render"]) == 2


def test_every_setting_has_a_text_and_reaches_some_file() -> None:
    assert all(field.description for field in SETTINGS.values())
    listed = listing().splitlines()
    assert max(map(len, listed)) <= 120


def test_lists_and_texts_are_read_as_meant() -> None:
    settings = resolve("gpu", ["workers.selector=[a=b, c=d]", "ray_version=2.6", "job.options=seed=1"])
    assert settings.workers.selector == ("a=b", "c=d")
    assert settings.ray_version == "2.6"
    assert settings.job.options == ("seed=1",)
