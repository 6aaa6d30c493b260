"""Stage `images`: caption, boxes and masks -> images at every scale (Li et al. 2019, sections 3.3 and 3.4)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from objgan import drawing
from objgan.attention_maps import word_attention_maps
from objgan.batch import Batch, resize_images
from objgan.config import Config
from objgan.domain import Domain
from objgan.layout import drop_small
from objgan.losses.damsm import Gammas, damsm_losses, same_image, sentence_scores
from objgan.losses.divergence import kl_to_standard_normal
from objgan.losses.images import AddedGradient, perceptual_loss, pixel_loss
from objgan.metrics.images import first_of_pool, object_colour_distance
from objgan.networks.encoders import ImageEncoder
from objgan.networks.image_generator import GeneratorSizes, ImageGenerator
from objgan.networks.painting import owner_shares
from objgan.stages.base import Adam, Losses, Phase, Stage
from objgan.stages.image_judges import ImageJudges, build_discriminators
from objgan.stages.image_pairs import PairMaker, Pass


def build_image_generator(config: Config, domain: Domain) -> ImageGenerator:
    """The generator of these settings."""
    images = config.images
    sizes = GeneratorSizes(
        sizes=images.sizes,
        width=images.width,
        noise=images.noise,
        condition=images.condition,
        text_channels=config.encoders.channels,
        first_blocks=images.first_blocks,
        next_blocks=images.next_blocks,
        half_blocks=images.half_resolution_blocks,
        attention=images.attention,
        temperature=images.attention_temperature,
        object_attention=images.object_attention,
        layout=images.layout,
        condition_noise=images.condition_noise,
        class_channels=images.class_channels,
        layout_norm=images.layout_norm,
        start_norm=images.start_norm,
        modulation=images.modulation,
        text_scale=images.text_scale,
        modifiers=images.modifiers,
        word_channels=images.word_channels,
        textures=images.textures,
    )
    # One projection for words and labels, or they would not live in one space.
    vectors = torch.from_numpy(domain.vocabulary.projected(images.word_channels, images.whiten).vectors)
    return ImageGenerator(sizes, vectors, _label_vectors(config, domain))


class ImagesStage(Stage):
    """Multi-stage generator against text and layout discriminators per scale and object-wise ones on the largest.

    For the paper's ablation, object-driven attention, object-wise discriminators, or the layout can be left out.

    Trained on true boxes and masks. The text encoder that conditions and the image encoder that matches (DAMSM) are
    frozen helpers.
    """

    name: ClassVar[str] = "images"
    columns: ClassVar[frozenset[str]] = frozenset({"image", "boxes", "masks"})
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "image_encoder")
    inference: ClassVar[tuple[str, ...]] = ("image_generator",)
    least_batch: ClassVar[int] = 2
    # The other measures ask the encoder that trains the generator, which learns to please it: they go up even where
    # the images get worse. Colours inside the objects are judged by nothing that was trained.
    objective: ClassVar[tuple[str, Literal["max", "min"]]] = ("object_colour_distance", "min")
    measures: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "r1_teacher_of_pool": "max",
        "teacher_similarity": "max",
        "object_colour_distance": "min",
    }

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__(config, domain, helpers)
        self.networks["image_generator"] = build_image_generator(config, domain)
        self.networks.update(build_discriminators(config, domain))
        self.judges = ImageJudges(self.networks, config.images)
        images, encoders = config.images, config.encoders
        self.gammas = Gammas(encoders.gamma1, encoders.gamma2, encoders.gamma3)
        self.pairs = PairMaker(images, _label_vectors(config, domain), domain.statistics.class_counts)
        self.phases = self._phases()

    def forward(self, batch: Batch) -> Pass:
        """Images for the batch's captions and true layouts; noise from torch's global generator."""
        noise = torch.randn(len(batch), *self._generator().noise_shape, device=batch.words.device)
        return self._make(batch, noise)

    def discriminator_losses(self, batch: Batch, made: Pass) -> Losses:
        """Every discriminator's loss by its name, and how often it is right; the generator's outputs detached."""
        return self.judges.discriminator_losses(self.pairs(batch, made, self._reals(batch), detach=True))

    def discriminator_terms(self, batch: Batch, made: Pass) -> Iterator[Losses]:
        """`discriminator_losses` in pieces that have no parameters in common."""
        return self.judges.discriminator_terms(self.pairs(batch, made, self._reals(batch), detach=True))

    def penalty_losses(self, batch: Batch, made: Pass) -> Losses:
        """Matching-aware gradient penalty of the text discriminators, together with their losses.

        The phase has an optimiser of its own, and Adam undoes any factor on a lone term: only beside the loss that it
        is to temper does the penalty's weight mean anything.
        """
        pairs = self.pairs(batch, made, self._reals(batch), detach=True)
        return self.judges.text_losses(pairs) | {"penalty": self.judges.penalty(pairs)}

    def generator_losses(self, batch: Batch, made: Pass) -> Losses:
        """Adversarial terms (sums over scales and over small and large objects), DAMSM on the largest image, KL.

        Terms of discriminators that were not built are not there.

        With a feature weight, real images are shown beside the generated ones, to be matched. With `damsm_ratio` DAMSM
        is only reported: its gradient joins the discriminators' on their way back through the largest image.
        """
        training = self.config.images.training
        image = made.generated.images[-1]
        # Only the way to the image is its own: one pass of the encoder serves DAMSM and the reconstruction.
        seen = image.view_as(image)
        activations = self._encoder().activations(seen)
        damsm, judged = self._damsm(batch, made, seen, activations)
        reals = self._reals(batch) if training.feature_weight else []
        adversarial = self.judges.generator_losses(self.pairs(batch, judged, reals, detach=False))
        kl = kl_to_standard_normal(made.generated.mean, made.generated.log_variance)
        rebuilt = training.pixel_weight or training.perceptual_weight
        rest = self._reconstruction(batch, made, activations) if rebuilt else {}
        return adversarial | damsm | {"kl": kl} | rest

    def reconstruction_losses(self, batch: Batch, made: Pass) -> Losses:
        """How far the images are from the real ones, whose layouts they were made from."""
        return self._reconstruction(batch, made, self._encoder().activations(made.generated.images[-1]))

    def _reconstruction(self, batch: Batch, made: Pass, activations: list[Tensor]) -> Losses:
        """activations: the encoder's of the largest image."""
        reals = self._reals(batch)
        with torch.no_grad():
            wanted = self._encoder().activations(reals[-1])
        return {
            "pixels": pixel_loss(made.generated.images, reals, self._pixel_weights(made)),
            "perceptual": perceptual_loss(activations, wanted),
        }

    def _pixel_weights(self, made: Pass) -> list[Tensor] | None:
        """[B, 1, S, S] a scale: more where an object is."""
        more = self.config.images.training.object_pixels
        if not more:
            return None
        masks = made.layout.soft_masks
        shares = (owner_shares(resize_images(masks, size)) for size in self.config.images.sizes)
        return [1 + more * (1 - share[:, :1]) for share in shares]

    def _damsm(self, batch: Batch, made: Pass, seen: Tensor, activations: list[Tensor]) -> tuple[Losses, Pass]:
        """DAMSM's losses, and what the discriminators are to see: with a ratio, an image that carries its gradient.

        activations: the encoder's of `seen`, the largest image
        """
        ratio = self.config.images.training.damsm_ratio
        regions, vector = self._encoder().embed(activations)
        found = damsm_losses(regions, vector, made.text, batch.image_ids, self.gammas)
        losses = {f"damsm_{name}": loss for name, loss in found.items()}
        if ratio is None:
            return losses, made
        (slope,) = torch.autograd.grad(found["words"] + found["sentences"], seen, retain_graph=True)
        losses = {name: loss.detach() for name, loss in losses.items()}
        carrier: Tensor = AddedGradient.apply(made.generated.images[-1], slope, ratio)
        images = [*made.generated.images[:-1], carrier]
        return losses, replace(made, generated=replace(made.generated, images=images))

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """On true layouts: does the teacher (this model's own DAMSM) find the caption; are the objects' colours right.

        r1_teacher_of_pool: own caption first among the captions of this batch's other images
        teacher_similarity: cosine of image and caption
        object_colour_distance: see `metrics.images`; the objective
        """
        made = self._make(batch, self._noise(batch))
        image = made.generated.images[-1].float()
        _, vector = self.helpers["image_encoder"](image)
        scores = sentence_scores(vector, made.text)
        worded_alike = (batch.words[:, None] == batch.words).all(-1)
        return {
            "r1_teacher_of_pool": first_of_pool(scores, ~worded_alike & ~same_image(batch.image_ids)),
            "teacher_similarity": scores.diagonal(),
            "object_colour_distance": object_colour_distance(image, batch.pixels(image.shape[-1]), made.layout),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """A row a sample, its caption above: true boxes, true masks, generated image at each scale, real image; and
        where the words look, in a picture of its own.
        """
        made, side = self._make(batch, self._noise(batch)), 256
        layout, real = made.layout, batch.pixels(self.config.images.sizes[-1])
        rows, masks = [], made.layout.soft_masks
        for sample, count in enumerate(layout.count.tolist()):
            names = [self.domain.classes[label] for label in layout.labels[sample, :count].tolist()]
            images = [scale[sample] for scale in made.generated.images] + [real[sample]]
            rows.append(
                [
                    drawing.draw_boxes(names, layout.boxes[sample, :count], side),
                    drawing.draw_masks(names, masks[sample, :count], side),
                    *(drawing.enlarge(drawing.to_image(image), side) for image in images),
                ]
            )
        captions = [self.domain.vocabulary.decode(words) for words in batch.words.tolist()]
        scales = [f"generated, {size} px" for size in self.config.images.sizes]
        pictures = {"images": drawing.grid(rows, captions, ("boxes", "masks", *scales, "real image"))}
        return pictures | self._attention(batch, made, captions)

    def _attention(self, batch: Batch, made: Pass, captions: list[str]) -> dict[str, Image.Image]:
        """What the last scale's cells take from which word; nothing with a single scale: it has no such attention."""
        maps, rows = made.generated.word_maps[-1:], []
        for sample, count in enumerate(batch.word_count.tolist() if maps else ()):
            image = made.generated.images[-1][sample]
            words = [self.domain.vocabulary.words[word] for word in batch.words[sample, :count].tolist()]
            rows.append(
                [drawing.enlarge(drawing.to_image(image), 160), *word_attention_maps(image, maps[0][sample], words, 4)]
            )
        if not rows:
            return {}
        return {"attention": drawing.grid(rows, captions, ("generated", *["where a word looks"] * 4))}

    def _make(self, batch: Batch, noise: Tensor) -> Pass:
        with torch.no_grad():
            text = self.helpers["text_encoder"](batch.words, batch.word_count)
        layout = drop_small(batch.layout, self.config.images.min_object_pixels / 256)
        return Pass(text, layout, self._generator()(text, batch.words, layout, noise))

    def _noise(self, batch: Batch) -> Tensor:
        """Noise that depends on the image's id alone, so that measures can be compared over time."""
        shape = self._generator().noise_shape
        seeds = (torch.Generator().manual_seed(image) for image in batch.image_ids.tolist())
        return torch.stack([torch.randn(shape, generator=seed) for seed in seeds]).to(batch.words.device)

    def _reals(self, batch: Batch) -> list[Tensor]:
        return [batch.pixels(size) for size in self.config.images.sizes]

    def _encoder(self) -> ImageEncoder:
        encoder = self.helpers["image_encoder"]
        assert isinstance(encoder, ImageEncoder)
        return encoder

    def _generator(self) -> ImageGenerator:
        generator = self.networks["image_generator"]
        assert isinstance(generator, ImageGenerator)
        return generator

    def _phases(self) -> tuple[Phase, ...]:
        training = self.config.images.training
        judges = tuple(name for name in self.networks if name not in self.inference)
        text = tuple(name for name in judges if name.startswith("text_"))
        optimiser = Adam(training.discriminator_lr)
        phases: list[Phase] = []
        if training.warmup:
            weights = {"pixels": training.warmup_pixel_weight, "perceptual": training.perceptual_weight}
            warm = Adam(training.warmup_lr)
            phases.append(Phase("warmup", self.inference, warm, self.reconstruction_losses, weights, active=self._warm))
        weights = dict.fromkeys(judges, 1.0)
        phases.append(
            Phase("discriminators", judges, optimiser, self.discriminator_terms, weights, active=self._judged)
        )
        if training.gradient_penalty:
            every = training.gradient_penalty_every
            weights = dict.fromkeys(text, 1.0) | {"penalty": training.gradient_penalty * every}
            phases.append(
                Phase("penalty", text, optimiser, self.penalty_losses, weights, every=every, active=self._judged)
            )
        damsm = 0.0 if training.damsm_ratio else training.damsm_weight
        weights = {
            "unconditional": training.unconditional_weight,
            "text": training.text_weight,
            "layout": training.layout_weight,
            "object": training.object_weight,
            "features": training.feature_weight,
            "damsm_words": damsm,
            "damsm_sentences": damsm,
            "kl": training.kl_weight,
            "pixels": training.pixel_weight,
            "perceptual": training.perceptual_weight,
        }
        generator = Adam(training.generator_lr)
        phases.append(
            Phase("generator", self.inference, generator, self.generator_losses, weights, active=self._judged)
        )
        return tuple(phases)

    def _warm(self, share: float) -> bool:
        return share < self.config.images.training.warmup

    def _judged(self, share: float) -> bool:
        return not self._warm(share)


def _label_vectors(config: Config, domain: Domain) -> Tensor:
    """[C, W]: the classes' word vectors, in the space of the projected vocabulary."""
    vocabulary = domain.vocabulary.projected(config.images.word_channels, config.images.whiten)
    return torch.from_numpy(vocabulary.label_vectors(domain.classes))
