"""Prepared data in folds by hash of the image id, whatever split an image was prepared for."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from objgan.batch import Sample, collate
from objgan.layout import Layout
from pipelines.data.loading.reader import ShardReader
from pipelines.data.shards.manifest import SPLITS
from pipelines.training.job import OpenRun, TrainJob

FOLDS = 5
_VALIDATION_SHARE = 8
"""One in so many of the images outside the fold picks the checkpoint."""


class SubsetReader(ShardReader):
    """Some samples of several readers, as one reader; it lives in one process."""

    def __init__(self, readers: Sequence[ShardReader], places: Sequence[tuple[int, int]]) -> None:
        """`places`: (number of the reader, index in it) of each sample."""
        self._readers, self._places = list(readers), list(places)
        self.config, self.max_words, self.flips = readers[0].config, readers[0].max_words, readers[0].flips

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, index: int, seed: int, epoch: int, flip: bool = False) -> Sample:
        """As the reader that has it gives it."""
        reader, at = self._places[index]
        return self._readers[reader].sample(at, seed, epoch, flip)

    def evaluation_sample(self, index: int, seed: int, number: int = 0) -> Sample:
        """As the reader that has it gives it."""
        reader, at = self._places[index]
        return self._readers[reader].evaluation_sample(at, seed, number)


class FoldRun(OpenRun):
    """Training without the images of `fold`; "test" is the fold, "validation" a part of the rest.

    The vocabulary and layout statistics stay those of the prepared training split: for stages that use neither.
    """

    def __init__(self, job: TrainJob, fold: int) -> None:
        super().__init__(job)
        self.fold = fold

    def reader(self, split: str) -> ShardReader:
        """The samples of a split of this fold."""
        readers = [super(FoldRun, self).reader(name) for name in SPLITS]
        every = ((number, index) for number, reader in enumerate(readers) for index in range(len(reader)))
        kept = [at for at in every if split_of(readers[at[0]].sample(at[1], 0, 0).image_id, self.fold) == split]
        return SubsetReader(readers, kept)


def split_of(image_id: int, fold: int) -> str:
    """The split of an image in a fold."""
    draw = int.from_bytes(hashlib.sha256(str(image_id).encode()).digest())
    if draw % FOLDS == fold:
        return "test"
    return "validation" if draw // FOLDS % _VALIDATION_SHARE == 0 else "train"


def whole_layout(reader: ShardReader, seed: int = 0) -> tuple[Tensor, Layout]:
    """All samples of a reader, not mirrored: image ids int64 [N] and layouts."""
    samples = [reader.sample(index, seed, 0) for index in range(len(reader))]
    batch = collate(samples, reader.max_words, reader.config.data.max_objects)
    return torch.clone(batch.image_ids), batch.layout
