"""Judges that are trained here: second encoders, and a classifier of objects."""

from pathlib import Path
from typing import Any

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
from objgan.metrics.objects import judge_images, read_judgement, score_verdicts
from objgan.networks.judge import Judge
from pipelines.evaluation.synthesis import Prompts

_PATCH = 2
"""Cells on a side of what has to be of one class and one colour, as for a class alone (`objgan.metrics.objects`)."""


class ObjectJudge:
    """Accuracies, float [B]: NaN where nothing is stated, or no object counts."""

    def __init__(self, folder: Path, model: ObjGAN) -> None:
        """From a checkpoint of stage `judge`.

        Raises:
            InputError: no such checkpoint, or of other classes.
        """
        networks, _ = judge_networks(folder, "judge", model)
        self._judge: Judge = networks["judge"]
        self._smallest = model.config.images.min_object_pixels / 256

    def stated(self, images: Tensor, prompts: Prompts, named: Tensor) -> dict[str, Tensor]:
        """Of images float [B, 3, S, S] in [-1, 1] and the classes named in the captions, bool [B, C].

        found: bool [B, C], the classes seen anywhere
        stated_object_accuracy: share of the named classes that are found
        stated_colour_accuracy: share of the pairs (class, colour) of true objects, whose class and colour both stand in
                                the caption, that are found: somewhere, a patch is of this class and of this colour
        stated_scene_accuracy:  whether the scene is the stated one
        """
        batch = prompts.batch
        seen = self._judge(images)
        verdicts = read_judgement(seen, batch.layout, self._judge.found_threshold, self._smallest)
        named = named.to(images.device)
        found = {
            "found": verdicts.found,
            "stated_object_accuracy": _share(verdicts.found, named),
            "stated_scene_accuracy": self._scenes(verdicts.scenes, prompts),
        }
        if batch.colours is None:
            return found
        pairs = stated_pairs(prompts, named)
        classes = _of_each(seen.classes.softmax(1), batch.layout.labels)
        both = classes * _of_each(seen.colours.softmax(1), batch.colours.clamp_min(0))
        scores = functional.avg_pool2d(both, _PATCH, stride=1).amax((2, 3))
        return found | {"stated_colour_accuracy": _share(scores >= self._judge.found_threshold, pairs)}

    def objects(self, images: Tensor, layout: Layout, prompts: Prompts, named: Tensor) -> dict[str, Tensor]:
        """Shares of the true objects whose class, and whose colour, the judge reads inside their shapes in `layout`;
        whether it reads the true scene. `told_colour_accuracy`: of the objects whose class and colour the caption
        states alone, since nobody can know the others' colours; `named` as in `stated`.
        """
        verdicts = judge_images(self._judge, images, layout, self._smallest)
        right = score_verdicts(verdicts, layout, prompts.batch.colours, prompts.batch.scenes)
        found = {"object_accuracy": right.objects.nanmean(1)}
        if prompts.batch.colours is not None:
            told = _told(prompts, named.to(right.colours.device))
            found["colour_accuracy"] = right.colours.nanmean(1)
            found["told_colour_accuracy"] = right.colours.masked_fill(~told, torch.nan).nanmean(1)
        if prompts.batch.scenes is not None:
            found["scene_accuracy"] = right.scenes
        return found

    def _scenes(self, predicted: Tensor, prompts: Prompts) -> Tensor:
        stated = [stated_scene(tokens) for tokens in prompts.tokens]
        wanted = torch.tensor([-1 if name is None else SCENES.index(name) for name in stated], device=predicted.device)
        return (predicted == wanted).float().masked_fill(wanted < 0, torch.nan)


def stated_pairs(prompts: Prompts, named: Tensor) -> Tensor:
    """bool [B, R]: the true objects whose class (`named`, bool [B, C]) and whose colour the caption states; of objects
    that are alike in both, the first.
    """
    labels, colours, stated = prompts.batch.layout.labels, prompts.batch.colours, _told(prompts, named)
    assert colours is not None
    same = (labels[:, :, None] == labels[:, None]) & (colours[:, :, None] == colours[:, None]) & stated[:, None]
    earlier = torch.ones_like(same).tril(-1)
    return stated & ~(same & earlier).any(2)


def _told(prompts: Prompts, named: Tensor) -> Tensor:
    """bool [B, R]: the true objects whose class (`named`, bool [B, C]) and whose colour stand in the caption."""
    labels, colours = prompts.batch.layout.labels, prompts.batch.colours
    assert colours is not None
    words = torch.zeros(len(prompts), len(COLOURS), dtype=torch.bool)
    for row, tokens in enumerate(prompts.tokens):
        words[row, [COLOURS.index(name) for name in stated_colours(tokens)]] = True
    coloured = words.to(colours.device).gather(1, colours.clamp_min(0)) & (colours >= 0)
    return prompts.batch.layout.valid & coloured & named.gather(1, labels)


def _of_each(shares: Tensor, index: Tensor) -> Tensor:
    """[B, K, G, G], int64 [B, R] -> [B, R, G, G]: the share that each object asks for."""
    return shares.gather(1, index[:, :, None, None].expand(*index.shape, *shares.shape[2:]))


def _share(found: Tensor, asked: Tensor) -> Tensor:
    """[B]: the share of what is asked for that is found, NaN where nothing is."""
    total = asked.sum(1)
    return ((found & asked).sum(1) / total.clamp_min(1)).masked_fill(total == 0, torch.nan)


class SecondEncoders:
    """Vectors of images and of whole captions, both [B, D]."""

    def __init__(self, folder: Path, model: ObjGAN) -> None:
        """From a checkpoint of stage `encoders`.

        Raises:
            InputError: no such checkpoint, of other classes, or the model's own encoders.
        """
        networks, domain = judge_networks(folder, "encoders", model)
        self._vocabulary, self._size = domain.vocabulary, read_config(folder).data.image_size
        self._text, self._image = networks["text_encoder"], networks["image_encoder"]
        if _same(self._image, model.networks["image_encoder"]):
            raise InputError(f"judges: {folder} are the encoders of the model itself, which flatter it: train others")

    def of_images(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] -> float32 [B, D]."""
        vectors: Tensor = self._image(resize_images(images, self._size))[1]
        return vectors.float()

    def of_captions(self, prompts: Prompts) -> Tensor:
        """float32 [B, D]."""
        ids = [torch.from_numpy(self._vocabulary.encode_tokens(words)) for words in prompts.tokens]
        words = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        device = prompts.batch.words.device
        sentence: Tensor = self._text(words.to(device), torch.tensor([len(one) for one in ids], device=device)).sentence
        return sentence.float()


def judge_networks(folder: Path, stage: str, model: ObjGAN) -> tuple[dict[str, Any], Domain]:
    """The frozen networks of a judge's checkpoint on the model's device, and the domain they were trained in.

    Raises:
        InputError: no checkpoint, of another stage, or trained on other classes than the model.
    """
    there = read_state(folder)["stage"]
    if there != stage:
        raise InputError(f"judges: {folder} is of stage {there}, not {stage}")
    domain = Domain.load(folder / "domain")
    if domain.classes != model.domain.classes:
        raise InputError(f"judges: {folder} knows other classes than the model: train judges on the model's data")
    return {name: network.to(model.device) for name, network in load_inference(folder).items()}, domain


def _same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
