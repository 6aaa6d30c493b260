"""Box generator: words -> labelled boxes, largest first (Li et al. 2019, section 3.1; mixtures: Hong et al. 2018)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.domain import LayoutStatistics
from objgan.geometry import SMALLEST_SIDE, cxywr_to_xywh, overlap, xywh_to_cxywr
from objgan.layout import Layout
from objgan.losses.boxes import label_nll, mixture_nll
from objgan.networks.count_head import CaptionFeatures, CountHead, hide_words
from objgan.networks.count_plan import allowed_labels, at_least, likely_or_named, plan_counts
from objgan.networks.encoders import TextEncoder, TextFeatures
from objgan.networks.layout_discriminator import SoftLayout
from objgan.networks.mixture_sampling import draw_mixture, draw_one_hot, sample_labels, sample_mixture, turned
from objgan.networks.relations import Relations, SaidOfObjects
from objgan.placing import place
from objgan.statements import Statements, kept


@dataclass(frozen=True)
class BoxSizes:
    """text: channels of the text features (D); components: Gaussians of a mixture (K).

    vocabulary:   words, for a `CountHead` that plans how many objects of each class come; 0: the decoder alone decides
    word_dropout: share of the words that are hidden in training
    """

    text: int
    hidden: int = 256
    label_embedding: int = 256
    coordinate_embedding: int = 50
    components: int = 5
    dropout: float = 0.0
    vocabulary: int = 0
    word_dropout: float = 0.0


@dataclass(frozen=True)
class Temperatures:
    """label: of planned numbers and of labels, 0: the likeliest; mixture: on log weights, its root on sigmas."""

    label: float = 0.0
    mixture: float = 0.4


@dataclass(frozen=True)
class Candidates:
    """How a layout is chosen where a caption states something about it.

    most:         layouts that are drawn at most; of those that break the fewest stated facts, the likeliest is taken.
                  The first one is drawn as where nothing is stated; the others only where it breaks a fact.
    numbers:      stated numbers bound how often a class comes
    unnamed:      with `numbers`: the least presence of a class of which the caption states nothing while it states
                  numbers of others (see `likely_or_named`)
    temperatures: of all candidates but the first
    """

    most: int = 1
    numbers: bool = False
    temperatures: Temperatures = Temperatures(1.0, 0.7)
    unnamed: float = 0.0


@dataclass(frozen=True)
class BoxOutputs:
    """What the teacher-forced decoder says of each step.

    labels:   logits [B, R + 1, C + 1], class C is the end
    position: [B, R, K, 6], mixture of the standardised centre (x, y), given the true label
    size:     [B, R, K, 6], mixture of the standardised (width, height / width), given the true label and centre
    counts:   logits [B, C, R + 1] of a `CountHead`, or None without one
    """

    labels: Tensor
    position: Tensor
    size: Tensor
    counts: Tensor | None


class BoxGenerator(nn.Module):
    """An LSTM decoder with attention over the words; see `BoxOutputs` for what each step predicts.

    It works in standardised (centre x, centre y, width, height / width); the start input is the mean box, zero. With
    `encoder` it encodes the words itself, otherwise it is given another's features.
    """

    mean: Tensor
    std: Tensor
    caps: Tensor

    def __init__(
        self,
        sizes: BoxSizes,
        statistics: LayoutStatistics,
        max_objects: int,
        temperatures: Temperatures = Temperatures(),
        encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        classes, hidden = len(statistics.class_counts), sizes.hidden
        self.classes, self.max_objects, self.temperatures = classes, max_objects, temperatures
        self.presence: float | None = None
        self.draws, self.overlaps = 1, statistics.overlaps
        self.candidates = Candidates()
        self.register_buffer("mean", torch.tensor(statistics.mean))
        self.register_buffer("std", torch.tensor(statistics.std).clamp_min(1e-3))
        self.register_buffer("caps", torch.tensor(statistics.class_caps).clamp_min(2))
        self.encoder = encoder
        # Text features come in whatever scale their encoder found useful; attention wants one it can count on.
        self.norm = nn.LayerNorm(sizes.text)
        self.start = nn.Linear(sizes.text, 2 * hidden)
        self.label = nn.Embedding(classes + 1, sizes.label_embedding)  # index C: before the first object
        self.position = nn.Linear(2, sizes.coordinate_embedding)
        self.size = nn.Linear(2, sizes.coordinate_embedding)
        self.query = nn.Linear(hidden + sizes.label_embedding, sizes.text)
        step = sizes.label_embedding + 2 * sizes.coordinate_embedding + sizes.text
        self.cell = nn.LSTMCell(step, hidden)
        self.dropout = nn.Dropout(sizes.dropout)
        self.to_label = nn.Linear(hidden, classes + 1)
        self.word_dropout = sizes.word_dropout
        self.count_head, self.relations, known = None, None, hidden + classes
        if sizes.vocabulary:
            # Of the images, at most this share has the class.
            share = torch.tensor(statistics.class_counts) / max(1, statistics.images)
            self.count_head = CountHead(sizes.vocabulary, sizes.text, share, max_objects, sizes.dropout)
            self.relations = Relations(self.count_head.said)
            known += self.count_head.said + self.relations.channels
        self.to_position = _head(known, hidden, sizes.components)
        if self.relations is not None:
            _spread(self.to_position, sizes.components)
        self.to_size = _head(known + 2, hidden, sizes.components)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of the standard-normal noise of one caption: candidates, objects, numbers an object.

        These are 7 for the object itself; the others together have two for each class of a plan.
        """
        planned = 0 if self.count_head is None else math.ceil(2 * self.classes / self.max_objects)
        return self.candidates.most, self.max_objects, 7 + planned

    def encode(self, words: Tensor, count: Tensor, text: TextFeatures | None = None) -> TextFeatures:
        """What `forward` and `sample` decode: its own encoder's features of int64 [B, T] ids and [B] counts, or else
        `text`, normalised over channels.

        Raises:
            ValueError: it has no encoder and no `text` is given.
        """
        if self.training and self.word_dropout:
            words = hide_words(words, self.word_dropout)
        if self.encoder is not None:
            text = self.encoder(words, count)
        if text is None:
            raise ValueError("this box generator has no text encoder of its own: give it text features")
        columns = self.norm(text.words.transpose(1, 2)).transpose(1, 2)
        normed = TextFeatures(columns, self.norm(text.sentence), text.mask)
        return normed if self.count_head is None else self.count_head(words, normed)

    def standardise(self, boxes: Tensor) -> Tensor:
        """xywh fractions [..., 4] -> standardised (x, y, w, r) [..., 4]."""
        return (xywh_to_cxywr(boxes) - self.mean) / self.std

    def targets(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Labels int64 [B, R + 1], the end after the last object; mask bool [B, R + 1] of the objects and one end."""
        steps = torch.arange(layout.labels.shape[1] + 1, device=layout.labels.device)
        labels = torch.cat([layout.labels, layout.labels[:, :1]], 1)
        ended = steps >= layout.count[:, None]
        return labels.masked_fill(ended, self.classes), steps <= layout.count[:, None]

    def forward(self, text: TextFeatures, layout: Layout) -> BoxOutputs:
        """Teacher forcing on true objects, largest first: the same conditioning as in `sample`."""
        labels, _ = self.targets(layout)
        boxes = self.standardise(layout.boxes) * layout.valid[..., None]
        label, box, state = self._start(text)
        states = []
        for step in range(labels.shape[1]):
            state = self._step(text, label, box, state)
            states.append(state[0])
            label, box = labels[:, step], boxes[:, min(step, boxes.shape[1] - 1)]
        hidden = self.dropout(torch.stack(states, 1))  # [B, R + 1, H]
        chosen = self._one_hot(layout.labels, hidden)
        before = torch.ones(2 * [layout.labels.shape[1]], dtype=torch.bool, device=hidden.device).tril(-1)
        of_objects = torch.cat([hidden[:, :-1], chosen, *self._said(text, chosen, chosen, boxes, before)], -1)
        return BoxOutputs(
            labels=self.to_label(hidden),
            position=self._position(of_objects),
            size=self._mixture(self.to_size, torch.cat([of_objects, boxes[..., :2].to(hidden.dtype)], -1)),
            counts=text.counts if isinstance(text, CaptionFeatures) else None,
        )

    @torch.no_grad()
    def sample(
        self,
        text: TextFeatures,
        noise: Tensor,
        temperatures: Temperatures,
        caps: Tensor,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> Layout:
        """Layouts of B captions, each from its own noise alone.

        noise:  standard normal [B, R, 7 or more]: one number for the label, three each for centre and size, then those
                of the planned numbers (see `noise_shape`)
        caps:   int64 [C], the most objects of each class in one picture, where there is no plan
        bounds: int64 [B, C] twice, the fewest and the most objects of each class (`Statements.bounds`); they go before
                `caps` and before the plan

        With a `CountHead` the layout has the planned number of objects of each class, as far as there is room; the
        decoder chooses their order.

        Boxes are cut at the border; those with a side under 1/256 are dropped; the rest comes largest first. A
        picture may have no object.
        """
        label, box, state = self._start(text)
        alive = torch.ones_like(label, dtype=torch.bool)
        used = torch.zeros(len(label), self.classes, dtype=torch.int64, device=label.device)
        counts = text.counts if isinstance(text, CaptionFeatures) else None
        if counts is not None and bounds is not None:
            counts = likely_or_named(counts, bounds, self.candidates.unnamed)
        plan = None if counts is None else self._plan(counts, noise[..., 7:], temperatures.label)
        low, limits = self._limits(plan, caps.to(label.device), bounds)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        placed: list[tuple[Tensor, Tensor]] = []
        for step in range(self.max_objects):
            state = self._step(text, label, box, state)
            logits = allowed_labels(self.to_label(state[0]), low - used, limits - used, self.max_objects - step)
            if plan is not None:
                unfinished = (used < limits).any(1, keepdim=True)
                logits = logits.masked_fill(functional.pad(unfinished, (self.classes, 0)), -math.inf)
            label = sample_labels(logits, noise[:, step, 0], temperatures.label)
            alive = alive & (label != self.classes)
            known = self._known(state[0], label, text, placed)
            box = self._sample_apart(known, noise[:, step, 1:7], temperatures.mixture, label, placed)
            placed.append((label, box))
            used += functional.one_hot(label, self.classes + 1)[:, :-1] * alive[:, None]
            found.append((label, box, alive))
        labels, boxes, valid = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return sort_layout(labels, self._corners(boxes), valid)

    def _plan(self, counts: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Objects of each class, int64 [B, C]: at temperature 0 as `plan_counts` says, or with a threshold of presence
        the median, where presence is likelier.

        At temperature 1, and without a threshold, the plan is a draw from the head's distribution.
        """
        if not temperature and self.presence is None:
            return plan_counts(counts)
        uniform = torch.special.ndtr(noise.flatten(1)[:, : 2 * self.classes].float()).clamp(1e-6, 1 - 1e-6)
        of_presence, of_number = (temperature * uniform.logit()).unflatten(1, (2, -1)).unbind(1)
        number = (at_least(counts.float()) >= of_number.sigmoid()[..., None]).sum(-1).clamp_min(1)
        threshold = 0.5 if self.presence is None else self.presence
        planned: Tensor = number * (counts[..., 0] > of_presence + math.log(threshold / (1 - threshold)))
        return planned

    def _limits(self, plan: Tensor | None, caps: Tensor, bounds: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Fewest and most objects of each class, int64 [C] or [B, C] each."""
        low, high = torch.zeros_like(caps), torch.full_like(caps, self.max_objects)
        if bounds is not None:
            low, high = (bound.to(caps.device) for bound in bounds)
        if plan is not None:
            return low, plan.clamp(low, high)
        return low, torch.where(high < self.max_objects, high, torch.maximum(caps, low))

    def draw(self, text: TextFeatures) -> SoftLayout:
        """A layout a caption from the model's own distribution (every temperature 1), with torch's global generator.

        Gradients pass through labels (straight through), boxes (by reparameterisation) and the end: what comes after
        it is there as much as each label before it was not the end.
        """
        state_label, box, state = self._start(text)
        label = functional.one_hot(state_label, self.classes + 1).to(self.mean.dtype)
        alive, used = torch.ones_like(label[:, :1]), torch.zeros_like(label[:, :-1])
        found: list[tuple[Tensor, Tensor]] = []
        placed: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.max_objects):
            state = self._step(text, label, box, state)
            full = functional.pad(used >= self.caps, (0, 1))  # the end is never used up
            label = draw_one_hot(self.to_label(state[0]).masked_fill(full, -math.inf))
            classes, alive = label[:, :-1] * alive, alive * (1 - label[:, -1:])
            box = self._sample_box(self._known(state[0], label, text, placed), None, 1.0)
            placed.append((label, box))
            used = used + classes.detach()
            found.append((classes, box))
        drawn, boxes = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return SoftLayout(drawn, self._corners(boxes))

    @torch.no_grad()
    def sample_layout(
        self,
        words: Tensor,
        count: Tensor,
        text: TextFeatures | None,
        noise: Tensor,
        statements: Sequence[Statements] | None = None,
        temperatures: Temperatures | None = None,
    ) -> Layout:
        """Layouts for word ids [B, T] and counts [B], with the caps it was built with.

        text:         needed without an encoder of its own, and ignored with one
        noise:        [B, *noise_shape]
        statements:   of each caption; they are obeyed as `candidates` says
        temperatures: None: those it was built with
        """
        features, temperatures = self.encode(words, count, text), temperatures or self.temperatures
        if statements is None:
            return self.sample(features, noise[:, 0], temperatures, self.caps)
        bounds = self._bounds(statements)
        layout = self.sample(features, noise[:, 0], temperatures, self.caps, bounds)
        broken = [int((~kept(stated, layout[row : row + 1])).sum()) for row, stated in enumerate(statements)]
        if not any(broken) or self.candidates.most == 1:
            return layout
        return self._better(layout, broken, features, noise, statements, bounds)

    def _better(
        self,
        layout: Layout,
        broken: Sequence[int],
        features: TextFeatures,
        noise: Tensor,
        statements: Sequence[Statements],
        bounds: tuple[Tensor, Tensor] | None,
    ) -> Layout:
        """The same layouts, but where facts are broken the best of all candidates: fewest broken, then the likeliest.

        broken: facts of each caption that its layout breaks
        """
        more = self.candidates.most - 1
        rows = torch.tensor(broken, device=noise.device).nonzero()[:, 0]
        repeated = rows.repeat_interleave(more)
        text, noise = features[repeated], noise[rows, 1:].flatten(0, 1)
        bounds = None if bounds is None else (bounds[0][repeated], bounds[1][repeated])
        drawn = self.sample(text, noise, self.candidates.temperatures, self.caps, bounds)
        likely = self._likelihood(text, drawn).repeat(2)
        drawn = drawn.with_mirrored()
        owned = torch.arange(2 * len(repeated), device=rows.device).view(2, len(rows), more)
        for number, row in enumerate(rows.tolist()):
            own = owned[:, number].flatten()
            faults = (~kept(statements[row], drawn[own])).sum(1)
            best, fewest = torch.where(faults == faults.min(), likely[own], -math.inf).argmax(), int(faults.min())
            chosen = drawn[own[best][None]] if fewest < broken[row] else layout[row : row + 1]
            if min(fewest, broken[row]):
                chosen = place(chosen, statements[row])
            layout = layout.put(rows[number : number + 1], chosen)
        return layout

    def _likelihood(self, features: TextFeatures, layout: Layout) -> Tensor:
        """Mean log-likelihood of an object's label, centre and size, float32 [B]."""
        outputs = self(features, layout)
        labels, steps = self.targets(layout)
        boxes = self.standardise(layout.boxes)
        label = (label_nll(outputs.labels, labels) * steps).sum(1)
        coordinates = mixture_nll(outputs.position, boxes[..., :2]) + mixture_nll(outputs.size, boxes[..., 2:])
        total = label + torch.where(layout.valid, coordinates, 0).sum(1)
        return -total / (layout.count + 1)

    def _bounds(self, statements: Sequence[Statements]) -> tuple[Tensor, Tensor] | None:
        """Fewest and most objects of each class, int64 [B, C] each; None: they are not obeyed."""
        if not self.candidates.numbers:
            return None
        low, high = zip(*(stated.bounds(self.classes, self.max_objects) for stated in statements), strict=True)
        return torch.stack(low).to(self.mean.device), torch.stack(high).to(self.mean.device)

    def _start(self, text: TextFeatures) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        batch = len(text.sentence)
        hidden, memory = self.start(text.sentence).chunk(2, 1)
        label = torch.full((batch,), self.classes, dtype=torch.int64, device=text.sentence.device)
        return label, text.sentence.new_zeros(batch, 4, dtype=self.mean.dtype), (hidden.tanh(), memory)

    def _step(
        self, text: TextFeatures, label: Tensor, box: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Previous label, int64 [B] or one-hot [B, C + 1], and standardised box [B, 4] -> the next state (h, c) of
        [B, H] each.
        """
        embedded = label @ self.label.weight if label.is_floating_point() else self.label(label)
        query = self.query(torch.cat([state[0], embedded], 1))  # [B, D]
        scores = torch.einsum("bd,bdt->bt", query, text.words).float() / math.sqrt(query.shape[1])
        weights = scores.masked_fill(~text.mask, -math.inf).softmax(1)
        context = torch.einsum("bt,bdt->bd", weights.to(text.words.dtype), text.words)
        inputs = torch.cat([embedded, self.position(box[:, :2]), self.size(box[:, 2:]), context], 1)
        hidden, memory = self.cell(inputs, state)
        return hidden, memory

    def _known(
        self, hidden: Tensor, label: Tensor, text: TextFeatures, placed: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """What the mixtures of one object are predicted from, [B, .]: state [B, H], label [B] or [B, C + 1], and what
        the caption says of it beside the objects that are placed, labels alike and standardised boxes [B, 4].
        """
        chosen = self._one_hot(label, hidden)
        others = [self._one_hot(other, hidden) for other, _ in placed] or [torch.zeros_like(chosen)]
        boxes = [box for _, box in placed] or [hidden.new_zeros(len(hidden), 4)]
        before = torch.full((1, 1, len(others)), bool(placed), device=hidden.device)
        said = self._said(text, chosen[:, None], torch.stack(others, 1), torch.stack(boxes, 1), before)
        return torch.cat([hidden, chosen, *(part[:, 0] for part in said)], -1)

    def _said(
        self, text: TextFeatures, chosen: Tensor, others: Tensor, boxes: Tensor, before: Tensor
    ) -> tuple[Tensor, ...]:
        """What the caption says of N objects [B, N, P], and relative to the M others [B, N, V]; nothing without a
        `CountHead`.

        chosen, others: one-hot labels [B, N, C] and [B, M, C]; boxes: of the others, standardised [B, M, 4]
        before:         bool [N, M] or [1, N, M], which of the others are placed already
        """
        if self.relations is None or not isinstance(text, CaptionFeatures):
            return ()
        own, theirs = _of_objects(text, chosen), _of_objects(text, others)
        return own.said, self.relations(own, theirs, boxes, before)

    def _sample_box(self, known: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
        """What is known of an object [B, .] (`_known`), noise [B, 6] -> standardised (x, y, w, r) [B, 4] that lie
        within the picture; without noise one that is drawn, with gradients to all parameters (`draw`).
        """
        mixture = self._position(known)
        position = draw_mixture(mixture) if noise is None else sample_mixture(mixture, noise[:, :3], temperature)
        position = self._within(position, slice(0, 2), (0.0, 1.0))
        known = torch.cat([known, position.to(known.dtype)], -1)
        mixture = self._mixture(self.to_size, known)
        size = draw_mixture(mixture) if noise is None else sample_mixture(mixture, noise[:, 3:], temperature)
        width = self._within(size[:, :1], slice(2, 3), (SMALLEST_SIDE, 1.0))
        ratio = self._within(size[:, 1:], slice(3, 4), (SMALLEST_SIDE, 1 / SMALLEST_SIDE))
        return torch.cat([position, width, ratio], 1)

    def _sample_apart(
        self, known: Tensor, noise: Tensor, temperature: float, label: Tensor, placed: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """As `_sample_box`, but boxes that overlap placed ones more than 95 % of the training data's pairs do are drawn
        up to `draws` times in all, wider each time; the best draw is taken.
        """
        box = self._sample_box(known, noise, temperature)
        if not placed or self.draws == 1:
            return box
        labels, others = (torch.stack(parts, 1) for parts in zip(*placed, strict=True))
        limits = torch.where(labels == label[:, None], *self.overlaps)
        counted = (labels != self.classes) & (label != self.classes)[:, None]
        corners = self._corners(others)

        def excess(box: Tensor) -> Tensor:
            beyond = overlap(self._corners(box)[:, None], corners) - limits
            return (beyond.clamp_min(0) * counted).sum(1)

        least = excess(box)
        for draw in range(1, self.draws):
            if not least.any():
                break
            again = self._sample_box(known, turned(noise, draw), max(temperature, draw / self.draws))
            less = excess(again)
            box = torch.where((less < least)[:, None], again, box)
            least = torch.minimum(least, less)
        return box

    def _corners(self, boxes: Tensor) -> Tensor:
        """Standardised boxes [..., 4] -> xywh fractions."""
        return cxywr_to_xywh(boxes * self.std + self.mean)

    def _within(self, values: Tensor, part: slice, limits: tuple[float, float]) -> Tensor:
        mean, std = self.mean[part], self.std[part]
        return ((values * std + mean).clamp(*limits) - mean) / std

    def _one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """int64 [...], or one-hot [..., C + 1] -> [..., C], of `like`'s type; the end is zero everywhere."""
        if labels.is_floating_point():
            return labels[..., :-1].to(like.dtype)
        classes = torch.arange(self.classes, device=labels.device)
        return (labels[..., None] == classes).to(like.dtype)

    def _position(self, known: Tensor) -> Tensor:
        """Mixture [..., K, 6] of the centre; with `Relations` relative to that of the object it is related to."""
        mixture = self._mixture(self.to_position, known)
        if self.relations is None:
            return mixture
        anchor = known[..., -self.relations.channels :][..., None, :2]
        return mixture + functional.pad(anchor, (1, 3))

    def _mixture(self, head: nn.Module, inputs: Tensor) -> Tensor:
        return torch.unflatten(head(inputs), -1, (-1, 6))


def _of_objects(text: CaptionFeatures, chosen: Tensor) -> SaidOfObjects:
    """What the caption says of objects with one-hot labels [B, N, C]."""
    presence = text.counts[..., :1].detach()
    said, onward, presence = (chosen @ part.to(chosen.dtype) for part in (text.said, text.onward, presence))
    return SaidOfObjects(said, onward, presence[..., 0])


def sort_layout(labels: Tensor, boxes: Tensor, kept: Tensor) -> Layout:
    """Labels int64 [B, R], xywh [B, R, 4], kept bool [B, R] -> Layout of the kept boxes with area, largest first."""
    kept = kept & (boxes[..., 2:] >= SMALLEST_SIDE * (1 - 1e-4)).all(-1)
    area = boxes[..., 2:].prod(-1).masked_fill(~kept, -1)
    order = area.argsort(dim=1, descending=True, stable=True)
    kept = kept.gather(1, order)
    return Layout(
        labels=labels.gather(1, order) * kept,
        boxes=boxes.gather(1, order[..., None].expand_as(boxes)) * kept[..., None],
        count=kept.sum(1),
    )


def _head(channels: int, hidden: int, components: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, components * 6))


def _spread(head: nn.Sequential, components: int) -> None:
    """Let a mixture start from means on a circle, with one in its middle: "next to" is left or right, not between."""
    last = head[-1]
    assert isinstance(last, nn.Linear)
    angles = torch.arange(components - 1) * (2 * math.pi / max(1, components - 1))
    with torch.no_grad():
        last.bias.view(components, 6)[:-1, 1:3] = torch.stack([angles.cos(), angles.sin()], 1)
