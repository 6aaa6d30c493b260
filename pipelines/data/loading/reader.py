"""The training reader: memory-mapped shards, a plan of every epoch, and batches that depend only on their number.

A sample is a function of (seed, epoch, image id); the samples of a batch are a function of (seed, step number).
So a run resumes exactly at any step, on any number of workers. No Ray here.
"""

import itertools
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from objgan.attributes import colour_index, scene_index
from objgan.batch import Batch, Part, Sample, collate
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.stated_captions import StatedWords
from pipelines.data.loading.batch_plan import BatchPlan, ShardOrder
from pipelines.data.loading.data_folder import DataFolder, open_data
from pipelines.data.loading.read_ahead import read_ahead
from pipelines.data.shards.format import read_shard
from pipelines.data.shards.index import Index, RowList
from pipelines.data.shards.manifest import MANIFEST, SPLITS
from pipelines.data.shards.masks import decode_masks
from pipelines.data.shards.pixels import decode

Columns = dict[str, pa.Array]
OPEN_SHARDS = 128
"""Most recently used shards that a reader keeps open: its memory does not grow with the number of shards."""


class ShardReader:
    """The samples of one split of prepared data, with the columns that a stage asked for."""

    def __init__(
        self,
        data: DataFolder | Path | str,
        split: str,
        columns: frozenset[str],
        config: Config,
        max_words: int,
        stated_captions: float = 0.0,
    ) -> None:
        """`data`: a prepared folder, its path or its URI. `columns`: of "image", "boxes", "masks", "attributes".

        Of longer captions, `max_words` words are kept, in order.

        Rows without a caption of known words are left out and counted in `left_out`; so are rows with an object
        without a mask, if masks are asked for.

        Raises:
            InputError: not a prepared folder, a column that it lacks, too small pictures, or no row left.
        """
        if split not in SPLITS:
            raise InputError(f"data: no split {split!r}; there are {', '.join(SPLITS)}")
        self._data = folder = data if isinstance(data, DataFolder) else open_data(data, config.compute)
        self._arguments = (folder.location, split, columns, config, max_words, stated_captions)
        folder.check_columns(columns, config)
        self._shards = folder.shards(split)
        self._starts = [0, *itertools.accumulate(shard.rows for shard in self._shards)]
        self._shard = lru_cache(folder.most_open(OPEN_SHARDS))(self._open_shard)
        self._stored_size = int(folder.manifest["settings"]["image_size"])
        index = folder.index(split)
        self._index = folder.read(index, Index)
        if len(self._index) != self._starts[-1]:
            raise InputError(
                f"data: {folder.name(index)} has {len(self._index)} rows, the shards have {self._starts[-1]}; "
                f"prepare the data again"
            )
        self.split, self.columns, self.config, self.max_words = split, columns, config, max_words
        self._stated: StatedWords | None = None
        if stated_captions:
            # A discriminator would take moved objects for real layouts.
            moves = not config.boxes.training.adversarial_weight
            self._stated = StatedWords(Domain.load(folder.domain()), max_words, stated_captions, moves)
        self.flips = bool(columns & {"image", "masks"})
        self.left_out: Counter[str] = Counter()
        self._rows = RowList(self._usable, len(self._index))
        self._count_left_out()
        if not len(self._rows):
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items())
            raise InputError(f"data: split {split} of {folder} has no usable image ({reasons or 'it is empty'})")

    def __len__(self) -> int:
        """Usable rows."""
        return len(self._rows)

    @cached_property
    def shard_order(self) -> ShardOrder:
        """The orders in windows of shards."""
        usable = [np.count_nonzero(self._usable(slice(*bounds))) for bounds in itertools.pairwise(self._starts)]
        return ShardOrder(np.array(usable, np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        # Loader processes open the shards themselves instead of receiving their content.
        return ShardReader, self._arguments

    def sample(self, index: int, seed: int, epoch: int, flip: bool = False) -> Sample:
        """Sample `index` as in this epoch. flip: mirror it with probability 1/2, unless its caption names a side."""
        row = self._rows[index]
        number, mirrored, words = self._draw(row, seed, epoch)
        sample = self._sample(row, words, mirrored and flip and not self._index.is_sided(row, number))
        if self._stated is None:
            return sample
        complete = len(sample.labels) < self.config.data.max_objects
        return self._stated.replace(sample, complete, seed, epoch)

    def image_id(self, index: int) -> int:
        """The image of sample `index`."""
        return self._index.image_id(self._rows[index])

    def caption_count(self, index: int) -> int:
        """Captions of sample `index` that have a known word, at least 1."""
        return self._index.count(self._rows[index])

    def evaluation_sample(self, index: int, seed: int, number: int = 0) -> Sample:
        """Sample `index` with a fixed caption, never mirrored.

        `number` 0: the caption of epoch 0. 1, 2, ...: the next ones, cyclically, so that `caption_count` consecutive
        numbers give all captions.
        """
        row = self._rows[index]
        _, _, words = self._draw(row, seed, 0, number)
        return self._sample(row, words, mirrored=False)

    def text(self, index: int, seed: int, epoch: int = 0, number: int = 0) -> str:
        """The whole caption that `sample`, or in epoch 0 `evaluation_sample`, takes its words from."""
        row = self._rows[index]
        table, at = self._locate(row)
        number, _, _ = self._draw(row, seed, epoch, number)
        return str(table["captions"][at][self._index.place(row, number)].as_py())

    def _draw(self, row: int, seed: int, epoch: int, further: int = 0) -> tuple[int, bool, np.ndarray]:
        """Number of the caption (`further` after the drawn one), whether to mirror, int64 [n] words."""
        generator = np.random.default_rng((seed, epoch, self._index.image_id(row) % 2**64))
        count = self._index.count(row)
        number = (int(generator.integers(count)) + further) % count
        mirrored = bool(generator.integers(2))
        words = self._index.words(row, number)
        if len(words) > self.max_words:
            words = words[np.sort(generator.choice(len(words), self.max_words, replace=False))]
        return number, mirrored, words

    def _sample(self, row: int, words: np.ndarray, mirrored: bool) -> Sample:
        try:
            return self._read(row, words, mirrored)
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError) as error:  # raised by Pillow, pycocotools and Arrow on broken bytes
            raise InputError(
                f"data: image {self._index.image_id(row)} of split {self.split} in {self._data} is damaged "
                f"({' '.join(str(error).split())}); prepare the data again"
            ) from None

    def _read(self, row: int, words: np.ndarray, mirrored: bool) -> Sample:
        table, at = self._locate(row)
        labels, boxes, masks = self._objects(table, at)
        image = decode(table["image"][at].as_py()) if "image" in self.columns else None
        if mirrored:
            boxes = boxes.copy()
            boxes[:, 0] = 1 - boxes[:, 0] - boxes[:, 2]
            masks = None if masks is None else masks[..., ::-1]
            image = None if image is None else image[..., ::-1]
        colours, scene = self._attributes(table, at)
        return Sample(self._index.image_id(row), words, labels, boxes, masks, image, colours, scene)

    def _attributes(self, table: Columns, at: int) -> tuple[np.ndarray | None, int | None]:
        """colours int64 [r] and scene as indices, or None and None."""
        if "attributes" not in self.columns:
            return None, None
        names = table["colours"][at].as_py()
        colours = [colour_index(names[index]) for index in self._kept(table["crowds"][at].as_py())]
        return np.array(colours, np.int64), scene_index(table["scene"][at].as_py())

    def _objects(self, table: Columns, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """labels int64 [r], boxes float32 [r, 4], masks uint8 [r, M, M] or None: without crowds, largest first."""
        kept = self._kept(table["crowds"][at].as_py())
        labels = np.array(table["labels"][at].as_py(), np.int64)[kept]
        boxes = np.array(table["boxes"][at].as_py(), np.float32).reshape(-1, 4)[kept]
        if "masks" not in self.columns:
            return labels, boxes, None
        counts = table["masks"][at].as_py()
        masks = decode_masks([counts[index] for index in kept], self._stored_size, self.config.data.mask_size)
        return labels, boxes, masks

    def _kept(self, crowds: list[bool]) -> list[int]:
        return [index for index, crowd in enumerate(crowds) if not crowd][: self.config.data.max_objects]

    def _usable(self, rows: slice) -> np.ndarray:
        """bool [n]: which rows are not left out."""
        usable = self._index.has_caption(rows)
        if "masks" in self.columns:
            usable &= self._index.has_masks(rows, self.config.data.max_objects)
        return usable

    def _count_left_out(self) -> None:
        """Reads all rows only if any are left out."""
        left = len(self._index) - len(self._rows)
        if left:
            wordless = int(np.count_nonzero(~self._index.has_caption(slice(0, len(self._index)))))
            reasons = {"without a caption of known words": wordless, "with an object without a mask": left - wordless}
            self.left_out.update({reason: number for reason, number in reasons.items() if number})

    def _locate(self, row: int) -> tuple[Columns, int]:
        shard = bisect_right(self._starts, row) - 1
        return self._shard(shard), row - self._starts[shard]

    def _open_shard(self, number: int) -> Columns:
        shard = self._shards[number]
        table = self._data.read(shard, read_shard).combine_chunks()
        if len(table) != shard.rows:
            raise InputError(
                f"shard: {self._data.name(shard)} has {len(table)} rows, {MANIFEST} says {shard.rows}; prepare the "
                f"data again"
            )
        # A table looks up a column by name each time, which takes as long as reading the value.
        return {name: table[name].chunk(0) for name in table.column_names}


def read_parts(reader: ShardReader, order: BatchPlan, step: int) -> list[Part]:
    """This worker's groups of one step's batch."""
    places = order.places(step, len(reader), None if order.window is None else reader.shard_order)
    return [Part(group, _read_batch(reader, order.seed, samples)) for group, samples in places.items()]


def _read_batch(reader: ShardReader, seed: int, places: list[tuple[int, int]]) -> Batch:
    samples = []
    for epoch, index in places:
        time.sleep(0)  # releases the GIL after every sample, if a thread reads ahead of the current step
        samples.append(reader.sample(index, seed, epoch, reader.flips))
    return collate(samples, reader.max_words, reader.config.data.max_objects)


def loader(reader: ShardReader, order: BatchPlan) -> Iterator[list[Part]]:
    """This worker's parts of each of the steps `order.start` to `order.stop` - 1, in pinned memory if there is a GPU.

    `compute.loader_processes` processes make them in advance; 0: a thread of this process.
    """
    compute = reader.config.compute
    pin = compute.device != "cpu" and torch.cuda.is_available()
    if not compute.loader_processes:
        return read_ahead(partial(read_parts, reader, order), range(order.start, order.stop), pin)
    return iter(
        DataLoader(
            _Steps(reader, order),
            batch_size=None,
            num_workers=compute.loader_processes,
            pin_memory=pin,
            # A fork of a process with Ray's and CUDA's threads may hang.
            multiprocessing_context="spawn",
        )
    )


class _Steps(Dataset[list[Part]]):
    """Item i: the parts of step start + i."""

    def __init__(self, reader: ShardReader, order: BatchPlan) -> None:
        self._reader, self._order = reader, order

    def __len__(self) -> int:
        return self._order.stop - self._order.start

    def __getitem__(self, index: int) -> list[Part]:
        return read_parts(self._reader, self._order, self._order.start + index)


def evaluation_batch(reader: ShardReader, number: int, batch_size: int, seed: int, limit: int) -> Batch:
    """Batch `number` of the first `limit` samples, in order, each with one fixed caption, never mirrored.

    Raises:
        IndexError: there is no such batch.
    """
    end = min(limit, len(reader))
    indices = range(number * batch_size, min((number + 1) * batch_size, end))
    if not indices:
        raise IndexError(f"no batch {number} of {batch_size} in {end} samples")
    samples = [reader.evaluation_sample(index, seed) for index in indices]
    return collate(samples, reader.max_words, reader.config.data.max_objects)


def evaluation_batches(reader: ShardReader, batch_size: int, seed: int, limit: int) -> Iterator[Batch]:
    """All evaluation batches; the last one may be smaller."""
    number = -(-min(limit, len(reader)) // batch_size)
    return (evaluation_batch(reader, index, batch_size, seed, limit) for index in range(number))
