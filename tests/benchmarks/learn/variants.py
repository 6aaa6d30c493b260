"""The image stage's variants for the ablation (Li et al. 2019, table 3), made equally large.

What a variant leaves out, it gets back as width: the generators agree in parameters, and so do the sums of all
discriminators, as far as whole channels allow. c_obj alone is left out as zeros: the trunk keeps its channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.stages.image_judges import build_discriminators
from objgan.stages.images import build_image_generator

FULL = "full"


@dataclass(frozen=True)
class Variant:
    """Names for people, and the settings of `images` that differ from the full model's."""

    title: str
    short: str
    settings: Mapping[str, bool | int]


VARIANTS: Mapping[str, Variant] = {
    FULL: Variant("full", "full", {}),
    "no_object_attention": Variant("(i) no object-driven attention", "(i) no attention", {"object_attention": False}),
    "no_object_discriminators": Variant(
        "(ii) no object-wise discriminators", "(ii) no object judges", {"object_discriminators": False}
    ),
    "no_layout": Variant(
        "(iii) neither, and no layout (AttnGAN-like)",
        "(iii) no layout",
        {
            "object_attention": False,
            "object_discriminators": False,
            "layout": False,
            "modulation": False,
            "modifiers": 0,
            "textures": 0,
        },
    ),
}


@dataclass(frozen=True)
class Sizes:
    """Learning parameters of the generator, and of all discriminators together."""

    generator: int
    discriminators: int


def variant_config(name: str, config: Config, domain: Domain) -> Config:
    """The settings of a variant, as large as the full model of `config`, whose own switches must all be on."""
    wanted = sizes_of(config, domain)
    changed = with_images(config, dict(VARIANTS[name].settings))
    if sizes_of(changed, domain) == wanted:
        return changed

    def generator(width: int) -> int:
        return _count(build_image_generator(with_images(changed, {"width": width}), domain))

    # The condition of object-wise discriminators holds ngf channels: the generator's width comes first.
    width = _nearest(generator, wanted.generator)
    changed = with_images(changed, {"width": width})

    def discriminators(width: int) -> int:
        return _count(*build_discriminators(with_images(changed, {"discriminator_width": width}), domain).values())

    return with_images(changed, {"discriminator_width": _nearest(discriminators, wanted.discriminators)})


def sizes_of(config: Config, domain: Domain) -> Sizes:
    """Parameters at these settings."""
    return Sizes(_count(build_image_generator(config, domain)), _count(*build_discriminators(config, domain).values()))


def with_images(config: Config, changes: Mapping[str, Any]) -> Config:
    """The tree with other values in `images`, checked."""
    values = config.model_dump()
    values["images"] |= changes
    return build_config(values)


def _count(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def _nearest(count: Callable[[int], int], wanted: int) -> int:
    """The width from 4 up whose count, which grows with it, is nearest to `wanted`."""
    low, high = 4, 8
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= wanted else (low, middle)
    return min((low, high), key=lambda width: abs(count(width) - wanted))
