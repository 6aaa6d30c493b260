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
    damsm_ratio: float | None = Field(
        None,
        gt=0,
        le=1e3,
        description="size of DAMSM's gradient on the largest image, as a share of the discriminators'; null: by weight",
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="first share of the steps, in which the generator alone learns by reconstruction"
    )
    warmup_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the generator in the warm-up")
    warmup_pixel_weight: float = Field(20.0, ge=0, le=1e25, description="pixel_weight in the warm-up")
    pixel_weight: float = Field(
        0.0, ge=0, le=1e25, description="weight of the absolute difference to the real images at each scale"
    )
    object_pixels: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="by how much more an object's pixels weigh in pixel_weight's difference than the background's",
    )
    perceptual_weight: float = Field(
        0.0,
        ge=0,
        le=1e25,
        description="weight of the relative difference to the real image in the image encoder's activations",
    )
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

    @model_validator(mode="after")
    def _warmup_learns(self) -> Self:
        if self.warmup and not (self.warmup_pixel_weight or self.perceptual_weight):
            raise ValueError("warmup without a loss: set warmup_pixel_weight or perceptual_weight over 0")
        return self

    @model_validator(mode="after")
    def _object_pixels_count(self) -> Self:
        if self.object_pixels and not (self.pixel_weight or (self.warmup and self.warmup_pixel_weight)):
            raise ValueError("object_pixels weighs nothing: set pixel_weight over 0, or object_pixels to 0")
        return self


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
    object_layers: tuple[int, int] = Field(
        (3, 4),
        description="stride-2 layers under the discriminators of small and of large objects: an object wants some 5 "
        "cells a side",
    )
    roi_size: int = Field(5, ge=5, le=64, description="side of an object's region, in cells, with shared_trunk")
    object_condition: Literal["context", "words"] = Field(
        "context", description="what object-wise discriminators see of a caption: c_obj, or the attended words"
    )
    wrong_words: bool = Field(
        False, description="object-wise discriminators are shown the words of another object of the class, too"
    )
    balanced: bool = Field(
        False, description="real terms and the mean of the wrong ones weigh the same in each head; false: as published"
    )
    discriminator_layers: int = Field(
        4, ge=1, le=8, description="stride-2 layers of text and layout discriminators at most"
    )
    patch_padding: int = Field(
        0, ge=0, le=1, description="padding of the logits of text and layout discriminators; 1: several at 32 px"
    )
    condition_noise: float | None = Field(
        None,
        gt=0,
        le=100,
        description="noise around the normalised sentence; null: conditioning augmentation learns mean and variance",
    )
    class_channels: int = Field(
        0, ge=0, le=4096, description="channels of a learned class embedding to paint; 0: label vectors are painted"
    )
    text_scale: float = Field(
        1.0,
        gt=0,
        le=1e3,
        description="factor of the text features before generator and discriminators: a small encoder's are faint",
    )
    modifiers: int = Field(
        0,
        ge=0,
        le=8,
        description="words before an object's name whose vectors modulate it, too, and condition its discriminators "
        "(with object_condition=words): their features hardly differ between colours; needs modulation",
    )
    textures: int = Field(
        0,
        ge=0,
        le=256,
        description="channels of learned textures that modulate, too: of each class, stretched over its objects' boxes "
        "(windows, lamps and wheels have a place), and of backgrounds; 0: none; needs modulation",
    )
    whiten: bool = Field(False, description="word vectors are whitened: each principal axis counts alike")
    layout_norm: bool = Field(True, description="instance norm of the generator's layout code")
    start_norm: bool = Field(True, description="batch norm of the generator's first linear layer")
    modulation: bool = Field(
        False,
        description="class and words of the object on top modulate the generator's blocks, with one more at full size",
    )
    shared_trunk: bool = Field(
        False, description="object-wise discriminators share the trunk of the largest layout discriminator"
    )
    layout: bool = Field(True, description="condition on the layout; false: on the caption only, as AttnGAN does")
    adversarial: Literal["bce", "hinge"] = Field("bce", description="form of the adversarial loss")
    discriminator_norm: Literal["batch", "spectral"] = Field("batch", description="normalisation in the discriminators")
    augment: bool = Field(False, description="DiffAugment on the discriminators' inputs")
    text_blur: bool = Field(
        False, description="text discriminators see images through a low-pass filter: their slopes paint stripes"
    )
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
    def _layers_that_exist(self) -> Self:
        most = self.discriminator_layers if self.shared_trunk else 8
        if not all(1 <= layers <= most for layers in self.object_layers):
            bound = " (discriminator_layers)" if self.shared_trunk else ""
            raise ValueError(f"object_layers {self.object_layers}: each is 1 to {most}{bound}")
        return self

    @model_validator(mode="after")
    def _styles_need_classes(self) -> Self:
        if (self.modifiers or self.textures) and not self.modulation:
            raise ValueError("modifiers and textures need modulation: set modulation true, or both to 0")
        if self.modulation and not self.class_channels:
            raise ValueError("modulation needs a learned class embedding: set class_channels, for example 16")
        return self

    @model_validator(mode="after")
    def _objects_need_a_layout(self) -> Self:
        if not self.layout and (self.object_attention or self.object_discriminators or self.modulation):
            raise ValueError(
                "layout false leaves no objects: set object_attention, object_discriminators and modulation false, too"
            )
        return self
