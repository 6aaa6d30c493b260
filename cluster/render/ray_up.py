"""`ray up` configurations for AWS and Google Cloud. Machines with Docker run the same image as KubeRay's pods."""

import shlex
from typing import Any

from cluster.render.checks import mebibytes, object_store
from cluster.render.pods import PORTS, STOP_SECONDS
from cluster.render.settings import Settings
from cluster.render.steps import DATA, give_to

Config = dict[str, Any]

TOKEN = "/home/ray/.ray/auth_token"
"""Ray's default token file for the user of the image."""


def config(settings: Settings) -> Config:
    """The whole YAML for `ray up`."""
    workers, environment = settings.workers, f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={TOKEN}"
    common = (
        f"--object-manager-port=8076 --metrics-export-port={PORTS['metrics']} "
        f"--object-store-memory={object_store(workers.shm)}"
    )
    return {
        "cluster_name": settings.name,
        "max_workers": workers.max,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": round(workers.idle_seconds / 60, 2),
        "docker": _docker(settings),
        "provider": _provider(settings),
        "auth": {"ssh_user": settings.cloud.ssh_user},
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": _machine(settings, head=True)},
            "worker": {
                "min_workers": workers.min,
                "max_workers": workers.max,
                "resources": {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})},
                "node_config": _machine(settings, head=False),
            },
        },
        "head_node_type": "head",
        # The token is copied by ssh as a file, and never part of a command line.
        "file_mounts": {TOKEN: settings.security.token_file},
        "initialization_commands": _initialization(settings),
        "setup_commands": [f"chmod 600 {TOKEN}"],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "ray stop",
            f"ulimit -n 65536; {environment} RAY_JOB_STOP_WAIT_TIME_S={STOP_SECONDS} ray start --head "
            f"--port={PORTS['gcs-server']} --num-cpus=0 --dashboard-host=127.0.0.1 {common} "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            f"ulimit -n 65536; {environment} ray start --address=$RAY_HEAD_IP:{PORTS['gcs-server']} {common}",
        ],
    }


def _docker(settings: Settings) -> Config:
    options = [
        f"--shm-size={settings.workers.shm[:-1].lower()}",
        shlex.quote(f"--env=MLFLOW_TRACKING_URI={settings.mlflow.uri}"),
    ]
    if settings.store.share:
        options += [f"--volume={DATA}:{DATA}", f"--workdir={DATA}"]
    return {
        "image": settings.pinned_image,
        "container_name": "objgan",
        "pull_before_run": settings.pull != "Never",
        "run_options": ["--ulimit=nofile=65536:65536", *options],
    }


def _provider(settings: Settings) -> Config:
    cloud = settings.cloud
    provider = {"type": settings.kind, "region": cloud.region, "availability_zone": cloud.zone}
    if settings.kind == "gcp":
        provider["project_id"] = cloud.project
    # Stopped machines still cost their disks, and nothing on them is needed.
    return provider | {"cache_stopped_nodes": False}


def _machine(settings: Settings, head: bool) -> Config:
    return _aws(settings, head) if settings.kind == "aws" else _gcp(settings, head)


def _gigabytes(settings: Settings, head: bool) -> int:
    return mebibytes(settings.head.disk if head else settings.workers.disk) // 1024


def _aws(settings: Settings, head: bool) -> Config:
    cloud = settings.cloud
    disk = {"VolumeSize": _gigabytes(settings, head), "VolumeType": "gp3", "Encrypted": True}
    machine: Config = {
        "InstanceType": cloud.head_type if head else cloud.worker_type,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
        # Containers are one hop further from the metadata service, which answers only with a session token.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    if cloud.machine_image:
        machine["ImageId"] = cloud.machine_image
    if settings.workers.spot and not head:
        machine["InstanceMarketOptions"] = {"MarketType": "spot"}
    return machine


def _gcp(settings: Settings, head: bool) -> Config:
    cloud, workers = settings.cloud, settings.workers
    disk = {"diskSizeGb": _gigabytes(settings, head), "sourceImage": cloud.machine_image}
    machine: Config = {
        "machineType": cloud.head_type if head else cloud.worker_type,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
    }
    if head:
        return machine
    scheduling: list[Config] = [{"preemptible": True}] if workers.spot else []
    if workers.gpus:
        machine["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
        scheduling.append({"onHostMaintenance": "TERMINATE"})
    if cloud.accelerator:
        machine["guestAccelerators"] = [
            {"acceleratorType": cloud.accelerator, "acceleratorCount": max(1, workers.gpus)}
        ]
    return machine | ({"scheduling": scheduling} if scheduling else {})


def _initialization(settings: Settings) -> list[str]:
    """Commands on the machine before its container starts: mount the shared folder, and give it to the user."""
    if not settings.store.share:
        return []
    share = shlex.quote(settings.store.share)
    return [
        "command -v mount.nfs4 || (sudo apt-get update -qq && sudo apt-get install -y -qq nfs-common)",
        f"mountpoint -q {DATA} || (sudo mkdir -p {DATA} && sudo mount -t nfs4 -o nfsvers=4.1,hard {share} {DATA})",
        give_to(settings.security.user, sudo="sudo "),
    ]
