"""Named, complete configurations: a text, and what each changes of the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COCO = {
    "images": "/data/coco/train2017",
    "instances": "/data/coco/annotations/instances_train2017.json",
    "captions": "/data/coco/annotations/captions_train2017.json",
}


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
