"""The box generator's discriminator at work: its own phase, and its term in the generator's loss."""

from dataclasses import dataclass

from torch import Tensor, nn

from objgan.batch import Batch
from objgan.config import Config
from objgan.losses.adversarial import accuracy, discriminator_fake, discriminator_real, generator_loss
from objgan.networks.box_generator import BoxGenerator, BoxOutputs
from objgan.networks.encoders import TextFeatures
from objgan.networks.layout_discriminator import BoxDiscriminator, SoftLayout
from objgan.stages.base import Adam, Losses, Phase
from objgan.stages.image_pairs import mismatched

NETWORK = "box_discriminator"


@dataclass(frozen=True)
class DrawnOutputs(BoxOutputs):
    """With a layout drawn from the generator (graph attached) and the sentence [B, D] to judge it with.

    The sentence is detached: a generator that could move it would learn to be judged kindly, not to draw well.
    """

    drawn: SoftLayout
    sentence: Tensor


class BoxJudge:
    """Adds the discriminator to a stage's `networks`; `phase` trains it, `generator_losses` asks it.

    Nothing of it happens before step `boxes.training.adversarial_from`.
    """

    def __init__(self, networks: nn.ModuleDict, config: Config, classes: int) -> None:
        self.networks, self.classes = networks, classes
        self.kind, self.start = config.boxes.adversarial, config.boxes.training.adversarial_from
        networks[NETWORK] = BoxDiscriminator(classes, config.boxes.discriminator_width, config.encoders.channels)
        self.phase = Phase(
            name="discriminator",
            networks=(NETWORK,),
            optimiser=Adam(config.boxes.training.discriminator_lr),
            losses=self.discriminator_losses,
            weights={"unconditional": 1.0, "conditional": 1.0},
        )

    def draw(self, generator: BoxGenerator, text: TextFeatures, outputs: BoxOutputs) -> BoxOutputs:
        """A training step's outputs, with a layout drawn for each caption once the discriminator has started."""
        steps = self._discriminator().steps
        started = not self.start or int(steps) >= self.start
        steps += 1
        if not started:
            return outputs
        return DrawnOutputs(**vars(outputs), drawn=generator.draw(text), sentence=text.sentence.detach())

    def discriminator_losses(self, batch: Batch, outputs: BoxOutputs) -> Losses:
        """True layouts against drawn ones; with their own sentence against drawn ones and another picture's sentence.

        Right and wrong weigh the same in both heads: where they do not, a hinge settles on one answer for all.
        """
        if not isinstance(outputs, DrawnOutputs):
            return {}
        judge, sentence, kind = self._discriminator(), outputs.sentence, self.kind
        real = judge(SoftLayout.from_layout(batch.layout, self.classes), sentence, sentence.roll(1, 0))
        fake = judge(outputs.drawn.detach(), sentence)
        (matched, other), (drawn,) = real.conditional, fake.conditional
        apart = mismatched(batch)[:, None, None]
        wrong = discriminator_fake(drawn, kind) + discriminator_fake(other, kind, apart)
        return {
            "unconditional": discriminator_real(real.unconditional, kind)
            + discriminator_fake(fake.unconditional, kind),
            "conditional": discriminator_real(matched, kind) + wrong / 2,
            "accuracy": (accuracy(real.unconditional, True) + accuracy(fake.unconditional, False)) / 2,
            "accuracy_drawn": (accuracy(matched, True) + accuracy(drawn, False)) / 2,
            "accuracy_mismatched": (accuracy(matched, True) + accuracy(other, False, apart)) / 2,
        }

    def generator_losses(self, outputs: BoxOutputs) -> Losses:
        """How far drawn layouts are from being called real and fitting, "adversarial"; nothing before the start."""
        if not isinstance(outputs, DrawnOutputs):
            return {}
        judged = self._discriminator()(outputs.drawn, outputs.sentence)
        (fitting,) = judged.conditional
        return {"adversarial": generator_loss(judged.unconditional, self.kind) + generator_loss(fitting, self.kind)}

    def _discriminator(self) -> BoxDiscriminator:
        network = self.networks[NETWORK]
        assert isinstance(network, BoxDiscriminator)
        return network
