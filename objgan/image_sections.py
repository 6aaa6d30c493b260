"""The settings of stage `images`: a branch of the tree in `objgan.config`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from objgan.sections import Section, TrainingConfig

_LARGEST_IMAGE = 4096


class ImagesTraining(TrainingConfig):
    """Adam 2e-4 (0.5, 0.999), constant; batch 16, 120 epochs (later published settings)."""

    batch_size: int = Field(16, ge=2, le=65_536)
    epochs: int | None = Field(120, ge=1, le=10**6)
    max_words: int = Field(12, ge=1, le=1000)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    generator_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the generator")
    discriminator_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the discriminators")
    damsm_weight: float = Field(
        100.0, ge=0, le=1e25, description="weight of the DAMSM matching loss on the largest image"
    )
    kl_weight: float = Field(1.0, ge=0, le=1e25, description="weight of the KL term of conditioning augmentation")
    unconditional_weight: float = Field(
        1.0, ge=0, le=1e25, description="weight of the text discriminator's unconditional term"
    )
    text_weight: float = Field(0.1, ge=0, le=1e25, description="weight of the text discriminator's conditional term")
    layout_weight: float = Field(1.0, ge=0, le=1e25, description="weight of the layout discriminator's term")
    object_weight: float = Field(0.1, ge=0, le=1e25, description="weight of each object-wise discriminator's term")
    feature_weight: float = Field(
        0.0, ge=0, le=1e25, description="weight of feature matching on layout discriminator activations (pix2pixHD)"
    )
    gradient_penalty: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="weight of the matching-aware gradient penalty on real pairs of the text discriminator",
    )
    gradient_penalty_power: float = Field(6.0, gt=0, le=100, description="power of the gradient norm in the penalty")
    gradient_penalty_every: int = Field(16, ge=1, le=10**9, description="steps between two gradient penalties")


class ImagesConfig(Section):
    """Multi-stage image generator and its discriminators (sections 3.3 and 3.4)."""

    sizes: tuple[int, ...] = Field(
        (64, 128, 256), min_length=1, max_length=8, description="image sides, one for each scale"
    )
    width: int = Field(48, ge=4, le=1024, description="generator width (ngf)")
    discriminator_width: int = Field(96, ge=4, le=1024, description="first discriminator width (ndf)")
    noise: int = Field(100, ge=1, le=4096, description="noise channels (z)")
    condition: int = Field(100, ge=1, le=4096, description="conditioning augmentation channels")
    word_channels: int = Field(50, ge=4, le=4096, description="word-vector channels (W); wider vectors are projected")
    first_blocks: int = Field(7, ge=0, le=100, description="residual blocks of the first scale")
    next_blocks: int = Field(3, ge=0, le=100, description="residual blocks of each later scale")
    half_resolution_blocks: int = Field(
        0,
        ge=0,
        le=100,
        description="first residual blocks of the last scale that run at half its resolution",
    )
    attention: Literal["cosine", "dot"] = Field("cosine", description="similarity in object-driven attention")
    attention_temperature: float = Field(
        10.0, gt=0, le=1e4, description="initial value of the learned attention temperature; 1 is published"
    )
    min_object_pixels: int = Field(
        10, ge=0, le=4096, description="objects smaller than this on both sides, at 256 px, are dropped"
    )
    large_object: float = Field(
        0.25, gt=0, lt=1, description="an object is large if its longer side is at least this share of the image"
    )
    object_attention: bool = Field(True, description="object-driven attention; false: c_obj is 0")
    object_discriminators: bool = Field(True, description="object-wise discriminators and their losses")
    shared_trunk: bool = Field(
        False, description="object-wise discriminators share the trunk of the largest layout discriminator"
    )
    layout: bool = Field(True, description="condition on the layout; false: on the caption only, as AttnGAN does")
    adversarial: Literal["bce", "hinge"] = Field("bce", description="form of the adversarial loss")
    discriminator_norm: Literal["batch", "spectral"] = Field("batch", description="normalisation in the discriminators")
    augment: bool = Field(False, description="DiffAugment on the discriminators' inputs")
    training: ImagesTraining = ImagesTraining()

    @model_validator(mode="after")
    def _doubling_sizes(self) -> Self:
        if self.sizes[0] < 16 or self.sizes[0] & (self.sizes[0] - 1):
            raise ValueError(f"sizes start at a power of two from 16 up, not {self.sizes[0]}")
        if any(b != 2 * a for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ValueError(f"each of sizes is twice the one before it, got {self.sizes}")
        if self.sizes[-1] > _LARGEST_IMAGE:
            raise ValueError(f"sizes end at {_LARGEST_IMAGE} at most, not at {self.sizes[-1]}")
        return self

    @model_validator(mode="after")
    def _blocks_to_halve(self) -> Self:
        if self.half_resolution_blocks > (self.next_blocks if len(self.sizes) > 1 else 0):
            raise ValueError(
                f"half_resolution_blocks {self.half_resolution_blocks} is over next_blocks {self.next_blocks}, or "
                f"there is one scale alone"
            )
        return self

    @model_validator(mode="after")
    def _objects_need_a_layout(self) -> Self:
        if not self.layout and (self.object_attention or self.object_discriminators):
            raise ValueError(
                "layout false leaves no objects: set object_attention and object_discriminators false, too"
            )
        return self
