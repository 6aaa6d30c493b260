"""Presets, and how `--preset` and `--set` become one tree of settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cluster.render.checks import faults
from cluster.render.settings import Settings
from objgan.config import form_of, value_text
from objgan.errors import InputError, nearest, one_line, shown, unknown
from objgan.sections import Section
from pipelines.redaction import redact

COCO = {
    "images": "/data/coco/train2017",
    "instances": "/data/coco/annotations/instances_train2017.json",
    "captions": "/data/coco/annotations/captions_train2017.json",
}


def _fields(section: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, field) of every setting, in order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


SETTINGS = dict(_fields())


def resolve(preset: str, assignments: Sequence[str] = ()) -> Settings:
    """The settings: defaults, the preset over them, `NAME=VALUE` assignments over both.

    Raises:
        InputError: unknown preset or name, a value of the wrong form, or a bad combination.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS, "--preset: ")
    given = dict(map(_read, assignments))
    if "kind" in given:
        raise InputError("--set kind: the preset decides it; choose another --preset")
    settings = build({**PRESETS[preset].values, **given})
    for fault in faults(settings):
        raise InputError(fault)
    return settings


def build(values: Mapping[str, Any]) -> Settings:
    """Settings from values by dotted name. Each value is checked, combinations are not.

    Raises:
        InputError: a value of the wrong form.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        section, _, last = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[last] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
    name = ".".join(part for part in fault["loc"] if isinstance(part, str))
    reason = fault["msg"].removeprefix("Value error, ")
    if fault["type"] != "value_error":
        reason = f"expected {form_of(SETTINGS[name])}"
    raise InputError(f"--set {name}={one_line(redact(value_text(values[name])), 120)}: {reason}")


def _read(assignment: str) -> tuple[str, Any]:
    """Name and value. Texts stay as written: YAML reads 2.60 as 2.6, `no` as false, and drops what follows ` #`."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise InputError(f"--set {redact(assignment)}: write NAME=VALUE, for example workers.max=16")
    if not assignment.isprintable():
        raise InputError(f"--set {name}: {text!r} holds a control character; leave it out")
    if name not in SETTINGS:
        near = nearest(name, SETTINGS) or next((key for key in SETTINGS if key.endswith(f".{name.split('.')[-1]}")), "")
        advice = f": did you mean {near}?" if near else "; `render --list` lists all settings"
        raise InputError(f"--set: unknown setting {shown(name)}{advice}")
    text, value = text.strip(), _yaml(text)
    quoted = text[:1] in ("'", '"')
    if SETTINGS[name].annotation is str:
        return name, "" if value is None else value if quoted else text
    return name, text if isinstance(value, str) and not quoted else value


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text  # may still be a text


@dataclass(frozen=True)
class Preset:
    """A purpose, and values by dotted name."""

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
        {
            "kind": "RayCluster",
            "name": "objgan-cluster",
            "workers.gpus": 1,
            "workers.max": 4,
            "monitoring.rules": True,
            # Its jobs do not survive its head; those of a RayJob do.
            "disruption.budget": True,
        },
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
