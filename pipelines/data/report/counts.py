"""What `inspect` counts: sums and histograms, to which one shard after the other is added, and never the rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from objgan.vocabulary import UNK

MOST_OBJECTS, MOST_WORDS, CELLS = 40, 40, 24
AREA_EDGES = np.concatenate([[0.0], np.logspace(-4, 0, 17)])
"""Bins of an object's share of its picture: under a ten-thousandth, then four to each power of ten."""
SIZES = ("small", "medium", "large")
# COCO's own classes of size, by the original's pixels.
_SMALL, _LARGE = 32**2, 96**2


@dataclass(frozen=True)
class Shown:
    """One image for the sheet of samples.

    width, height: of the original, pixels; image: JPEG, a square; boxes: xywh fractions [r, 4]; masks: run lengths at
    the stored size
    """

    file_name: str
    image_id: int
    width: int
    height: int
    split: str
    image: bytes | None
    captions: list[str]
    labels: list[int]
    boxes: np.ndarray
    crowds: list[bool]
    masks: list[str | None]


@dataclass
class SplitCounts:
    """Of one split. masks: of objects that are no crowds.

    words, unknown: running words of captions, and those that the vocabulary lacks; told: captions without such a word
    """

    images: int = 0
    captions: int = 0
    objects: int = 0
    masks: int = 0
    crowds: int = 0
    words: int = 0
    unknown: int = 0
    told: int = 0


@dataclass
class Survey:
    """What was counted. Crowds are no objects here, as in training.

    words_known:     the vocabulary, `<pad>` and `<unk>` first
    objects, words:  images with 0, 1, ... objects; captions of 0, 1, ... words; the last bin is "or more"
    areas:           objects by their share of the picture, bins `AREA_EDGES`
    sizes:           objects that COCO calls small, medium, large
    places:          [CELLS, CELLS], objects by the place of their centre, rows from above
    class_objects, class_images: [C]; together: [C, C], images in which both classes are
    vocabulary:      [N], occurrences of each word
    """

    where: str
    manifest: Mapping[str, Any]
    words_known: tuple[str, ...]
    splits: dict[str, SplitCounts]
    objects: np.ndarray = field(default_factory=lambda: np.zeros(MOST_OBJECTS + 1, np.int64))
    words: np.ndarray = field(default_factory=lambda: np.zeros(MOST_WORDS + 1, np.int64))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(len(AREA_EDGES) - 1, np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS), np.int64))
    sizes: Counter[str] = field(default_factory=Counter)
    class_objects: np.ndarray = field(init=False)
    class_images: np.ndarray = field(init=False)
    together: np.ndarray = field(init=False)
    vocabulary: np.ndarray = field(init=False)
    samples: list[Shown] = field(default_factory=list)

    def __post_init__(self) -> None:
        number = len(self.classes)
        self.class_objects, self.class_images = np.zeros(number, np.int64), np.zeros(number, np.int64)
        self.together = np.zeros((number, number), np.int64)
        self.vocabulary = np.zeros(len(self.words_known), np.int64)

    @property
    def classes(self) -> list[str]:
        """Names, by label."""
        return list(self.manifest["classes"])

    @property
    def total(self) -> SplitCounts:
        """All splits together."""
        names = vars(SplitCounts())
        return SplitCounts(**{name: sum(getattr(one, name) for one in self.splits.values()) for name in names})


def add_shard(table: pa.Table, found: Survey, split: SplitCounts) -> None:
    """Count the rows of a shard.

    Raises:
        ValueError, IndexError, pa.ArrowException: lists of other lengths, labels that there are not, nulls.
    """
    row_of = pc.list_parent_indices(table["crowds"]).to_numpy()
    crowds = pc.list_flatten(table["crowds"]).to_numpy().astype(bool)
    split.images += len(table)
    split.crowds += int(crowds.sum())
    split.objects += int((~crowds).sum())
    masks = pc.is_valid(pc.list_flatten(table["masks"])).to_numpy().astype(bool)
    split.masks += int((masks & ~crowds).sum())
    _add_objects(table, found, row_of[~crowds], ~crowds)
    _add_words(table, found, split)


def _add_objects(table: pa.Table, found: Survey, row_of: np.ndarray, kept: np.ndarray) -> None:
    """row_of: [n], rows of the objects that are no crowds; kept: which those are among all."""
    found.objects += _capped(np.bincount(row_of, minlength=len(table)), MOST_OBJECTS)
    labels = pc.list_flatten(table["labels"]).to_numpy()[kept]
    found.class_objects += np.bincount(labels, minlength=len(found.classes))
    present = np.zeros((len(table), len(found.classes)), np.float32)
    present[row_of, labels] = 1
    found.class_images += present.sum(0).astype(np.int64)
    found.together += (present.T @ present).astype(np.int64)  # a shard's counts are whole numbers in float32, too
    areas = pc.list_flatten(table["areas"]).to_numpy()[kept].astype(np.float64)
    found.areas += np.histogram(np.clip(areas, 0, 1), AREA_EDGES)[0]
    sides = [pc.fill_null(table[name], 0).to_numpy().astype(np.float64) for name in ("width", "height")]
    pixels = areas * (sides[0] * sides[1])[row_of]
    small, large = int((pixels < _SMALL).sum()), int((pixels >= _LARGE).sum())
    found.sizes.update(small=small, medium=len(pixels) - small - large, large=large)
    boxes = pc.list_flatten(table["boxes"]).to_numpy().reshape(-1, 4)[kept]
    centres = np.clip(((boxes[:, :2] + boxes[:, 2:] / 2) * CELLS).astype(int), 0, CELLS - 1)
    np.add.at(found.places, (centres[:, 1], centres[:, 0]), 1)


def _add_words(table: pa.Table, found: Survey, split: SplitCounts) -> None:
    texts = pc.list_flatten(table["tokens"])
    said = texts.filter(pc.not_equal(texts, ""))
    words = pc.split_pattern(said, " ")
    lengths = pc.list_value_length(words).to_numpy()
    found.words += _capped(lengths, MOST_WORDS)
    found.words[0] += len(texts) - len(said)
    known = pa.array(found.words_known[UNK + 1 :], pa.string())
    ids = pc.fill_null(pc.index_in(pc.list_flatten(words), value_set=known), -1).to_numpy() + UNK + 1
    unknown = ids == UNK
    split.captions += len(texts)
    split.words += len(ids)
    split.unknown += int(unknown.sum())
    split.told += len(said) - len(np.unique(np.repeat(np.arange(len(said)), lengths)[unknown]))
    found.vocabulary += np.bincount(ids[~unknown], minlength=len(found.words_known))


def _capped(values: np.ndarray, most: int) -> np.ndarray:
    """int64 [most + 1]: how often each value occurs, larger ones as `most`."""
    return np.bincount(np.minimum(values, most).astype(np.int64), minlength=most + 1)
