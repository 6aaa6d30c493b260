"""The YAML for `ray up`: by Ray's own validator, and what is promised of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.render.presets import resolve
from cluster.render.render import text_of

CLOUDS = ("aws", "gcp")


def config(preset: str, *assignments: str) -> Any:
    return yaml.safe_load(text_of(resolve(preset, assignments), preset))


@pytest.mark.parametrize("preset", CLOUDS)
def test_ray_accepts_it(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config(preset)))
    bad = config(preset) | {"max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(bad))


@pytest.mark.parametrize("preset", CLOUDS)
def test_the_token_is_a_file_and_the_dashboard_is_the_heads_alone(preset: str) -> None:
    made = config(preset)
    assert made["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert made["setup_commands"] == ["chmod 600 /home/ray/.ray/auth_token"]
    for commands in (made["head_start_ray_commands"], made["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
        assert "RAY_AUTH_TOKEN=" not in commands[-1]
    assert "--dashboard-host=127.0.0.1" in made["head_start_ray_commands"][-1]


def test_workers_are_spot_and_the_head_is_not() -> None:
    aws = {name: kind["node_config"] for name, kind in config("aws")["available_node_types"].items()}
    assert aws["worker"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["head"]
    assert "InstanceMarketOptions" not in config("aws", "workers.spot=false")["available_node_types"]["worker"]
    gcp = {name: kind["node_config"] for name, kind in config("gcp")["available_node_types"].items()}
    assert {"preemptible": True} in gcp["worker"]["scheduling"]
    assert "scheduling" not in gcp["head"]


def test_resources_are_set_not_guessed() -> None:
    kinds = config("gcp", "workers.gpus=2", "cloud.accelerator=nvidia-tesla-t4")["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert kinds["worker"]["resources"] == {"CPU": 8, "GPU": 2}
    assert kinds["worker"]["node_config"]["guestAccelerators"][0]["acceleratorCount"] == 2


def test_a_bucket_needs_no_mount() -> None:
    made = config("aws", "store.share=", "store.bucket=s3://b")
    assert made["initialization_commands"] == []
    assert not [option for option in made["docker"]["run_options"] if option.startswith("--volume")]
