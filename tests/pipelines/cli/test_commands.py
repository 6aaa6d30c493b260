"""What a person may type wrong: one clear line, exit code 2, nothing lost. Paths are relative to an empty folder."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.domain import Domain
from objgan.stages import build_stage
from objgan.train_state import TrainState
from pipelines.__main__ import main, parser
from pipelines.cli.commands import held
from pipelines.cli.options import PrepareOptions
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.manifest import MANIFEST
from pipelines.recipes import resolve

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """refused(*arguments) -> the line on stderr, after checking that it is one line and the exit code 2."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("error: ")
        assert len(text.splitlines()) == 1, text
        return text

    return run


@pytest.fixture
def settings(data_config: Config, tmp_path: Path) -> list[str]:
    """The options that fit the shards of `prepared`."""
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(data_config.model_dump(mode="json")))
    return ["--config", str(file)]


def test_help_of_every_command_names_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        "demo",
        "run",
        "sample",
        "prepare",
        "verify",
        "inspect",
        "train",
        "judges",
        "evaluate",
        "register",
        "promote",
        "generate",
        "studio",
    ):
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0
        assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["fly"], [], ["sample", "--images", "0"], ["generate", "--n", "x", "a kite"]])
def test_what_the_parser_refuses_is_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "huge"], "unknown recipe 'huge': choose one of tiny, small, paper"),
        (["--set", "images.colour=red"], "unknown setting images.colour"),
        (["--set", "boxes.hidden=wide"], "boxes.hidden"),
        (["--config", "none.yaml"], "cannot read none.yaml"),
        (["--instances", "i.json"], "--captions"),
        (["--instances", "none.json", "--captions", "none.json"], "no file none.json"),
    ],
)
def test_wrong_options_of_run(refused: Refused, options: list[str], words: str) -> None:
    assert words in refused("run", *options)


def test_dry_run_prints_the_tree_and_the_steps_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--set", "boxes.hidden=48", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["boxes"]["hidden"] == 48, "the steps are comments: the whole is still YAML"
    assert [line.split()[3] for line in text.splitlines() if line.startswith("# to do")][-1] == "register"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def coco(write_coco, scenes, tmp_path: Path) -> CocoSource:
    source: CocoSource = write_coco(tmp_path / "coco", *scenes(6))
    return source


def _prepare(source: CocoSource, **other: object) -> list[object]:
    paths = {"images": source.images, "instances": source.instances, "captions": source.captions} | other
    return ["prepare", "--out", "out", *(word for name, path in paths.items() for word in (f"--{name}", path))]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_wrong_coco_files(refused: Refused, coco: CocoSource, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "elsewhere").mkdir()
    assert "swapped" in refused(*_prepare(coco, instances=coco.captions, captions=coco.instances))
    assert "is not JSON" in refused(*_prepare(coco, instances="text.json"))
    assert "not COCO JSON" in refused(*_prepare(coco, captions="list.json"))
    assert "empty data set" in refused(*_prepare(coco, instances="empty.json"))
    assert "is a folder: give a regular file" in refused(*_prepare(coco, instances="elsewhere"))
    assert "elsewhere" in refused(*_prepare(coco, images="elsewhere"))
    assert "nowhere" in refused(*_prepare(coco, images="nowhere"))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_more_workers_than_the_machine_has(refused: Refused, prepared: Path, settings: list[str]) -> None:
    line = refused(
        "train", "shapes", "--data", prepared, *settings, "--workers", 64,
        "--set", "shapes.training.batch_size=64", "--set", "shapes.training.group=1",
    )  # fmt: skip
    assert "compute.workers=64, but there are 2 CPUs: ask for at most 2" in line


def test_wrong_stages_and_data(refused: Refused, prepared: Path, prepared_boxes: Path, settings: list[str]) -> None:
    assert "unknown stage 'colours': choose one of encoders" in refused("train", "colours", "--data", prepared)
    assert "unknown stage 'boxe': did you mean boxes?" in refused("train", "boxe", "--data", prepared)
    assert "unknown recipe 'papier': did you mean paper?" in refused("run", "--recipe", "papier")
    assert "none" in refused("train", "shapes", "--data", "none", *settings)
    assert "pixels" in refused("train", "encoders", "--data", prepared_boxes, *settings)
    assert "no finished stage encoders" in refused("train", "images", "--data", prepared, "--run", "new", *settings)


def test_more_workers_than_groups(refused: Refused, prepared: Path, settings: list[str]) -> None:
    train = ("train", "encoders", "--data", prepared, *settings, "--workers", 2, "--set")
    assert "--set encoders.training.group=3 " in refused(*train, "encoders.training.batch_size=6")
    assert "--set encoders.training.batch_size=8 and a group" in refused(*train, "encoders.training.batch_size=5")
    assert "batch_size=12 and a group" in refused(*train[:-2], "1-3", "--set", "encoders.training.batch_size=4")


def test_a_run_of_other_settings_is_not_continued(
    refused: Refused, prepared: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with other settings, nor from a checkpoint of another stage; what is there stays as it was."""
    monkeypatch.chdir(tmp_path)
    config = resolve("tiny", Path(settings[1]), [])
    folder = tmp_path / "runs" / "mine" / "shapes"
    folder.mkdir(parents=True)
    begun = folder / "settings.json"
    begun.write_text(json.dumps({"shapes.width": 99}))
    with_ray = ["--run", "mine", "--data", prepared, *settings]
    assert "shapes.width: 99 -> 64" in refused("train", "shapes", *with_ray)
    assert json.loads(begun.read_text()) == {"shapes.width": 99}
    checkpoint = tmp_path / "checkpoint"
    stage = build_stage("shapes", config, Domain.load(prepared / "domain"), {})
    save_checkpoint(checkpoint, TrainState(stage))
    assert "is of stage shapes, not encoders" in refused("train", "boxes", *with_ray, "--encoders", checkpoint)
    assert "no file" in refused("train", "boxes", *with_ray, "--encoders", "none")
    (checkpoint / "config.json").write_text("{}")
    assert "changed after it was written" in refused("train", "boxes", *with_ray, "--encoders", checkpoint)


def test_a_model_that_is_none(refused: Refused, model_folder: Path, tmp_path: Path) -> None:
    assert "unknown model nowhere" in refused("generate", "a kite", "--model", "nowhere")
    assert "unknown model models:/none@champion" in refused("generate", "a kite", "--model", "models:/none@champion")
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    (broken / "networks" / "box_generator.safetensors").write_bytes(b"")
    assert "box_generator.safetensors" in refused("generate", "a kite", "--model", broken)
    assert "broken" in refused("register", "--model", broken)
    assert "no finished stage" in refused("register", "--run", "none")
    assert "give --model LOCATION or --run ID" in refused("register")
    assert "not both" in refused("register", "--model", "nowhere", "--run", "none")


@pytest.mark.parametrize(
    ("caption", "words"), [("", "has no words"), ("  ", "has no words"), ("qwertz asdf", "qwertz asdf"), ("?!", "?!")]
)
def test_a_caption_without_known_words(refused: Refused, model_folder: Path, caption: str, words: str) -> None:
    assert words in refused("generate", caption, "--model", model_folder)


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"label": "kit", "box": [0.1, 0.1, 0.2, 0.2]}], "kite"),
        ([{"label": "kite", "box": [0.9, 0.1, 0.2, 0.2]}], "leaves the image"),
        ([{"label": "kite", "box": [0.1, 0.1, 0.0, 0.2]}], "kite"),
        ([{"label": "kite"}], "box"),
        ("kite", "objects"),
    ],
)
def test_a_layout_that_cannot_be_drawn(
    refused: Refused, model_folder: Path, tmp_path: Path, objects: object, words: str
) -> None:
    (tmp_path / "layout.json").write_text(json.dumps({"version": 1, "caption": "a kite", "objects": objects}))
    assert words in refused("generate", "a kite", "--model", model_folder, "--layout", "layout.json")
    assert not (tmp_path / "runs").exists()


def test_no_caption_at_all(refused: Refused, model_folder: Path, tmp_path: Path) -> None:
    assert "caption" in refused("generate", "--model", model_folder)
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "is empty" in refused("generate", "--model", model_folder, "--captions", "empty.txt")


def test_a_folder_that_is_in_use_is_left_alone(
    refused: Refused, tmp_path: Path, prepared: Path, settings: list[str]
) -> None:
    from pipelines.storage.lease import Lease
    from pipelines.storage.storage import Storage

    with Lease.acquire(Storage(tmp_path / "runs" / "mine" / "shapes")):
        said = refused("train", "shapes", "--run", "mine", "--data", prepared, *settings)
    assert f"process {os.getpid()}" in said


def test_a_finished_folder_keeps_neither_lease_nor_status(tmp_path: Path) -> None:
    """An unfinished one keeps the status."""
    out = tmp_path / "data"
    options = PrepareOptions(out=out)

    def attempt(*files: str) -> set[str]:
        with contextlib.suppress(KeyError), held(options, "prepare", MANIFEST):
            inside = {path.name for path in out.iterdir()}
            assert {".lease", "lease.json", "status.json"} <= inside
            for name in files:
                (out / name).write_text("{}")
            raise KeyError("it ends with an error")
        return {path.name for path in out.iterdir()}

    assert attempt("train-00000.arrow") == {"train-00000.arrow", "status.json"}
    assert attempt(MANIFEST) == attempt() == {"train-00000.arrow", MANIFEST}


def test_generate_writes_what_it_says(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert main(["generate", "a red kite", "--model", str(model_folder), "--n", "2", "--out", "made"]) == 0
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == sorted(
        ["contact_sheet.png", *(f"a-red-kite_{i}{end}" for i in range(2) for end in (".json", ".png", "_steps.png"))]
    )


def test_a_full_disk_is_one_line_and_worth_a_retry(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """/dev/full cannot be a folder, and a test may not mount one: the write itself is made to fail as it would."""
    monkeypatch.chdir(tmp_path)

    def full(path: Path, data: bytes | str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipelines.models.generate.write_atomically", full)
    assert main(["generate", "a red kite", "--model", str(model_folder)]) == 1
    text = capsys.readouterr().err.strip()
    assert text.startswith("failed (exit code 1): no space left")
    assert len(text.splitlines()) == 1
