"""The settings of the data, of the stages and of the judge: the branches of the tree in `objgan.config`.

Defaults are the published figures (Li et al., CVPR 2019); recipes change them.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from objgan.languages import languages

_MOST_MASK_PIXELS = 1 << 21


class Section(BaseModel):
    """Frozen settings; an unknown key or an ill-typed value is refused by its dotted name.

    Every number has a lower and an upper bound: settings also come with models and data that somebody else made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DataConfig(Section):
    """What the shards hold and what one sample of a batch looks like."""

    image_size: int = Field(256, ge=16, le=4096, description="side of the stored square image, in pixels")
    mask_size: int = Field(64, ge=16, le=1024, description="side of an object's mask, in pixels; a power of two")
    max_objects: int = Field(10, ge=1, le=256, description="most objects of a layout, the largest first (R)")
    max_words: int = Field(20, ge=4, le=1000, description="most words of a caption that any stage reads (T)")
    language: str = Field("en", description="of the captions: a code of spaCy's languages, whose tokenizer is used")
    min_count: int = Field(
        1, ge=1, le=1_000_000, description="words that are rarer in the training captions become the unknown word"
    )
    vector_channels: int = Field(50, ge=4, le=4096, description="channels of the fitted word vectors")
    shapes: Literal["masks", "ellipse", "box"] = Field(
        "masks",
        description="shapes of objects; ellipse, box: drawn in each box instead of masks, and stage shapes is skipped",
    )
    validation_percent: int = Field(
        10, ge=1, le=45, description="share of images in the validation split, by hash of the id"
    )
    test_percent: int = Field(10, ge=1, le=45, description="share of images in the test split, by hash of the id")

    @field_validator("language")
    @classmethod
    def _known_language(cls, language: str) -> str:
        if languages() and language not in languages():
            raise ValueError(f"none of spaCy's languages: {', '.join(languages())}")
        return language

    @model_validator(mode="after")
    def _halving_masks(self) -> Self:
        if self.mask_size & (self.mask_size - 1):
            raise ValueError(f"mask_size {self.mask_size} is no power of two: the shape generator halves it")
        return self

    @model_validator(mode="after")
    def _masks_fit_into_memory(self) -> Self:
        if self.max_objects * self.mask_size**2 > _MOST_MASK_PIXELS:
            raise ValueError(
                f"max_objects {self.max_objects} x mask_size {self.mask_size} squared is over {_MOST_MASK_PIXELS} "
                f"pixels of masks a sample: lower one of them"
            )
        return self


class TrainingConfig(Section):
    """What the one training loop needs to know, for any stage. Exactly one of `steps` and `epochs` is set."""

    batch_size: int = Field(16, ge=1, le=65_536, description="samples of a step, over all workers")
    group: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="samples that contrast, mismatched pairs and normalisation share; null: the whole batch",
    )
    steps: int | None = Field(None, ge=1, le=10**9, description="optimiser steps; set either this or epochs")
    epochs: int | None = Field(
        None, ge=1, le=10**6, description="passes over the training split; set either this or steps"
    )
    log_every: int = Field(10, ge=1, le=10**9, description="steps between two log lines")
    checkpoint_every: int = Field(
        500, ge=1, le=10**9, description="steps between two checkpoints; each checkpoint is validated"
    )
    picture_every: int = Field(500, ge=1, le=10**9, description="steps between two sets of pictures")
    validation_samples: int = Field(
        500, ge=1, le=10**7, description="validation images on which a checkpoint is measured"
    )
    keep_checkpoints: int = Field(2, ge=1, le=10**6, description="newest checkpoints to keep, beside the best one")
    ema_decay: float = Field(
        0.0, ge=0.0, lt=1.0, description="decay of the moving average of the weights; 0: no average"
    )
    ema_warmup: bool = Field(False, description="use the decay min(ema_decay, (1+n)/(10+n)), which suits short runs")
    max_words: int = Field(
        20, ge=1, le=1000, description="longer captions are cut to a random subset of their words, in order"
    )
    max_failures: int = Field(3, ge=0, le=10**6, description="restarts after a worker's death")
    max_skipped: int = Field(
        20, ge=0, le=10**9, description="skipped steps (a loss or gradient not finite) after which a run stops"
    )
    cooldown: float = Field(
        0.0, ge=0.0, le=1.0, description="last share of the steps, in which learning rates fall to 0"
    )
    window: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="shards whose samples are shuffled together; null: all shards of a folder, 64 of a URI",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of steps and epochs (the other one: null)")
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.group is not None and self.batch_size % self.group:
            raise ValueError(f"group {self.group} does not divide batch_size {self.batch_size}")
        return self

    @property
    def groups(self) -> int:
        """Groups of the global batch; each is computed whole on one worker, so no run has more workers than groups."""
        return self.batch_size // (self.group or self.batch_size)


class EncodersTraining(TrainingConfig):
    """Adam (0.5, 0.999), 2e-3 x 0.98 per epoch down to 2e-4 (AttnGAN)."""

    batch_size: int = Field(48, ge=2, le=65_536)
    epochs: int | None = Field(120, ge=1, le=10**6)
    max_words: int = Field(15, ge=1, le=1000)
    lr: float = Field(2e-3, gt=0, le=1e3, description="learning rate of Adam at the start")
    lr_decay: float = Field(0.98, gt=0, le=1, description="factor of the learning rate per epoch")
    lr_floor: float = Field(2e-4, ge=0, le=1e3, description="lowest learning rate")
    text_clip: float = Field(0.25, gt=0, le=1e9, description="largest gradient norm of the text encoder")


class EncodersConfig(Section):
    """Text and image encoders, pre-trained as DAMSM (Xu et al. 2018, section 3.2)."""

    channels: int = Field(256, ge=8, le=4096, multiple_of=2, description="text and image feature channels (D)")
    embedding: int = Field(300, ge=4, le=4096, description="channels of a word embedding")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout of word embeddings")
    backbone: Literal["inception_v3", "small"] = Field(
        "inception_v3", description="image backbone; small is trained from scratch"
    )
    backbone_weights: Path | None = Field(None, description="ImageNet weights (.pth or .safetensors) of the backbone")
    small_width: int = Field(32, ge=8, le=512, description="first width of the small backbone")
    gamma1: float = Field(4.0, gt=0, le=1e4, description="sharpness of the words' attention over regions")
    gamma2: float = Field(5.0, gt=0, le=1e4, description="how much the best word counts")
    gamma3: float = Field(10.0, gt=0, le=1e4, description="sharpness of matching over the batch")
    training: EncodersTraining = EncodersTraining()

    @model_validator(mode="after")
    def _weights_fit_backbone(self) -> Self:
        if self.backbone_weights is not None and self.backbone != "inception_v3":
            raise ValueError("backbone_weights go with backbone inception_v3 alone")
        return self


class BoxesTraining(TrainingConfig):
    """Adam 1e-3, clip 5."""

    batch_size: int = Field(64, ge=1, le=65_536)
    epochs: int | None = Field(40, ge=1, le=10**6)
    lr: float = Field(1e-3, gt=0, le=1e3, description="learning rate of Adam")
    lr_decay: float = Field(1.0, gt=0, le=1, description="factor of the learning rate per epoch")
    clip: float = Field(5.0, gt=0, le=1e9, description="largest gradient norm")
    label_weight: float = Field(1.0, ge=0, le=1e25, description="weight of the label loss")
    coordinate_weight: float = Field(
        1.0, ge=0, le=1e25, description="weight of the mixture's negative log-likelihood of coordinates"
    )
    count_weight: float = Field(
        0.0,
        ge=0,
        le=1e25,
        description="weight of the head that plans how many objects of each class a layout has; 0: no head",
    )
    word_decay: float = Field(
        6e-5, ge=0, le=1e6, description="L2 penalty of that head's word weights; 1 / number of captions is usual"
    )
    stated_captions: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a batch whose captions are made from the layouts: they state numbers and places; "
        "without a layout discriminator, objects are moved for most of them",
    )
    class_weight_power: float = Field(
        0.8, ge=0, le=10, description="the label loss is weighted by count^-power; 0: unweighted"
    )
    adversarial_weight: float = Field(
        0.0, ge=0, le=1e25, description="weight of the layout discriminator's term; 0: plain maximum likelihood"
    )
    adversarial_from: int = Field(0, ge=0, le=10**9, description="first step that uses the layout discriminator")
    discriminator_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the layout discriminator")


class BoxesConfig(Section):
    """Attentive sequence-to-sequence box generator (section 3.1; mixture: Hong et al. 2018)."""

    hidden: int = Field(256, ge=8, le=8192, description="channels of the decoder's state")
    label_embedding: int = Field(256, ge=4, le=8192, description="channels of a label's embedding")
    coordinate_embedding: int = Field(
        50, ge=4, le=8192, description="channels of the embeddings of (x, y) and of (w, r)"
    )
    components: int = Field(5, ge=1, le=1000, description="Gaussians of a mixture (K)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the decoder's input")
    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of words that are hidden from the stage's own networks in training"
    )
    text_encoder: Literal["frozen", "own"] = Field(
        "frozen", description="own: a text encoder of this stage, for data with captions and boxes but no pixels"
    )
    label_temperature: float = Field(
        0.0, ge=0, le=100, description="temperature of label sampling; 0: the most likely label"
    )
    presence: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="probability over which a class is planned, at label temperature 0; null: the classes with the "
        "highest expected F1, and the median of the number of all objects; needs training.count_weight",
    )
    mixture_temperature: float = Field(
        0.4, gt=0, le=100, description="temperature of mixture weights; sigma is scaled by its square root"
    )
    draws: int = Field(
        1,
        ge=1,
        le=64,
        description="draws of a box at most, where it overlaps others more than 95 % of the training data's pairs do",
    )
    candidates: int = Field(
        1,
        ge=1,
        le=1024,
        description="layouts drawn at most for a caption that states numbers or places; the one that breaks the fewest "
        "stated facts is taken",
    )
    obey_numbers: bool = Field(False, description="stated numbers bound how often a class comes")
    unnamed_presence: float = Field(
        0.0,
        ge=0,
        le=1,
        description="with obey_numbers: the least probability of a class that the caption does not name, where it "
        "states numbers of others",
    )
    candidate_label_temperature: float = Field(
        1.0, gt=0, le=100, description="temperature of label sampling of all candidates but the first"
    )
    candidate_mixture_temperature: float = Field(
        0.7, gt=0, le=100, description="temperature of the mixtures of all candidates but the first"
    )
    discriminator_width: int = Field(32, ge=4, le=1024, description="first width of the layout discriminator")
    adversarial: Literal["bce", "hinge"] = Field("hinge", description="form of the adversarial loss")
    training: BoxesTraining = BoxesTraining()


class ShapesTraining(TrainingConfig):
    """Adam 2e-4 (0.5, 0.999), x 0.98 per epoch after 50, clip 0.25 on the generator."""

    batch_size: int = Field(40, ge=1, le=65_536)
    epochs: int | None = Field(150, ge=1, le=10**6)
    generator_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the generator")
    discriminator_lr: float = Field(2e-4, gt=0, le=1e3, description="learning rate of the discriminators")
    lr_decay: float = Field(0.98, gt=0, le=1, description="factor of the learning rates per epoch")
    lr_decay_from: int = Field(50, ge=0, le=10**6, description="first epoch in which learning rates decay")
    clip: float = Field(0.25, gt=0, le=1e9, description="largest gradient norm of the generator")
    ema_decay: float = Field(0.999, ge=0, lt=1)
    instance_weight: float = Field(1.0, ge=0, le=1e25, description="weight of the instance-wise discriminator's term")
    global_weight: float = Field(1.0, ge=0, le=1e25, description="weight of the global discriminator's term")
    perceptual_weight: float = Field(
        10.0,
        ge=0,
        le=1e25,
        description="weight of the perceptual term on VGG19-BN features; without weights, on discriminator features",
    )
    pixel_weight: float = Field(0.0, ge=0, le=1e25, description="weight of the binary cross-entropy per pixel")
    overlap_weight: float = Field(0.0, ge=0, le=1e25, description="weight of 1 - soft IoU of each object")


class ShapesConfig(Section):
    """Shape generator with instance-wise and global discriminators (section 3.2; Hong et al. 2018)."""

    width: int = Field(64, ge=8, le=1024, description="first width of the generator")
    class_embedding: int = Field(32, ge=4, le=4096, description="channels of a class embedding")
    noise: int = Field(32, ge=1, le=4096, description="noise channels per object")
    template: int = Field(
        0, ge=0, le=512, description="side of learned shapes in box coordinates that the generator starts from; 0: none"
    )
    discriminator_width: int = Field(64, ge=8, le=1024, description="first width of the discriminators")
    vgg_weights: Path | None = Field(None, description="file with VGG19-BN weights; null: feature matching instead")
    adversarial: Literal["bce", "hinge"] = Field("bce", description="form of the adversarial loss")
    training: ShapesTraining = ShapesTraining()


class JudgeTraining(TrainingConfig):
    """Adam 2e-3 (0.9, 0.999), cooled down over the second half."""

    batch_size: int = Field(32, ge=2, le=65_536)
    epochs: int | None = Field(15, ge=1, le=10**6)
    lr: float = Field(2e-3, gt=0, le=1e3, description="learning rate of Adam at the start")
    cooldown: float = Field(0.5, ge=0, le=1)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    ema_warmup: bool = True


class JudgeConfig(Section):
    """Judge of generated images, trained on true images with masks, colours and scenes; no part of a model."""

    width: int = Field(32, ge=4, le=1024, multiple_of=2, description="channels at 32 x 32 cells")
    silhouettes: float = Field(
        0.3, ge=0, lt=1, description="share of objects shown as flat outlines, with the target 'no object'"
    )
    noise: float = Field(
        0.15, ge=0, lt=1, description="share of images shown as coloured noise, with the target 'no object'"
    )
    found_threshold: float = Field(
        0.85, gt=0, lt=1, description="score from which a class counts as present in an image"
    )
    training: JudgeTraining = JudgeTraining()


class ComputeConfig(Section):
    """Where it runs. Nothing here is part of a step's identity."""

    workers: int = Field(1, ge=1, le=10_000, description="training workers; with max_workers: the fewest")
    max_workers: int | None = Field(
        None, ge=1, le=10_000, description="most workers of an elastic run; null: same as workers"
    )
    threads: int = Field(0, ge=0, le=10_000, description="torch threads of a worker; 0: its share of the cores")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device of the workers; auto: a GPU if there is one"
    )
    gpus_per_worker: float = Field(
        1.0, ge=1e-4, le=1, description="share of a GPU that a worker takes; under 1, several trials share a GPU"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on GPUs that support it"
    )
    channels_last: Literal["auto", "on", "off"] = Field("auto", description="memory format; auto: on GPUs")
    compile: bool = Field(False, description="compile the networks with torch.compile")
    deterministic: bool = Field(True, description="on GPUs, use the deterministic form of every operation that has one")
    resize_every: float = Field(
        60.0, gt=0, le=1e9, description="seconds between two checks of an elastic run for more workers"
    )
    autoscaling: bool = Field(
        False, description="the cluster grows on demand: request missing workers instead of refusing the run"
    )
    start_deadline: float = Field(300.0, gt=0, le=1e9, description="seconds without any worker after which a run fails")
    stall_deadline: float = Field(1800.0, gt=0, le=1e9, description="seconds without a step after which a run fails")
    loader_processes: int = Field(
        0, ge=0, le=1000, description="data loading processes of a worker; 0: a thread in the worker"
    )
    cache: Path = Field(Path("~/.cache/objgan"), description="folder on each machine for the cache of remote data")
    cache_gb: float = Field(50.0, gt=0, le=1e6, description="most that the cache holds, in GB (10^9 bytes)")

    @model_validator(mode="after")
    def _one_cache_a_machine(self) -> Self:
        if not self.cache.is_absolute() and not str(self.cache).startswith("~"):
            raise ValueError(f"cache {self.cache} would be another folder for every worker: give a path from / or ~")
        return self

    @model_validator(mode="after")
    def _a_range_of_workers(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers {self.max_workers} is under workers {self.workers}")
        return self

    @model_validator(mode="after")
    def _one_worker_on_a_shared_gpu(self) -> Self:
        if self.gpus_per_worker < 1 and self.device == "cpu":
            raise ValueError(f"gpus_per_worker {self.gpus_per_worker:g} does not go with device cpu")
        if self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError(
                f"gpus_per_worker {self.gpus_per_worker:g} goes with one worker, because NCCL takes no GPU twice; "
                f"there are {self.most_workers}"
            )
        return self

    @property
    def most_workers(self) -> int:
        """Workers of a run at its largest."""
        return self.max_workers or self.workers
