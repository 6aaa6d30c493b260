"""`data.shapes`: data without masks get ellipses or boxes, marked; without it `run` refuses them early."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from objgan import run_lengths
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.stages import NETWORKS, build_network
from pipelines.__main__ import main
from pipelines.data.loading.reader import ShardReader, evaluation_batch
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, check, prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.report.survey import survey
from pipelines.data.report.table import lines, numbers
from pipelines.data.shards.format import load_manifest, read_split, summary
from pipelines.data.shards.masks import stand_in
from pipelines.data.verify.verify import verify
from pipelines.recipes import resolve
from pipelines.training.job import TrainJob, open_run
from pipelines.workflow.run import Run, check_stages
from tests.tools.logged import logged

MASKS = frozenset({"image", "boxes", "masks"})


def _with_shapes(config: Config, shapes: str) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"shapes": shapes})})


@pytest.fixture(scope="module")
def detection(tmp_path_factory, write_coco, scenes) -> CocoSource:
    """30 scenes as tools for detection export them: boxes without segmentations; one object is thinner than a pixel."""
    images, objects, captions = scenes(30)
    bare = [{k: v for k, v in one.items() if k not in ("segmentation", "area")} for one in objects]
    bare.append({"id": 7, "image_id": 1, "category_id": 44, "bbox": [30, 10, 0.5, 30]})
    return write_coco(tmp_path_factory.mktemp("detection"), images, bare, captions)


@pytest.fixture(scope="module")
def ellipse_data(tmp_path_factory, detection: CocoSource, data_config: Config) -> Path:
    out = tmp_path_factory.mktemp("ellipses") / "data"
    prepare(detection, out, _with_shapes(data_config, "ellipse"), run_here)
    return out


def test_every_object_has_the_ellipse_of_its_box(ellipse_data: Path) -> None:
    manifest, checked = load_manifest(ellipse_data), 0
    assert manifest["columns"]["masks"] and manifest["counts"]["masks"] == manifest["counts"]["objects"] == 91
    for row in (row for table in read_split(ellipse_data, manifest, "train") for row in table.to_pylist()):
        boxes = torch.tensor(row["boxes"]).reshape(-1, 4)
        for box, counts in zip(boxes, row["masks"], strict=True):
            mask = run_lengths.decode(counts, 64, 64).astype(bool)
            assert mask.any(), "also of an object that covers no pixel's centre"
            if min(box[2:]) * 64 > 4:
                inside = ellipses(box, 64).numpy()
                assert (mask & inside).sum() / (mask | inside).sum() > 0.95
                checked += 1
    assert checked > 50


def test_a_box_fills_its_pixels() -> None:
    mask = run_lengths.decode(stand_in("box", [0.25, 0.5, 0.5, 0.25], 8), 8, 8)
    expected = np.zeros((8, 8), np.uint8)
    expected[4:6, 2:6] = 1
    assert mask.tolist() == expected.tolist()


def test_the_marks_are_in_summary_inspect_and_verified_data(ellipse_data: Path) -> None:
    mark = "no mask is an annotation: each is the ellipse of its object's box (data.shapes=ellipse)"
    assert f"made:     {mark}" in summary(load_manifest(ellipse_data)).splitlines()
    found = survey(ellipse_data, 2)
    assert any(mark in line for line in lines(found)) and numbers(found)["made"] == [mark]
    assert not verify(ellipse_data, 1).faults


def test_the_image_stage_reads_ellipses_and_other_settings_are_refused(ellipse_data: Path, data_config: Config) -> None:
    reader = ShardReader(ellipse_data, "train", MASKS, _with_shapes(data_config, "ellipse"), 8)
    batch = evaluation_batch(reader, 0, 4, 0, 4)
    assert batch.layout.soft_masks.sum() > 0 and not reader.left_out
    for shapes in ("masks", "box"):
        with pytest.raises(InputError, match=rf"says? {shapes}: add --set data\.shapes=ellipse"):
            ShardReader(ellipse_data, "train", MASKS, _with_shapes(data_config, shapes), 8)
    ShardReader(ellipse_data, "train", frozenset({"boxes"}), data_config, 8)


def test_a_run_refuses_data_without_masks_before_it_reads_a_pixel(
    detection: CocoSource, data_config: Config, tmp_path: Path
) -> None:
    options = Options(all_stages=True)
    with pytest.raises(InputError, match=r"no segmentation, .* need masks: add --set data\.shapes=ellipse"):
        prepare(detection, tmp_path / "data", data_config, run_here, options)
    assert not list(tmp_path.glob("data/*.arrow"))
    with pytest.raises(InputError, match="--images: the stage images needs pixels"):
        check(replace(detection, images=None), tmp_path / "data", data_config, options)
    with pytest.raises(InputError, match="no segmentation"):
        check(detection, tmp_path / "other", data_config, options)


def test_prepare_alone_says_that_the_masks_are_missing(
    detection: CocoSource, data_config: Config, tmp_path: Path
) -> None:
    with logged() as said:
        prepare(detection, tmp_path / "data", data_config, run_here)
    hint = "none; to train the stage images, prepare with --set data.shapes=ellipse (or box)"
    assert f"masks:    {hint}" in said[-1].splitlines()
    with pytest.raises(InputError, match=r"this stage needs masks, .* or with --set data\.shapes=ellipse"):
        check_stages(data_config, tmp_path / "data")


def test_stages_are_checked_together_before_the_first_one_is_trained(
    ellipse_data: Path, prepared_boxes: Path, data_config: Config
) -> None:
    check_stages(_with_shapes(data_config, "ellipse"), ellipse_data)
    with pytest.raises(InputError, match="this stage needs pixels"):
        check_stages(data_config, prepared_boxes)


def test_the_stage_of_shapes_is_left_out_by_name(ellipse_data: Path, data_config: Config, tmp_path: Path) -> None:
    config = _with_shapes(data_config, "box")
    assert config.stages == ("encoders", "boxes", "images") and len(data_config.stages) == 4
    steps = [step.name for step in Run(config, tmp_path).plan().steps]
    assert "shapes" not in steps and {"encoders", "boxes", "images", "assemble"} <= set(steps)
    with pytest.raises(InputError, match=r"shapes: not trained, because data\.shapes=box stands in for masks"):
        open_run(TrainJob("shapes", config, ellipse_data, tmp_path / "run"))


def test_the_command_line_refuses_before_it_starts_ray(
    detection: CocoSource, data_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(json.dumps(data_config.model_dump(mode="json")))
    source = ["--instances", str(detection.instances), "--captions", str(detection.captions)]
    words = ["run", *source, "--images", str(detection.images), "--config", "settings.yaml", "--dry-run"]
    assert main(words) == 2
    assert "has no segmentation" in capsys.readouterr().err
    assert main([*words, "--set", "data.shapes=ellipse"]) == 0
    said = capsys.readouterr().out
    assert "shapes-" not in said and "# skipped  shapes     data.shapes=ellipse stands in for masks" in said


def test_a_model_draws_the_same_shapes_that_its_image_generator_learned(prepared: Path, data_config: Config) -> None:
    domain, config = Domain.load(prepared / "domain"), _with_shapes(data_config, "ellipse")
    generator = build_network("shape_generator", config, domain)
    assert not list(generator.parameters())
    boxes = torch.tensor([[[0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]])
    layout = Layout(torch.zeros(1, 3, dtype=torch.long), boxes, torch.tensor([2]))
    masks = generator(layout, torch.zeros(1, 3, 1))
    assert masks.shape == (1, 3, 32, 32) and masks[0, 2].sum() == 0
    assert masks[0, 0].mean() == pytest.approx(np.pi / 4 * 0.25, rel=0.01), "the area of an ellipse in its box"


def test_a_model_without_a_trained_shape_generator_is_saved_and_loaded(model_folder: Path, tmp_path: Path) -> None:
    config, domain = resolve("tiny", None, ["data.shapes=box"]), ObjGAN.load(model_folder, "cpu").domain
    ObjGAN(config, domain, {name: build_network(name, config, domain) for name in NETWORKS}).save(tmp_path / "model")
    model = ObjGAN.load(tmp_path / "model", "cpu")
    assert model.config.stages == ("encoders", "boxes", "images")
    for sample in model.generate(["two red kites above a boat on the sea"] * 3, seed=1):
        for box, mask in zip(sample.layout.boxes[0], sample.layout.soft_masks[0], strict=True):
            assert mask.sum() / mask.numel() == pytest.approx(float(box[2] * box[3]), abs=0.05)
