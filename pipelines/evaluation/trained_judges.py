"""The judges that the command `judges` trains: second encoders and a classifier of objects."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.attributes import COLOURS, SCENES, stated_colours, stated_scene
from objgan.batch import resize_images
from objgan.checkpoint import load_inference, read_config, read_state
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.layout import Layout
from objgan.metrics.objects import Verdicts, read_judgement, score_verdicts
from objgan.networks.judge import Judge
from pipelines.evaluation.synthesis import Prompts, scaled

_PATCH = 2
"""Side in cells of the patch that must be of one class and one colour; `objgan.metrics.objects` has the same."""


class ObjectJudge:
    """Accuracies, float [B]: NaN where the caption states nothing, or no object counts."""

    def __init__(self, folder: Path, model: ObjGAN) -> None:
        """From a checkpoint of stage `judge`.

        Raises:
            InputError: no such checkpoint, or one of other classes.
        """
        networks, _ = judge_networks(folder, "judge", model)
        self._judge: Judge = networks["judge"]
        self._classes = model.domain.classes
        self._smallest = model.config.images.min_object_pixels / 256

    def measure(
        self, images: Tensor, prompts: Prompts, named: Tensor, layout: Layout | None = None
    ) -> dict[str, Tensor]:
        """Metrics of images float [B, 3, S, S] in [-1, 1], with the classes that the captions name, bool [B, C].

        found:                  bool [B, C], the classes that the judge sees anywhere
        stated_object_accuracy: share of the named classes that are found
        stated_colour_accuracy: share of the true objects' pairs (class, colour), both stated in the caption, for which
                                a patch of this class and this colour is anywhere in the image
        stated_scene_accuracy:  whether the judge sees the stated scene

        With a layout of the true boxes, from which the images were made:
        object_accuracy, colour_accuracy: shares of the true objects whose class or colour the judge sees inside their
                                          shapes in `layout`
        told_colour_accuracy:             the same for only those objects whose class and colour the caption states
        scene_accuracy:                   whether the judge sees the true scene
        """
        batch, named, threshold = prompts.batch, named.to(images.device), self._judge.found_threshold
        logits = self._judge(images)
        verdicts = read_judgement(logits, batch.layout if layout is None else layout, threshold, self._smallest)
        metrics = {
            "found": verdicts.found,
            "stated_object_accuracy": _share(verdicts.found, named),
            "stated_scene_accuracy": self._scenes(verdicts.scenes, prompts),
        }
        if batch.colours is not None:
            classes = _of_each(logits.classes.softmax(1), batch.layout.labels)
            both = classes * _of_each(logits.colours.softmax(1), batch.colours.clamp_min(0))
            scores = functional.avg_pool2d(both, _PATCH, stride=1).amax((2, 3))
            metrics["stated_colour_accuracy"] = _share(scores >= threshold, stated_pairs(prompts, named))
        return metrics if layout is None else metrics | self._objects(verdicts, layout, prompts, named)

    @torch.no_grad()
    def describe(self, image: np.ndarray, layout: Layout) -> str:
        """What the judge sees in an image, uint8 [S, S, 3]: "2 x red kite, white boat; sea". Objects inside the shapes
        of the layout of one picture, on the judge's device; too small or mostly hidden ones are left out.
        """
        pixels = scaled(torch.from_numpy(image).permute(2, 0, 1)[None]).to(layout.boxes.device)
        verdicts = read_judgement(self._judge(pixels), layout, self._judge.found_threshold, self._smallest)
        pairs = zip(verdicts.objects[0].tolist(), verdicts.colours[0].tolist(), strict=True)
        seen = Counter(self._name(label, colour) for label, colour in pairs if label >= 0)
        objects = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in seen.items())
        return "; ".join(filter(None, (objects, SCENES[int(verdicts.scenes[0])])))

    def _name(self, label: int, colour: int) -> str:
        return "nothing" if label == len(self._classes) else f"{COLOURS[colour]} {self._classes[label]}"

    def _objects(self, verdicts: Verdicts, layout: Layout, prompts: Prompts, named: Tensor) -> dict[str, Tensor]:
        right = score_verdicts(verdicts, layout, prompts.batch.colours, prompts.batch.scenes)
        metrics = {"object_accuracy": right.objects.nanmean(1)}
        if prompts.batch.colours is not None:
            metrics["colour_accuracy"] = right.colours.nanmean(1)
            stated = _stated_objects(prompts, named)
            metrics["told_colour_accuracy"] = right.colours.masked_fill(~stated, torch.nan).nanmean(1)
        if prompts.batch.scenes is not None:
            metrics["scene_accuracy"] = right.scenes
        return metrics

    def _scenes(self, predicted: Tensor, prompts: Prompts) -> Tensor:
        stated = [stated_scene(tokens) for tokens in prompts.tokens]
        wanted = torch.tensor([-1 if name is None else SCENES.index(name) for name in stated], device=predicted.device)
        return (predicted == wanted).float().masked_fill(wanted < 0, torch.nan)


def stated_pairs(prompts: Prompts, named: Tensor) -> Tensor:
    """bool [B, R]: the true objects whose class (`named`, bool [B, C]) and colour the caption states; of several with
    the same class and colour, the first.
    """
    labels, colours, stated = prompts.batch.layout.labels, prompts.batch.colours, _stated_objects(prompts, named)
    assert colours is not None
    same = (labels[:, :, None] == labels[:, None]) & (colours[:, :, None] == colours[:, None]) & stated[:, None]
    earlier = torch.ones_like(same).tril(-1)
    return stated & ~(same & earlier).any(2)


def _stated_objects(prompts: Prompts, named: Tensor) -> Tensor:
    """bool [B, R]: the true objects whose class (`named`, bool [B, C]) and colour the caption states."""
    labels, colours = prompts.batch.layout.labels, prompts.batch.colours
    assert colours is not None
    words = torch.zeros(len(prompts), len(COLOURS), dtype=torch.bool)
    for row, tokens in enumerate(prompts.tokens):
        words[row, [COLOURS.index(name) for name in stated_colours(tokens)]] = True
    coloured = words.to(colours.device).gather(1, colours.clamp_min(0)) & (colours >= 0)
    return prompts.batch.layout.valid & coloured & named.gather(1, labels)


def _of_each(shares: Tensor, index: Tensor) -> Tensor:
    """[B, K, G, G], int64 [B, R] -> [B, R, G, G]: the channel of each object's index."""
    return shares.gather(1, index[:, :, None, None].expand(*index.shape, *shares.shape[2:]))


def _share(found: Tensor, required: Tensor) -> Tensor:
    """[B]: the share of the required entries that are found, NaN where none is required."""
    total = required.sum(1)
    return ((found & required).sum(1) / total.clamp_min(1)).masked_fill(total == 0, torch.nan)


class SecondEncoders:
    """Vectors of images and of whole captions, both [B, D]."""

    def __init__(self, folder: Path, model: ObjGAN) -> None:
        """From a checkpoint of stage `encoders`.

        Raises:
            InputError: no such checkpoint, one of other classes, or the model's own encoders.
        """
        networks, domain = judge_networks(folder, "encoders", model)
        self._vocabulary, self._size = domain.vocabulary, read_config(folder).data.image_size
        self._text, self._image = networks["text_encoder"], networks["image_encoder"]
        if _same(self._image, model.networks["image_encoder"]):
            raise InputError(f"judges: {folder} are the encoders of the model itself: train others with judges")

    def of_images(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] -> float32 [B, D]."""
        vectors: Tensor = self._image(resize_images(images, self._size))[1]
        return vectors.float()

    def of_captions(self, prompts: Prompts) -> Tensor:
        """float32 [B, D]."""
        ids = [torch.from_numpy(self._vocabulary.encode_tokens(words)) for words in prompts.tokens]
        words = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        device = prompts.batch.words.device
        counts = torch.tensor([len(row) for row in ids], device=device)
        sentence: Tensor = self._text(words.to(device), counts).sentence
        return sentence.float()


def judge_networks(folder: Path, stage: str, model: ObjGAN) -> tuple[dict[str, Any], Domain]:
    """The frozen networks of a judge's checkpoint on the model's device, and the domain they were trained in.

    Raises:
        InputError: no checkpoint, one of another stage, or trained on other classes than the model.
    """
    actual = read_state(folder)["stage"]
    if actual != stage:
        raise InputError(f"judges: {folder} is of stage {actual}, not {stage}")
    domain = Domain.load(folder / "domain")
    if domain.classes != model.domain.classes:
        raise InputError(f"judges: {folder} has other classes than the model: train judges on the model's data")
    return {name: network.to(model.device) for name, network in load_inference(folder).items()}, domain


def _same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
