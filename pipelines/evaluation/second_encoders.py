"""Text and image encoders of another seed than those that a model was trained with: they judge without flattery."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from objgan.batch import resize_images
from objgan.checkpoint import load_inference, read_config, read_state
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from pipelines.evaluation.synthesis import Prompts


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
