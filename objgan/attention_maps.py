"""Pictures of attention: an image, darkened where a word does not look."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor
from torch.nn import functional

from objgan import drawing

_SIDE = 160


def word_attention_maps(image: Tensor, maps: Tensor, words: Sequence[str], count: int) -> list[Image.Image]:
    """The `count` words that look most sharply, in their order, each below the image as it sees it.

    image [3, S, S] in [-1, 1]; maps [T, h, w], attention of the T words, of which the first len(words) are real
    """
    real = maps[: len(words)].float()
    sharpest = real.flatten(1).amax(1).topk(min(count, len(words))).indices.sort().values
    panels = []
    for word in sharpest.tolist():
        shares = real[word][None, None]
        light = functional.interpolate(shares / shares.amax().clamp_min(1e-9), size=image.shape[-2:], mode="bilinear")[
            0
        ]
        # Brightness, not colour: black where the word does not look.
        panel = drawing.enlarge(drawing.to_image((image + 1) * light - 1), _SIDE)
        panels.append(_below(panel, drawing.caption_strip(words[word], _SIDE)))
    return panels


def _below(picture: Image.Image, strip: Image.Image) -> Image.Image:
    both = Image.new("RGB", (picture.width, picture.height + strip.height), "white")
    both.paste(picture, (0, 0))
    both.paste(strip, (0, picture.height))
    return both
