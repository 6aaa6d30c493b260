"""The image stage's discriminators at work: their own losses and the generator's, on given pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objgan.config import Config
from objgan.domain import Domain
from objgan.image_sections import ImagesConfig
from objgan.losses.adversarial import generator_loss
from objgan.losses.divergence import gradient_penalty
from objgan.losses.images import ObjectJudgements, feature_matching, layout_loss, object_loss, text_loss
from objgan.networks.discriminators import LayoutDiscriminator, TextDiscriminator, trunk_layers
from objgan.networks.layers import Blur, orthogonal_
from objgan.networks.object_discriminator import ObjectDiscriminator, ObjectHead
from objgan.stages.base import Losses
from objgan.stages.image_pairs import Pairs


def build_discriminators(config: Config, domain: Domain) -> dict[str, nn.Module]:
    """`text_S` and `layout_S` for every scale S, `object_small` and `object_large` for the largest.

    Settings may leave out those of layouts or of objects (the paper's ablation). With a shared trunk the object-wise
    ones are heads on that of the largest `layout_S`.
    """
    images, classes = config.images, len(domain.classes)
    width, norm = images.discriminator_width, images.discriminator_norm
    layers, padding = images.discriminator_layers, images.patch_padding
    networks: dict[str, nn.Module] = {}
    for size in images.sizes:
        networks[f"text_{size}"] = TextDiscriminator(size, width, config.encoders.channels, norm, layers, padding)
        if images.layout:
            networks[f"layout_{size}"] = LayoutDiscriminator(size, width, classes, norm, layers, padding)
    context = images.width
    if images.object_condition == "words":
        context = config.encoders.channels + (images.word_channels if images.modifiers else 0)
    condition, largest = images.word_channels + context, images.sizes[-1]
    groups = zip(("small", "large"), images.object_layers, strict=True)
    for group, most in groups if images.object_discriminators else ():
        if images.shared_trunk:
            head = ObjectHead(width, trunk_layers(largest, most), condition, norm, images.roi_size)
        else:
            head = ObjectDiscriminator(largest, width, classes, condition, most, norm)
        networks[f"object_{group}"] = head
    return {name: orthogonal_(network) for name, network in networks.items()}


@dataclass(frozen=True)
class Views:
    """A trunk's activations, layer by layer: of real images, of generated ones, of real ones with wrong classes."""

    real: list[Tensor]
    fake: list[Tensor]
    permuted: list[Tensor] | None


class ImageJudges:
    """Losses of and by the networks that `build_discriminators` made, found by name in `networks`."""

    def __init__(self, networks: nn.ModuleDict, images: ImagesConfig) -> None:
        self.networks = networks
        self.images = images
        self.kind = images.adversarial
        self.seen_by_text: Callable[[Tensor], Tensor] = Blur() if images.text_blur else nn.Identity()

    def discriminator_losses(self, pairs: Pairs) -> Losses:
        """Every discriminator's loss by its name, and how often it is right ("..._accuracy_...")."""
        return {name: loss for losses in self.discriminator_terms(pairs) for name, loss in losses.items()}

    def discriminator_terms(self, pairs: Pairs) -> Iterator[Losses]:
        """The same in pieces without common parameters, so that each one's graph can go before the next one's comes."""
        for scale in range(len(self.images.sizes)):
            yield self._text_terms(pairs, scale)
        shared, rest = self.images.shared_trunk, list(pairs.objects) if self.images.object_discriminators else []
        views = None
        for size, real, fake in zip(self.images.sizes, pairs.reals, pairs.fakes, strict=True):
            if self.images.layout:
                views = _look(self._layout(size), pairs, real, fake)
                losses = _named(f"layout_{size}", self._layout_terms(self._layout(size), views))
                if shared and size == self.images.sizes[-1]:
                    for group in rest:
                        losses |= _named(f"object_{group}", self._object_terms(pairs, group, views))
                yield losses
        for group in () if shared else rest:
            yield _named(f"object_{group}", self._object_terms(pairs, group, None))

    def text_losses(self, pairs: Pairs) -> Losses:
        """The text discriminators' part of `discriminator_losses`."""
        scales = range(len(self.images.sizes))
        return {name: loss for scale in scales for name, loss in self._text_terms(pairs, scale).items()}

    def _text_terms(self, pairs: Pairs, scale: int) -> Losses:
        size, weight = self.images.sizes[scale], self.images.training.text_weight
        judge = self._text(size)
        reals = judge(self.seen_by_text(pairs.reals[scale]), pairs.sentence, pairs.other_sentence)
        fakes = judge(self.seen_by_text(pairs.fakes[scale]), pairs.sentence)
        return _named(
            f"text_{size}", text_loss(reals, fakes, pairs.mismatched, self.kind, weight, self.images.balanced)
        )

    def penalty(self, pairs: Pairs) -> Tensor:
        """Matching-aware gradient penalty on real pairs, the sum over the text discriminators; a float32 scalar."""
        power = self.images.training.gradient_penalty_power
        sentence = pairs.sentence.detach().float().requires_grad_()
        penalties = []
        # Slopes to the sixth power want float32.
        with torch.autocast(sentence.device.type, enabled=False):
            for size, real in zip(self.images.sizes, pairs.reals, strict=True):
                images = real.detach().requires_grad_()
                logits = self._text(size)(self.seen_by_text(images), sentence).conditional[0]
                penalties.append(gradient_penalty(logits, [images, sentence], power))
        return torch.stack(penalties).sum()

    def generator_losses(self, pairs: Pairs) -> Losses:
        """Sums over the scales of "unconditional", "text", "layout"; over small and large objects of "object".

        An object-wise discriminator's term is the sum of its unconditional and its conditional one. Where the pairs
        have real images, also "features": how far the layout discriminators' activations are from those of the real.
        Terms of discriminators that were not built are left out.
        """
        terms: dict[str, list[Tensor]] = {
            name: [] for name in ("unconditional", "text", "layout", "object", "features")
        }
        for size, fake in zip(self.images.sizes, pairs.fakes, strict=True):
            judged = self._text(size)(self.seen_by_text(fake), pairs.sentence)
            terms["unconditional"].append(generator_loss(judged.unconditional, self.kind))
            terms["text"].append(generator_loss(judged.conditional[0], self.kind))
        features = self._please_layouts(pairs, terms) if self.images.layout else []
        if self.images.object_discriminators:
            self._please_objects(pairs, terms, features)
        return {name: torch.stack(values).sum() for name, values in terms.items() if values}

    def _please_layouts(self, pairs: Pairs, terms: dict[str, list[Tensor]]) -> list[Tensor]:
        """Fills `terms`; gives the largest trunk's activations."""
        reals = dict(zip(self.images.sizes, pairs.reals, strict=False))
        features: list[Tensor] = []
        for size, fake in zip(self.images.sizes, pairs.fakes, strict=True):
            layout = self._layout(size)
            code = layout.encode(pairs.layout)
            features = layout.features(fake, code)
            terms["layout"].append(generator_loss(layout.judge(features), self.kind))
            if size in reals:
                with torch.no_grad():
                    wanted = layout.features(reals[size], code)
                terms["features"].append(feature_matching(features, wanted))
        return features

    def _please_objects(self, pairs: Pairs, terms: dict[str, list[Tensor]], shared: list[Tensor]) -> None:
        for group, selected in pairs.objects.items():
            judge, features = self._object(group), shared
            if isinstance(judge, ObjectDiscriminator):
                features = judge.features(pairs.fakes[-1], judge.encode(pairs.layout))
            objects = judge.judge(features, pairs.layout.boxes, selected.nonzero(as_tuple=True), pairs.conditions)
            terms["object"].append(generator_loss(objects.unconditional, self.kind))
            terms["object"].append(generator_loss(objects.conditional[0], self.kind))

    def _layout_terms(self, judge: LayoutDiscriminator, views: Views) -> Losses:
        permuted = None if views.permuted is None else judge.judge(views.permuted)
        return layout_loss(judge.judge(views.real), judge.judge(views.fake), permuted, self.kind)

    def _object_terms(self, pairs: Pairs, group: str, shared: Views | None) -> Losses:
        judge, views = self._object(group), shared
        if isinstance(judge, ObjectDiscriminator):
            views = _look(judge, pairs, pairs.reals[-1], pairs.fakes[-1])
        assert views is not None
        boxes, selected = pairs.layout.boxes, pairs.objects[group].nonzero(as_tuple=True)
        own, wrong, other = pairs.conditions, pairs.wrong_conditions, pairs.other_conditions
        conditions = [condition for condition in (own, wrong, other) if condition is not None]
        judged = ObjectJudgements(
            real=judge.judge(views.real, boxes, selected, *conditions),
            fake=judge.judge(views.fake, boxes, selected, own),
            permuted=None if views.permuted is None else judge.judge(views.permuted, boxes, selected, conditions[1]),
            others=None if pairs.others is None else pairs.others[selected],
        )
        return object_loss(judged, self.kind, self.images.balanced)

    def _text(self, size: int) -> TextDiscriminator:
        network = self.networks[f"text_{size}"]
        assert isinstance(network, TextDiscriminator)
        return network

    def _layout(self, size: int) -> LayoutDiscriminator:
        network = self.networks[f"layout_{size}"]
        assert isinstance(network, LayoutDiscriminator)
        return network

    def _object(self, group: str) -> ObjectHead:
        network = self.networks[f"object_{group}"]
        assert isinstance(network, ObjectHead)
        return network


def _look(judge: LayoutDiscriminator | ObjectDiscriminator, pairs: Pairs, real: Tensor, fake: Tensor) -> Views:
    code = judge.encode(pairs.layout)
    permuted = None if pairs.permuted is None else judge.features(real, judge.encode(pairs.permuted))
    return Views(judge.features(real, code), judge.features(fake, code), permuted)


def _named(network: str, terms: Losses) -> Losses:
    return {network if name == "loss" else f"{network}_{name}": value for name, value in terms.items()}
