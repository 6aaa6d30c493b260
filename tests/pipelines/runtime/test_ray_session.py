"""Ray's token on this machine, and asks that a cluster that grows may still meet."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private.runtime_env.packaging import _get_excludes

from objgan.cores import available_cores
from objgan.errors import InputError
from objgan.sections import ComputeConfig
from pipelines.runtime.machine import guard_token
from pipelines.runtime.ray_session import _CODE, _skip_lines, _start, check_resources, own_cores


def test_ray_s_own_token_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    guard_token()
    path = tmp_path / ".ray" / "auth_token"
    token = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600 and len(token) == 64
    path.chmod(0o644)
    guard_token()
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == token


def test_a_token_that_somebody_chose_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    guard_token()
    assert not (tmp_path / ".ray").exists()


def test_a_cluster_that_grows_is_asked_for_more_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    there: dict[str, Any] = {"CPU": 1.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    with pytest.raises(InputError, match="ask for at most 1"):
        check_resources(ComputeConfig(workers=4))
    assert check_resources(ComputeConfig(workers=4, device="cuda", autoscaling=True)) is True


def test_a_dashboard_that_does_not_start_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    asked: list[bool | None] = []

    def init(include_dashboard: bool | None, **given: Any) -> SimpleNamespace:
        asked.append(include_dashboard)
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(ray, "init", init)
    assert [_start(dashboard=wanted) for wanted in (True, False)] == [None, None]
    assert asked == [None, False], "True would make Ray fail with its dashboard"


def test_lines_that_say_nothing_are_not_shown_and_others_are() -> None:
    from ray._private.ray_logging import stderr_deduplicator

    _skip_lines("PYTHON worker processes have been started")
    lines = ["WARNING: 8 PYTHON worker processes have been started on node: 1", "A worker died"]
    shown = stderr_deduplicator.deduplicate({"ip": "1", "pid": "raylet", "is_err": True, "lines": lines})
    assert [line for batch in shown for line in batch["lines"]] == ["A worker died"]


def test_cores_are_ours_alone_only_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert own_cores(None) == available_cores()
    assert own_cores("head:6379") is None
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert own_cores(None) is None, "a job joins its cluster, whose nodes have cores of their own"


def test_a_cluster_gets_every_module(repository: Path) -> None:
    left_out = _get_excludes(repository, _CODE["excludes"])
    found = [path for folder in ("objgan", "pipelines", "tune") for path in (repository / folder).rglob("*.py")]
    assert found and not [path for path in found if left_out(path)]
    assert left_out(repository / "runs" / "first") and left_out(repository / "data" / "prepared")
