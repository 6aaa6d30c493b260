"""`--dry-run` of `train`, `prepare` and `judges`: refused for what the command is refused for, and nothing is left."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from objgan.config import Config
from pipelines.__main__ import main
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage

Line = Callable[..., str]


@pytest.fixture
def settings(data_config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("settings") / "settings.yaml"
    file.write_text(yaml.safe_dump(data_config.model_dump(mode="json")))
    return ["--config", str(file)]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Line:
    """refused(*words) -> the one line of `--dry-run`, in an empty folder that must stay as it was."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main([*map(str, words), "--dry-run"]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("error: ") and len(text.splitlines()) == 1, text
        assert sorted(tmp_path.rglob("*")) == before, "a dry run leaves nothing"
        return text

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["colours"], "unknown stage 'colours'"),
        (["shapes", "--data", "none"], "none"),
        (["images"], "no finished stage encoders"),
        (["boxes", "--encoders", "none"], "no file"),
        (["shapes", "--init-from", "none"], "no file"),
        (["shapes", "--workers", "2", "--set", "shapes.training.group=40"], "2 workers share 1 group"),
        (["shapes", "--workers", "999", "--set", "shapes.training.batch_size=999", "--set", "shapes.training.group=1"],
         "compute.workers=999"),
        (["shapes", "--replay", "none"], "no file"),
        (["shapes", "--storage", "zz://nowhere/x"], "not a location"),
    ],
)  # fmt: skip
def test_train_is_refused_as_the_command_is(
    refused: Line, prepared: Path, settings: list[str], words: list[str], expected: str
) -> None:
    data = [] if "--data" in words else ["--data", str(prepared)]
    assert expected in refused("train", *words, *data, *settings)


def test_train_is_refused_where_its_run_cannot_be(
    refused: Line, prepared: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "shapes", "--data", prepared, *settings, "--run", "mine"]
    folder = tmp_path / "runs" / "mine" / "shapes"
    (tmp_path / "runs").write_text("")
    assert "Not a directory" in refused(*train)
    (tmp_path / "runs").unlink()
    with Lease.acquire(Storage(folder)):
        assert "is held by" in refused(*train)
    (folder / "settings.json").write_text(json.dumps({"shapes.width": 99}))
    assert "shapes.width: 99 -> " in refused(*train)
    (folder / "settings.json").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "MLflow" in refused(*train)


def test_train_is_refused_on_a_place_that_is_read_only(
    refused: Line, prepared: Path, settings: list[str], small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = refused("train", "shapes", "--data", prepared, *settings, "--storage", small_disk)
    assert "Read-only file system" in line


def test_train_is_refused_in_a_bucket_that_is_not_there(
    refused: Line, prepared: Path, settings: list[str], s3: str
) -> None:
    line = refused("train", "shapes", "--data", prepared, *settings, "--storage", s3.replace("bucket-", "no-bucket-"))
    assert "NO_SUCH_BUCKET" in line and "hush" not in line


def test_train_that_would_run_says_what_it_would_do(
    prepared: Path,
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "shapes", "--data", str(prepared), *settings, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["shapes"], "what is said about the run is a comment: the whole is still YAML"
    assert f"# shapes: would begin in {tmp_path}/runs/default/shapes" in text
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def coco(write_coco, scenes, tmp_path_factory: pytest.TempPathFactory) -> CocoSource:
    source: CocoSource = write_coco(tmp_path_factory.mktemp("coco"), *scenes(6))
    return source


def _words(source: CocoSource, **other: object) -> list[object]:
    paths = {"images": source.images, "instances": source.instances, "captions": source.captions} | other
    return ["prepare", "--out", "out", *(word for name, path in paths.items() for word in (f"--{name}", path))]


def test_prepare_is_refused_as_the_command_is(
    refused: Line, coco: CocoSource, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "text.json").write_text("no json")
    (folder / "list.json").write_text("[1]")
    (folder / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (folder / "synonyms.json").write_text('{"dragon": ["wyvern"]}')
    assert "swapped" in refused(*_words(coco, instances=coco.captions, captions=coco.instances))
    assert "is not JSON" in refused(*_words(coco, instances=folder / "text.json"))
    assert "not COCO JSON" in refused(*_words(coco, captions=folder / "list.json"))
    assert "empty data set" in refused(*_words(coco, instances=folder / "empty.json"))
    assert "dragon" in refused(*_words(coco, synonyms=folder / "synonyms.json"))
    assert str(folder) in refused(*_words(coco, images=folder))
    assert "nowhere" in refused(*_words(coco, vectors="nowhere"))


def test_prepare_is_refused_where_its_folder_cannot_be(
    refused: Line, coco: CocoSource, tmp_path: Path, data_config: Config, settings: list[str]
) -> None:
    prepare(coco, tmp_path / "out", data_config, run_here)
    assert "was prepared differently" in refused(*_words(coco), *settings, "--set", "data.min_count=3")
    with Lease.acquire(Storage(tmp_path / "out")):
        assert "is held by" in refused(*_words(coco), *settings)


def test_prepare_on_a_disk_that_is_read_only(refused: Line, coco: CocoSource, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = _words(coco)
    words[2] = small_disk / "out"
    assert "Read-only file system" in refused(*words)


def test_prepare_that_would_run_says_what_it_found(
    coco: CocoSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, _words(coco)), "--dry-run"]) == 0
    assert "# prepare: 6 images with captions, 3 classes" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_run_is_refused_as_the_command_is(
    refused: Line, coco: CocoSource, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = tmp_path_factory.mktemp("wrong") / "text.json"
    text.write_text("no json")
    words = ["run", *_words(coco)[1:]]
    words[words.index("--captions") + 1] = text
    assert "is not JSON" in refused(*words)
    assert "compute.workers=999" in refused("run", "--workers", 999)
    assert "group=1 is under 2" in refused("run", "--set", "encoders.training.group=1")
    with Lease.acquire(Storage(tmp_path / "runs" / "run")):
        assert "is held by" in refused("run")
