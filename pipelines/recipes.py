"""Named, complete configurations, and how `--recipe`, `--config` and `--set` make one tree of settings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from objgan.config import Config, build_config
from objgan.errors import InputError, shown, unknown

Values = dict[str, Any]


def paper() -> Values:
    """The published sizes and schedules: the reproduction, on a cluster.

    Groups of 4 images are what each of four GPUs sees of a batch of 16; boxes and shapes, whose networks look at no
    other sample, are cut for 8 workers; DAMSM's contrast is over all 48 pairs, on one.
    """
    groups = {"boxes": 8, "shapes": 5, "images": 4}
    return {"recipe": "paper", **{stage: {"training": {"group": size}} for stage, size in groups.items()}}


def fast() -> Values:
    """`paper` in three quarters of the operations: one trunk for layouts and objects, a coarser last block."""
    values = paper() | {"recipe": "fast"}
    merge(values, {"images": {"shared_trunk": True, "half_resolution_blocks": 1}})
    return values


def small() -> Values:
    """64 -> 128 pixels, for one GPU, with what was learnt since: hinge, spectral norm, DiffAugment, two rates."""
    return {
        "recipe": "small",
        "data": {"image_size": 128},
        "encoders": {"channels": 128, "backbone": "small", "small_width": 64},
        "images": {
            "sizes": (64, 128),
            "width": 32,
            "discriminator_width": 48,
            **_newer_image_options(),
            "training": {
                "group": 8,
                "ema_warmup": True,
                "generator_lr": 1e-4,
                "discriminator_lr": 4e-4,
                "damsm_weight": 50.0,
                "gradient_penalty": 2.0,
            },
        },
        "boxes": {**_obedience(), "training": {"count_weight": 1.0}},
        "shapes": {"template": 24, "training": {"ema_warmup": True, **_shape_losses()}},
    }


def tiny() -> Values:
    """32 -> 64 pixels: all four stages in minutes on two cores of a laptop."""
    return {
        "recipe": "tiny",
        "data": {"image_size": 64, "max_objects": 8, "vector_channels": 50},
        "encoders": {
            "channels": 64,
            "embedding": 64,
            "dropout": 0.2,
            "backbone": "small",
            "small_width": 24,
            "training": _steps(300, batch_size=48, cooldown=0.3),
        },
        "boxes": {
            "hidden": 128,
            "label_embedding": 64,
            "coordinate_embedding": 32,
            # An encoder of its own learns which words are labels; the other one has not learned much in so few steps.
            "text_encoder": "own",
            "mixture_temperature": 0.1,
            **_obedience(),
            # The sharp mixtures' gradients are ten times the labels': at 1 : 1 labels hardly move in so few steps.
            "training": _steps(
                800,
                checkpoints=4,
                batch_size=48,
                lr=3e-3,
                cooldown=0.5,
                count_weight=1.0,
                coordinate_weight=0.2,
                class_weight_power=0.0,
                stated_captions=0.3,
            ),
        },
        "shapes": {
            "width": 16,
            "class_embedding": 16,
            "noise": 8,
            "discriminator_width": 8,
            "adversarial": "hinge",
            "template": 24,
            "training": _steps(
                120,
                batch_size=16,
                ema_warmup=True,
                generator_lr=3e-3,
                discriminator_lr=5e-4,
                cooldown=0.4,
                **_shape_losses(),
            ),
        },
        "images": _tiny_images(),
        "judge": {"width": 32, "training": _steps(1400, batch_size=32, validation_samples=500)},
    }


RECIPES: dict[str, Callable[[], Values]] = {"tiny": tiny, "small": small, "paper": paper, "fast": fast}


def resolve(recipe: str, file: Path | None, assignments: Sequence[str]) -> Config:
    """The settings: recipe, then the YAML file over it, then `name=value` assignments over both.

    Raises:
        InputError: unknown recipe, unreadable file, an unknown or ill-typed setting, or a bad combination.
    """
    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    values = RECIPES[recipe]()
    if file is not None:
        merge(values, _read_yaml(file))
    for assignment in assignments:
        merge(values, parse_assignment(assignment))
    return build_config(values)


def to_yaml(config: Config) -> str:
    """The resolved tree as YAML, for `--dry-run` and for `--config`."""
    import yaml  # a recipe as it is needs none, here and below

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _tiny_images() -> Values:
    return {
        "sizes": (32, 64),
        "width": 16,
        "discriminator_width": 16,
        "noise": 32,
        "condition": 32,
        "word_channels": 50,
        "first_blocks": 2,
        "next_blocks": 1,
        **_newer_image_options(),
        **_small_image_form(),
        # A few hundred steps see each picture a few times: discriminators do not overfit yet, and what shows is
        # how soon colours and places are right. Hence no augmentation, matched features, and larger rates.
        "augment": False,
        "training": _steps(
            700,
            batch_size=8,
            max_words=20,
            ema_warmup=True,
            cooldown=0.4,
            warmup=0.35,
            warmup_lr=3e-3,
            generator_lr=1e-3,
            discriminator_lr=3e-3,
            text_weight=1.0,
            object_weight=0.15,
            feature_weight=20.0,
            damsm_ratio=0.1,
            kl_weight=0.0,
            pixel_weight=8.0,
            object_pixels=5.0,
            perceptual_weight=2.0,
        ),
    }


def _obedience() -> Values:
    """Layouts that keep what a caption states, and whose objects overlap as in the data."""
    return {"candidates": 16, "obey_numbers": True, "unnamed_presence": 0.7, "draws": 8}


def _shape_losses() -> Values:
    """Overlap first: it is what masks are measured by, and what a few thousand objects can teach."""
    return {
        "overlap_weight": 10.0,
        "pixel_weight": 1.0,
        "perceptual_weight": 1.0,
        "instance_weight": 0.1,
        "global_weight": 0.1,
        "clip": 5.0,
    }


def _newer_image_options() -> Values:
    return {"adversarial": "hinge", "discriminator_norm": "spectral", "augment": True}


def _small_image_form() -> Values:
    """What 64 px need in the place of figures that belong to 256 px: layers by resolution, balanced terms, and layouts
    at full size.
    """
    return {
        "shared_trunk": True,
        "object_layers": (1, 2),
        "roi_size": 8,
        "object_condition": "words",
        "wrong_words": True,
        "balanced": True,
        "discriminator_layers": 3,
        "patch_padding": 1,
        "condition_noise": 0.1,
        "class_channels": 16,
        "text_scale": 8.0,
        "modifiers": 2,
        "textures": 8,
        "whiten": True,
        "attention_temperature": 20.0,
        "layout_norm": False,
        "start_norm": False,
        "modulation": True,
    }


def _steps(steps: int, checkpoints: int = 2, **others: Any) -> Values:
    every = max(1, steps // checkpoints)
    return {
        "steps": steps,
        "epochs": None,
        "log_every": 20,
        "checkpoint_every": every,
        "picture_every": every,
        "validation_samples": 100,
        **others,
    }


def _read_yaml(file: Path) -> Values:
    from pipelines.yaml_input import read_yaml

    _, values = read_yaml(file, "--config")
    if not isinstance(values, dict):
        raise InputError(f"--config: {file} should hold settings by name, like `seed: 1`")
    return values


def parse_assignment(assignment: str) -> Values:
    """`a.b=value` as nested values, to `merge`.

    Raises:
        InputError: it is none.
    """
    from pipelines.yaml_input import parse_yaml

    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise InputError(f"--set {assignment!r}: write NAME=VALUE, for example images.training.generator_lr=1e-4")
    value = parse_yaml(text, f"--set {name}: {shown(text)} is no value")
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


def merge(base: Values, over: Mapping[str, Any]) -> None:
    """Put nested values over `base`, in place. A length in steps takes the place of one in epochs, and vice versa."""
    if over.get("steps") is not None and "epochs" not in over:
        base["epochs"] = None
    elif over.get("epochs") is not None and "steps" not in over:
        base["steps"] = None
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        elif isinstance(value, Mapping):
            base[key] = {}
            merge(base[key], value)
        else:
            base[key] = value
