"""The alias `champion` in a store of MLflow: who has it, moves that are recorded, and moves at the same time."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from objgan.errors import InputError
from pipelines.__main__ import main
from pipelines.models import champion as module
from pipelines.models.champion import (
    Version,
    find_champion,
    find_version,
    is_version,
    model_named,
    note_failure,
    promote_version,
    roll_back,
)
from pipelines.models.registry import mlflow_at
from pipelines.tracking.tracker import prepare_store

FIRST, SECOND, THIRD = (Version("objgan", number) for number in "123")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database takes MLflow seconds: it is made once and copied."""
    path: Path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def versions(store: str, tmp_path: Path) -> None:
    """Three versions of `objgan`, the last one with the alias `challenger`."""
    with mlflow_at(store) as client:
        client.create_registered_model("objgan")
        for _ in range(3):
            client.create_model_version("objgan", str(tmp_path))
        client.set_registered_model_alias("objgan", "challenger", "3")


@pytest.fixture
def client(store: str, versions: None) -> Iterator[Any]:
    with mlflow_at(store) as client:
        yield client


def trail(client: Any, version: Version) -> tuple[dict[str, str], list[str]]:
    """Tags and lines of the description."""
    found = client.get_model_version(version.name, version.number)
    return found.tags, [line for line in (found.description or "").split("\n") if line]


def test_versions_are_found_by_number_and_alias(client: Any) -> None:
    assert (
        find_version(client, "models:/objgan/2") == SECOND
        and find_version(client, "models:/objgan@challenger") == THIRD
    )
    for uri, message in (
        ("models:/objgan/9", "unknown model models:/objgan/9"),
        ("models:/objgan@nobody", "unknown model models:/objgan@nobody"),
        ("models:/nothing@challenger", "unknown model models:/nothing@challenger"),
        ("runs:/0123/model", "is no version of a registered model"),
        ("runs/model", "is no version of a registered model"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            find_version(client, uri)
        assert "\n" not in str(caught.value)


def test_a_version_is_distinguished_from_other_models(tmp_path: Path) -> None:
    assert is_version("models:/objgan/3") and is_version("models://objgan/3")
    others = (tmp_path, "models:/objgan@champion", "models:/m-0123", "runs:/0123/4", "s3://models/objgan/3")
    assert not any(map(is_version, others))


def test_promotions_are_recorded_and_rolled_back_one_by_one(client: Any) -> None:
    assert find_champion(client, "objgan") is None and find_champion(client, "nothing") is None
    promote_version(client, FIRST, None, "passed", "better: boxes/label_f1")
    promote_version(client, SECOND, FIRST, "forced", "the demo\nof today")
    assert find_champion(client, "objgan") == SECOND
    tags, lines = trail(client, SECOND)
    assert tags["validation_status"] == "forced" and tags["objgan.promoted_from"] == "1"
    assert tags["objgan.decided_why"] == "the demo of today" and tags["objgan.decided_by"] and tags["objgan.decided_at"]
    assert len(lines) == 1 and lines[0].endswith("champion in place of version 1 (forced: the demo of today)")
    assert roll_back(client, "objgan", "pictures are worse") == (SECOND, FIRST)
    assert find_champion(client, "objgan") == FIRST
    tags, lines = trail(client, SECOND)
    assert tags["validation_status"] == "rolled back" and len(lines) == 2 and "pictures are worse" in lines[1]
    assert roll_back(client, "objgan", "the first one, too") == (FIRST, None)
    assert find_champion(client, "objgan") is None
    with pytest.raises(InputError, match="has no champion: nothing to roll back"):
        roll_back(client, "objgan", "again")


@pytest.mark.parametrize("known", [True, False])
def test_rollbacks_go_back_through_all_champions(client: Any, known: bool) -> None:
    """1, 2, 1 again, 3: a version's own tag has room for one predecessor."""
    promote_version(client, FIRST, None, "passed", "x")
    promote_version(client, SECOND, FIRST, "passed", "x")
    if not known:  # written before there was a history: the versions' tags say it
        client.delete_registered_model_tag("objgan", module.HISTORY)
    promote_version(client, FIRST, SECOND, "passed", "x")
    promote_version(client, THIRD, FIRST, "passed", "x")
    moves = [roll_back(client, "objgan", "x") for _ in range(4)]
    assert moves == [(THIRD, FIRST), (FIRST, SECOND), (SECOND, FIRST), (FIRST, None)]
    assert find_champion(client, "objgan") is None
    promote_version(client, THIRD, None, "passed", "x")
    client.set_registered_model_alias("objgan", "champion", "2")
    with pytest.raises(InputError, match="objgan/2 became champion without `promote`"):
        roll_back(client, "objgan", "by hand in between")
    promote_version(client, FIRST, SECOND, "passed", "x")
    assert roll_back(client, "objgan", "x") == (FIRST, SECOND)
    client.set_registered_model_tag("objgan", module.HISTORY, '["1", 2')
    with pytest.raises(InputError, match="no list of versions: delete the tag"):
        roll_back(client, "objgan", "x")


def test_a_failure_is_recorded_and_moves_nothing(client: Any) -> None:
    promote_version(client, FIRST, None, "passed", "x")
    note_failure(client, SECOND, "1 of 4 rules do not hold")
    assert find_champion(client, "objgan") == FIRST
    tags, (line,) = trail(client, SECOND)
    assert tags["validation_status"] == "failed" and line.endswith("not promoted (failed: 1 of 4 rules do not hold)")


def test_a_champion_by_hand_or_without_its_predecessor_is_not_rolled_back(client: Any) -> None:
    client.set_registered_model_alias("objgan", "champion", "1")
    with pytest.raises(InputError, match="objgan/1 became champion without `promote`"):
        roll_back(client, "objgan", "x")
    promote_version(client, SECOND, FIRST, "passed", "x")
    client.delete_model_version("objgan", "1")
    with pytest.raises(InputError, match="unknown model models:/objgan/1"):
        roll_back(client, "objgan", "x")
    assert find_champion(client, "objgan") == SECOND
    promote_version(client, THIRD, SECOND, "passed", "the lock is free again")


def test_a_comparison_with_an_old_champion_is_not_used(client: Any) -> None:
    promote_version(client, FIRST, None, "passed", "x")
    with pytest.raises(InputError, match="changed from none to version 1 since the comparison"):
        promote_version(client, SECOND, None, "passed", "x")
    assert find_champion(client, "objgan") == FIRST and trail(client, SECOND) == ({}, [])


def test_of_promotions_at_once_one_wins(client: Any, store: str) -> None:
    barrier, done = threading.Barrier(2), dict[str, str]()

    def promote(version: Version) -> None:
        own = mlflow.MlflowClient(store, store)
        barrier.wait()
        try:
            promote_version(own, version, None, "passed", "x")
            done[version.number] = ""
        except InputError as error:
            done[version.number] = str(error)

    threads = [threading.Thread(target=promote, args=(version,)) for version in (FIRST, SECOND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, error in done.items() if not error]
    (reason,) = [error for error in done.values() if error]
    assert find_champion(client, "objgan") == Version("objgan", winner)
    assert "since the comparison" in reason or "another process is moving" in reason
    assert [model.name for model in client.search_registered_models()] == ["objgan"], "no lock is left"


def test_the_lock_of_a_killed_process_is_removed_when_it_is_old(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create_registered_model("objgan.moving-alias")
    with pytest.raises(InputError, match="another process is moving objgan@champion"):
        promote_version(client, FIRST, None, "passed", "x")
    assert find_champion(client, "objgan") is None
    monkeypatch.setattr(module, "_STALE_MS", -1)
    promote_version(client, FIRST, None, "passed", "x")
    assert find_champion(client, "objgan") == FIRST


def test_a_new_lock_is_not_removed_in_place_of_the_old_one(client: Any, store: str) -> None:
    """Of two processes that see the lock of a killed one, the first has replaced it before the second removes it."""
    lock = "objgan.moving-alias"
    client.create_registered_model(lock)

    class Second(mlflow.MlflowClient):
        seen = False

        def get_registered_model(self, name: str) -> Any:
            model = super().get_registered_model(name)
            if name == lock and not self.seen:
                self.seen, model._creation_time = True, 0
                client.delete_registered_model(lock)
                client.create_registered_model(lock)
            return model

    with pytest.raises(InputError, match="another process is moving objgan@champion"):
        promote_version(Second(store, store), FIRST, None, "passed", "x")
    assert find_champion(client, "objgan") is None
    assert [model.name for model in client.search_registered_models()] == ["objgan", lock]


def test_commands_use_the_version_that_has_the_alias_now(client: Any, store: str, tmp_path: Path) -> None:
    assert model_named(None, store) == "models:/objgan/3", "the challenger: there is no champion"
    promote_version(client, FIRST, None, "passed", "x")
    assert model_named(None, store) == "models:/objgan/1" == model_named("models:/objgan@champion", store)
    for location in (tmp_path, "s3://bucket/model@2", "runs:/0123/model", "models:/objgan/2"):
        assert model_named(location, store) == location
    with pytest.raises(InputError, match="unknown model models:/objgan@nobody"):
        model_named("models:/objgan@nobody", store)


def test_an_address_is_gone_after_nested_blocks(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with mlflow_at(store), mlflow_at(store):
        assert os.environ["MLFLOW_TRACKING_URI"] == store
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.usefixtures("versions")
def test_the_command_rolls_back_and_refuses_wrong_input(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with mlflow_at(store) as client:
        promote_version(client, SECOND, None, "passed", "x")
    for words, message in (
        (["--model", "models:/objgan/2"], "models:/objgan/2 is the champion already"),
        (["--model", "models:/objgan/7"], "unknown model models:/objgan/7"),
        (["--model", str(tmp_path)], "is no version of a registered model"),
    ):
        assert main(["promote", *words]) == 2
        assert message in capsys.readouterr().err
    with mlflow_at(store) as client:
        client.delete_registered_model_alias("objgan", "challenger")
    assert main(["promote", "--rollback"]) == 0
    assert "objgan@champion: no version, no longer models:/objgan/2" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["register", "--run", "first", "--alias", "champion"])
    assert "only `promote` moves champion" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["promote", "--force", " "])
    assert "a blank reason: say why" in capsys.readouterr().err
