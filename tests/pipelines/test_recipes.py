from pathlib import Path

import pytest
import yaml

from objgan.config import build_config, flatten
from objgan.errors import InputError
from pipelines.recipes import RECIPES, resolve, to_yaml


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_complete_and_named(recipe: str) -> None:
    assert resolve(recipe, None, []).recipe == recipe


def test_paper_keeps_the_published_figures() -> None:
    config = resolve("paper", None, [])
    assert config.images.sizes == (64, 128, 256)
    assert (config.images.width, config.images.discriminator_width, config.encoders.channels) == (48, 96, 256)
    assert (config.images.adversarial, config.images.discriminator_norm, config.images.augment) == (
        "bce",
        "batch",
        False,
    )
    assert config.images.training.damsm_weight == 100
    assert (config.images.text_scale, config.images.text_blur, config.images.training.object_pixels) == (1, False, 0)


def test_fast_differs_from_paper_in_two_settings_alone() -> None:
    paper, fast = (flatten(resolve(name, None, [])) for name in ("paper", "fast"))
    changed = {name: fast[name] for name in fast if fast[name] != paper[name]}
    assert changed == {"recipe": "fast", "images.shared_trunk": True, "images.half_resolution_blocks": 1}


def test_file_wins_over_recipe_and_set_over_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nboxes:\n  hidden: 48\n  training:\n    lr: 0.5\n")
    config = resolve("tiny", file, ["boxes.training.lr=1e-4", "images.attention=dot"])
    assert (config.seed, config.boxes.hidden, config.boxes.training.lr, config.images.attention) == (3, 48, 1e-4, "dot")
    assert config.boxes.label_embedding == resolve("tiny", None, []).boxes.label_embedding


def test_the_printed_tree_is_a_config_file_that_gives_itself(tmp_path: Path) -> None:
    config = resolve("small", None, ["shapes.width=40"])
    file = tmp_path / "printed.yaml"
    file.write_text(to_yaml(config))
    assert resolve("tiny", file, []) == config
    assert build_config(yaml.safe_load(to_yaml(config))) == config


def test_steps_and_epochs_take_each_others_place() -> None:
    training = resolve("tiny", None, ["boxes.training.epochs=2"]).boxes.training
    assert (training.steps, training.epochs) == (None, 2)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("boxes.hiden=3", "unknown setting boxes.hiden: did you mean boxes.hidden?"),
        ("imagse.training.lr=1", "unknown setting imagse.training.lr: did you mean images.training.generator_lr?"),
        ("lr=1", "did you mean encoders.training.lr?"),
        ("qqq=1", "unknown setting qqq (docs/settings.md lists all)"),
        ("boxes.hidden=wide", "boxes.hidden: got 'wide'; expected integer, ≥ 8, ≤ 8192, for example 256"),
        ("images.sizes=64", "images.sizes: got 64; expected list of integers, for example [64,128,256]"),
        ("images.object_attention=maybe", "expected true or false, for example true"),
        ("encoders.backbone=smal", "did you mean small? expected one of inception_v3, small"),
        ("boxes.training.group=x", "expected integer or null, ≥ 1, ≤ 65536, for example 4"),
        ("boxes.training=3", "expected a section, for example boxes.training.batch_size=..."),
        ("boxes.hidden=0", "boxes.hidden"),
        ("images.sizes=[64,100]", "twice"),
        ("images.half_resolution_blocks=2", "half_resolution_blocks 2"),
        ("images.sizes=[64,128]", "data.image_size 64 is under"),
        ("encoders.backbone_weights=w.pth", "inception_v3"),
        ("boxes.training.max_words=30", "over data.max_words"),
        ("boxes.training", "NAME=VALUE"),
        ("seed=[", "no value"),
    ],
)
def test_a_bad_setting_is_refused_by_name_in_one_line(assignment: str, words: str) -> None:
    with pytest.raises(InputError, match=r".*") as caught:
        resolve("tiny", None, [assignment])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n"])
def test_a_config_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="--config"):
        resolve("tiny", file, [])
    with pytest.raises(InputError, match="cannot read"):
        resolve("tiny", tmp_path / "none.yaml", [])


def test_flat_names_are_the_set_keys() -> None:
    config = resolve("small", None, [])
    flat = flatten(config)
    assert flat["images.training.generator_lr"] == config.images.training.generator_lr
    assert resolve("small", None, [f"boxes.training.lr={2 * flat['boxes.training.lr']}"]).boxes.training.lr == 2e-3
