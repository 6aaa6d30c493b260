"""A default search space for every stage: four to eight knobs, each range with its reason.

Ranges contain the published value and the values measured here (tests/benchmarks/RESULTS.md), and extend about as far
as values were useful in either. Lengths and sizes are not searched: more steps and wider networks are better, and cost
more.
"""

from collections.abc import Sequence
from typing import Any

from objgan.config import Config, flatten
from objgan.stages import stage_class
from tune.space.changeable import fixed_reason
from tune.space.space import Knob, Space


def default_space(stages: Sequence[str], config: Config, population: bool = False) -> Space:
    """The knobs of several stages together, without those that change nothing beside the settings of `config`.

    population: only rates and weights that the recipe has on: population-based training can change these during a run

    Raises:
        InputError: an unknown stage.
    """
    for stage in stages:
        stage_class(stage)
    knobs = {f"{stage}.{name}": knob for stage in stages for name, knob in SPACES[stage].items()}
    knobs.pop("images.training.damsm_weight" if config.images.training.damsm_ratio else _RATIO, None)
    if population:
        own = flatten(config)
        knobs = {n: knob for n, knob in knobs.items() if own[n] and fixed_reason(n, knob, n.split(".")[0]) is None}
    return Space(knobs)


def _log(low: float, high: float, reason: str) -> Knob:
    return Knob("log_uniform", low, high, reason=reason)


def _uniform(low: float, high: float, reason: str) -> Knob:
    return Knob("uniform", low, high, reason=reason)


def _choice(*values: Any, reason: str) -> Knob:
    return Knob("choice", values=values, reason=reason)


_ENCODERS = {
    "training.lr": _log(5e-4, 5e-3, "AttnGAN's 2e-3 is for 120 epochs; a few hundred steps may need another value"),
    "training.text_clip": _log(0.1, 1.0, "AttnGAN's 0.25, four times less and more"),
    "dropout": _uniform(0.1, 0.5, "0.5 is published for 80,000 images; recipe tiny has 0.2"),
    "gamma1": _uniform(2.0, 8.0, "AttnGAN's 4: how sharply a word looks at regions"),
    "gamma2": _uniform(2.0, 10.0, "AttnGAN's 5: how much the best word of a caption counts"),
    "gamma3": _log(5.0, 20.0, "AttnGAN's 10: how sharply captions of a batch are distinguished"),
}

_BOXES = {
    "training.lr": _log(5e-4, 1e-2, "1e-3 is the paper's choice for 40 epochs; recipe tiny takes 3e-3 in 800 steps"),
    "dropout": _uniform(0.0, 0.4, "real captions needed 0.1 to 0.3 here; the paper has none"),
    "word_dropout": _uniform(0.0, 0.15, "0.05 helped on real captions; at 0.15 the decoder learned words late"),
    "training.count_weight": _log(0.1, 3.0, "1 in the recipes; never 0, because other settings need it"),
    "training.word_decay": _log(1e-5, 1e-3, "about 1 / captions, 6e-5 for COCO; a tenth of it overfitted"),
    "training.coordinate_weight": _log(0.05, 2.0, "published 1; recipe tiny 0.2, as sharp mixtures drown the labels"),
    "training.class_weight_power": _uniform(0.0, 0.8, "published 0.8; unweighted (0) had the better F1 here"),
}

_SHAPES = {
    "training.generator_lr": _log(2e-4, 5e-3, "published 2e-4 for 150 epochs; recipe tiny takes 3e-3 in 120 steps"),
    "training.discriminator_lr": _log(1e-4, 2e-3, "published 2e-4; a faster one wins before masks have a form"),
    "training.overlap_weight": _log(1.0, 30.0, "soft IoU is what is measured; recipes tiny and small have 10"),
    "training.pixel_weight": _uniform(0.0, 3.0, "cross-entropy per pixel: 1 in tiny and small, 0 as published"),
    "training.instance_weight": _log(0.03, 1.0, "published 1, which is too loud for a few thousand objects: 0.1"),
    "training.clip": _log(0.25, 10.0, "0.25 is published; it holds back losses that begin at 10, hence 5 in tiny"),
    "template": _choice(0, 16, 24, 32, reason="24 gained most here; 0 is the published generator without one"),
}

_IMAGES = {
    "training.generator_lr": _log(5e-5, 2e-3, "published 2e-4, 1e-4 in small, 1e-3 in the few steps of tiny"),
    "training.discriminator_lr": _log(1e-4, 6e-3, "published 2e-4; recipe tiny 3e-3, three times the generator's"),
    "training.damsm_weight": _log(0.5, 100.0, "published 100, AttnGAN 50; 2 where the encoders are small"),
    "training.damsm_ratio": _log(0.02, 0.5, "recipe tiny 0.1; it replaces damsm_weight, which depends on the encoders"),
    "training.text_weight": _log(0.1, 2.0, "published 0.1; 1 in tiny, whose discriminators learn captions late"),
    "training.layout_weight": _uniform(0.3, 2.0, "published 1"),
    "training.object_weight": _log(0.03, 1.0, "published 0.1"),
    "training.feature_weight": _uniform(0.0, 30.0, "0 as published; 20 brought colours in few steps (pix2pixHD: 10)"),
    "augment": _choice(False, True, reason="DiffAugment helps once discriminators overfit, and not before"),
}

_JUDGE = {
    "training.lr": _log(5e-4, 8e-3, "2e-3 in the recipes"),
    "training.ema_decay": _choice(0.98, 0.99, 0.995, reason="0.99 averages the last hundred steps of a few hundred"),
    "silhouettes": _uniform(0.1, 0.5, "share of outlines shown as nothing: too few, and outlines fool the judge"),
    "noise": _uniform(0.05, 0.3, "share of images of noise; too many take the place of true ones"),
}

_RATIO = "images.training.damsm_ratio"
SPACES: dict[str, dict[str, Knob]] = {
    "encoders": _ENCODERS,
    "boxes": _BOXES,
    "shapes": _SHAPES,
    "images": _IMAGES,
    "judge": _JUDGE,
}
