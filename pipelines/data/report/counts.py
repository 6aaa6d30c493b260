"""Counts of `inspect`: sums and histograms, to which shards are added one by one. Rows are not kept."""

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
"""Bins of an object's share of its image: below 0.01 %, then four for each power of ten."""
SIZES = ("small", "medium", "large")
# COCO's size classes, in pixels of the original.
_SMALL, _LARGE = 32**2, 96**2


@dataclass(frozen=True)
class Sample:
    """One image of the contact sheet.

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
    """Counts of one split. masks: of objects that are not crowds.

    words, unknown: words of all captions, and those that the vocabulary lacks
    fully_known:    captions without an unknown word
    """

    images: int = 0
    captions: int = 0
    objects: int = 0
    masks: int = 0
    crowds: int = 0
    words: int = 0
    unknown: int = 0
    fully_known: int = 0


@dataclass
class Survey:
    """Counts of all shards. Crowds do not count as objects, as in training.

    words_known:     the vocabulary, `<pad>` and `<unk>` first
    objects, words:  images with 0, 1, ... objects; captions of 0, 1, ... words; the last bin is "or more"
    areas:           objects by their share of the image, bins `AREA_EDGES`
    sizes:           objects that COCO calls small, medium, large
    places:          [CELLS, CELLS], objects by the position of their centre, top row first
    class_objects, class_images: [C]; together: [C, C], images that contain both classes
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
    samples: list[Sample] = field(default_factory=list)

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
        """Counts of all splits."""
        names = vars(SplitCounts())
        return SplitCounts(**{name: sum(getattr(split, name) for split in self.splits.values()) for name in names})


def add_shard(table: pa.Table, survey: Survey, split: SplitCounts) -> None:
    """Count the rows of a shard.

    Raises:
        ValueError, IndexError, pa.ArrowException: lists of different lengths, unknown labels, nulls.
    """
    row_of = pc.list_parent_indices(table["crowds"]).to_numpy()
    crowds = pc.list_flatten(table["crowds"]).to_numpy().astype(bool)
    split.images += len(table)
    split.crowds += int(crowds.sum())
    split.objects += int((~crowds).sum())
    masks = pc.is_valid(pc.list_flatten(table["masks"])).to_numpy().astype(bool)
    split.masks += int((masks & ~crowds).sum())
    _add_objects(table, survey, row_of[~crowds], ~crowds)
    _add_words(table, survey, split)


def _add_objects(table: pa.Table, survey: Survey, row_of: np.ndarray, kept: np.ndarray) -> None:
    """row_of: [n], rows of the objects that are not crowds; kept: which of all objects these are."""
    survey.objects += _capped(np.bincount(row_of, minlength=len(table)), MOST_OBJECTS)
    labels = pc.list_flatten(table["labels"]).to_numpy()[kept]
    survey.class_objects += np.bincount(labels, minlength=len(survey.classes))
    present = np.zeros((len(table), len(survey.classes)), np.float32)
    present[row_of, labels] = 1
    survey.class_images += present.sum(0).astype(np.int64)
    survey.together += (present.T @ present).astype(np.int64)  # counts of one shard are exact in float32
    areas = pc.list_flatten(table["areas"]).to_numpy()[kept].astype(np.float64)
    survey.areas += np.histogram(np.clip(areas, 0, 1), AREA_EDGES)[0]
    sides = [pc.fill_null(table[name], 0).to_numpy().astype(np.float64) for name in ("width", "height")]
    pixels = areas * (sides[0] * sides[1])[row_of]
    small, large = int((pixels < _SMALL).sum()), int((pixels >= _LARGE).sum())
    survey.sizes.update(small=small, medium=len(pixels) - small - large, large=large)
    boxes = pc.list_flatten(table["boxes"]).to_numpy().reshape(-1, 4)[kept]
    centres = np.clip(((boxes[:, :2] + boxes[:, 2:] / 2) * CELLS).astype(int), 0, CELLS - 1)
    np.add.at(survey.places, (centres[:, 1], centres[:, 0]), 1)


def _add_words(table: pa.Table, survey: Survey, split: SplitCounts) -> None:
    captions = pc.list_flatten(table["tokens"])
    filled = captions.filter(pc.not_equal(captions, ""))
    words = pc.split_pattern(filled, " ")
    lengths = pc.list_value_length(words).to_numpy()
    survey.words += _capped(lengths, MOST_WORDS)
    survey.words[0] += len(captions) - len(filled)
    known = pa.array(survey.words_known[UNK + 1 :], pa.string())
    ids = pc.fill_null(pc.index_in(pc.list_flatten(words), value_set=known), -1).to_numpy() + UNK + 1
    unknown = ids == UNK
    split.captions += len(captions)
    split.words += len(ids)
    split.unknown += int(unknown.sum())
    split.fully_known += len(filled) - len(np.unique(np.repeat(np.arange(len(filled)), lengths)[unknown]))
    survey.vocabulary += np.bincount(ids[~unknown], minlength=len(survey.words_known))


def _capped(values: np.ndarray, most: int) -> np.ndarray:
    """int64 [most + 1]: how often each value occurs, larger ones as `most`."""
    return np.bincount(np.minimum(values, most).astype(np.int64), minlength=most + 1)
