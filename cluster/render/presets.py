"""Presets, and how `--preset` and `--set` become one tree of settings."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.errors import InputError
from cluster.forms import Form, shown
from cluster.render.checks import check
from cluster.render.settings import Settings

COCO = {
    "images": "/data/coco/train2017",
    "instances": "/data/coco/annotations/instances_train2017.json",
    "captions": "/data/coco/annotations/captions_train2017.json",
}


@dataclasses.dataclass(frozen=True)
class SettingInfo:
    """One setting: its type, its default, what it does and the form of its values."""

    type: Any
    default: Any
    text: str
    form: Form | None = None


def all_settings(section: type = Settings, prefix: str = "") -> Iterator[tuple[str, SettingInfo]]:
    """(dotted name, setting) of every setting, in order."""
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            yield from all_settings(hints[field.name], f"{name}.")
        else:
            yield name, SettingInfo(hints[field.name], field.default, **field.metadata)


def resolve(preset: str, assignments: Sequence[str] = ()) -> Settings:
    """The settings: defaults, the preset over them, `NAME=VALUE` assignments over both.

    Raises:
        InputError: unknown preset or name, a value of the wrong type, or a bad combination.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: unknown; choose one of {', '.join(PRESETS)}")
    values = dict(PRESETS[preset].values)
    given = dict(_assignment(text) for text in assignments)
    if "kind" in given:
        raise InputError("--set kind: the preset decides it; take another --preset")
    settings = build({**values, **given})
    check(settings)
    return settings


def build(values: Mapping[str, Any]) -> Settings:
    """A tree from values by dotted name; types and forms are checked, combinations are not.

    Raises:
        InputError: an unknown name, or a value of the wrong type or form.
    """
    known = dict(all_settings())
    for name in values:
        if name not in known:
            near = [other for other in known if other.split(".")[-1] == name.split(".")[-1]] or list(known)
            raise InputError(f"--set {name}: unknown setting; there {'are' if len(near) > 1 else 'is'} {_few(near)}")
    fitted = {name: _fit(name, value, known[name].type) for name, value in values.items()}
    for name, value in fitted.items():
        form = known[name].form
        if form is not None and (fault := form.fault(value)):
            raise InputError(f"--set {name}={shown(value)}: {fault}")
    return typing.cast(Settings, _section(Settings, fitted, ""))


def _section(section: Any, values: Mapping[str, Any], prefix: str) -> Any:
    given = {}
    for name, hint in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            given[name] = _section(hint, values, f"{prefix}{name}.")
        elif prefix + name in values:
            given[name] = values[prefix + name]
    return section(**given)


@dataclasses.dataclass(frozen=True)
class _Given:
    """A value as it was written, and as YAML reads it."""

    text: str
    value: Any

    @property
    def plain(self) -> str:
        """For a setting that is a text: YAML reads 2.60 as 2.6, `no` as false, and drops what follows ` #`."""
        if self.value is None:
            return ""
        return str(self.value) if self.text[:1] in ("'", '"') else self.text


def _assignment(text: str) -> tuple[str, _Given]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {shown(text)}: write NAME=VALUE, for example workers.max=16")
    if not text.isprintable():
        raise InputError(f"--set {shown(name)}: {value!r} holds a control character; leave it out")
    try:
        return name, _Given(value.strip(), yaml.safe_load(value))
    except (yaml.YAMLError, ValueError, RecursionError):
        # What YAML does not read may still be a text.
        return name, _Given(value.strip(), value.strip())


def _fit(name: str, given: Any, hint: Any) -> Any:
    given = given if isinstance(given, _Given) else _Given(given if isinstance(given, str) else shown(given), given)
    text, value = given.text, given.value
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"--set {name}={shown(text)}: choose one of {', '.join(typing.get_args(hint))}")
        return value
    if isinstance(hint, types.GenericAlias):
        return _texts(name, given.plain if isinstance(value, str) else value)
    if hint is str:
        return given.plain
    if type(value) is not hint:
        wanted = {int: "a whole number", bool: "true or false"}[hint]
        raise InputError(f"--set {name}={shown(text)}: should be {wanted}")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """`a=b` is a list of one; `[a=b, c=d]` one of two."""
    many = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    keys = set()
    for one in many:
        if not isinstance(one, str) or "=" not in one.strip("="):
            raise InputError(f"--set {name}: {shown(one)} should be KEY=VALUE; several: [A=1, B=2]")
        key = one.partition("=")[0]
        if key in keys:
            raise InputError(f"--set {name}: {key} is given twice; leave one of them out")
        keys.add(key)
    return tuple(many)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:6])} and others (render --list)"


@dataclass(frozen=True)
class Preset:
    """What it is for, and its values by dotted name."""

    text: str
    values: Mapping[str, Any]


def _gpu(name: str, **workers: Any) -> dict[str, Any]:
    return {
        "name": name,
        **{f"job.{key}": value for key, value in COCO.items()},
        "workers.gpus": 1,
        **{f"workers.{key}": value for key, value in workers.items()},
    }


_CPU = {
    "image": "objgan:cpu",
    "job.recipe": "tiny",
    "job.run_seconds": 6 * 3600,
    "head.cpus": 2,
    "head.memory": "8Gi",
    "workers.cpus": 4,
    "workers.memory": "12Gi",
    "workers.disk": "20Gi",
    "workers.shm": "3Gi",
}
_CLOUD = {
    "store.claim": "",
    "mlflow.uri": "http://MLFLOW-SERVER:5000",
    "security.network_policy": False,
    "monitoring.scrape": False,
    "workers.spot": True,
}

PRESETS: dict[str, Preset] = {
    "cpu": Preset("RayJob without GPUs, a drawn data set: does everything work?", {"name": "objgan-cpu", **_CPU}),
    "gpu": Preset("RayJob on four GPUs: the paper's recipe on COCO", _gpu("objgan-gpu", min=4, max=4)),
    "gpu-spot": Preset(
        "RayJob on one to four spot GPUs, as many as there are; head and driver elsewhere",
        _gpu("objgan-gpu-spot", min=1, max=4, spot=True),
    ),
    "kueue": Preset(
        "RayJob on four GPUs that waits for quota in a Kueue queue",
        _gpu("objgan-kueue", min=4, max=4) | {"kueue.queue": "objgan", "kueue.cluster_queue": "gpus"},
    ),
    "elastic": Preset(
        "RayJob on two to eight GPUs on demand, growing while it trains",
        _gpu("objgan-elastic", min=2, max=8),
    ),
    "raycluster": Preset(
        "RayCluster that stays, for `submit`: one to four GPUs",
        {"kind": "RayCluster", "name": "objgan-cluster", "workers.gpus": 1, "workers.max": 4, "monitoring.rules": True},
    ),
    "aws": Preset(
        "`ray up` on AWS: one to four spot g5.2xlarge (A10G), head on demand",
        {
            "kind": "aws",
            "name": "objgan-aws",
            "workers.gpus": 1,
            "workers.max": 4,
            **_CLOUD,
            "store.share": "FILE-SYSTEM-ID.efs.us-west-2.amazonaws.com:/",
            "cloud.region": "us-west-2",
            "cloud.zone": "us-west-2a,us-west-2b",
            "cloud.head_type": "m5.xlarge",
            "cloud.worker_type": "g5.2xlarge",
        },
    ),
    "gcp": Preset(
        "`ray up` on Google Cloud: one to four spot g2-standard-8 (L4), head on demand",
        {
            "kind": "gcp",
            "name": "objgan-gcp",
            "workers.gpus": 1,
            "workers.max": 4,
            **_CLOUD,
            "store.share": "FILESTORE-ADDRESS:/data",
            "cloud.region": "us-west1",
            "cloud.zone": "us-west1-a",
            "cloud.project": "PROJECT-ID",
            "cloud.head_type": "n2-standard-4",
            "cloud.worker_type": "g2-standard-8",
            "cloud.machine_image": "projects/deeplearning-platform-release/global/images/family/common-cu121",
        },
    ),
}
