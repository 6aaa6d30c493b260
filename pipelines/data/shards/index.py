"""The index of a split: facts that the reader needs of every row, computed once by `prepare` and memory-mapped.

So a reader opens at once for any number of rows: it tokenises nothing and opens a shard only when it is needed.
"""

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from objgan.vocabulary import UNK, Vocabulary
from pipelines.data.shards.format import SCHEMA, read_shard

# Mirroring the image would make such a caption wrong. A few harmless words match too ("leftover").
SIDED = r"(^| )(left|right)"
ANY = ""
"""In other languages it is unknown which captions name a side: none of their images is mirrored."""
ALL_MASKED = 2**31 - 1

_CAPTION = pa.struct([("place", pa.int32()), ("sided", pa.bool_()), ("words", pa.list_(pa.int32()))])
INDEX_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("masked", pa.int32()), ("captions", pa.list_(_CAPTION))], metadata=SCHEMA.metadata
)
"""One row per row of the split, in order. masked: how many of its objects, the largest first and without crowds, have
masks before one that has none; `ALL_MASKED` if all have one. captions: those that have a word of the vocabulary;
place: of the caption in the shard's list; sided: it names left or right; words: ids, `UNK` if unknown."""

Flags = Callable[[slice], np.ndarray]


def build_index(tables: Iterable[pa.Table], vocabulary: Vocabulary) -> pa.Table:
    """The index of a split's shards, of schema `INDEX_SCHEMA`."""
    known = pa.array(vocabulary.words[UNK + 1 :], pa.string())
    sided = SIDED if vocabulary.language == "en" else ANY
    return pa.concat_tables([_index_shard(table, known, sided) for table in tables]).combine_chunks()


def _index_shard(table: pa.Table, known: pa.Array, sided: str) -> pa.Table:
    columns = [table["image_id"], pa.array(_masked(table), pa.int32()), _captions(table["tokens"], known, sided)]
    return pa.table(columns, INDEX_SCHEMA)


def _captions(tokens: pa.ChunkedArray, known: pa.Array, sided: str) -> pa.Array:
    """The column `captions` from a shard's `tokens`, one string per caption, its words joined by spaces.

    sided: regular expression of captions that name left or right
    """
    texts = pc.list_flatten(tokens).combine_chunks()
    row_of = pc.list_parent_indices(tokens).to_numpy()
    words = pc.split_pattern(texts, " ")
    lengths = pc.list_value_length(words).to_numpy(zero_copy_only=False)
    ids = pc.add(pc.fill_null(pc.index_in(pc.list_flatten(words), value_set=known), -1), UNK + 1).to_numpy()
    caption_of = np.repeat(np.arange(len(texts)), lengths)
    usable = np.bincount(caption_of[ids != UNK], minlength=len(texts)) > 0
    places = np.arange(len(texts)) - np.searchsorted(row_of, row_of)
    captions = pa.StructArray.from_arrays(
        [
            pa.array(places[usable], pa.int32()),
            pc.match_substring_regex(texts, sided).filter(pa.array(usable)),
            pa.ListArray.from_arrays(_offsets(lengths[usable]), pa.array(ids[usable[caption_of]], pa.int32())),
        ],
        fields=list(_CAPTION),
    )
    return pa.ListArray.from_arrays(_offsets(np.bincount(row_of[usable], minlength=len(tokens))), captions)


def _offsets(lengths: np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _masked(table: pa.Table) -> list[int]:
    """The column `masked`."""
    masked = []
    for masks, crowds in zip(table["masks"], table["crowds"].to_pylist(), strict=True):
        missing = [not mask.is_valid for mask, crowd in zip(masks, crowds, strict=True) if not crowd]
        masked.append(missing.index(True) if True in missing else ALL_MASKED)
    return masked


class Index:
    """A split's memory-mapped index: rows need no parsing, and unused rows are not read."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: missing, cut short, or of another schema version.
        """
        batch = read_shard(path).to_batches()[0]
        captions = batch["captions"].values
        words = captions.field("words")
        self._image_ids, self._masked = batch["image_id"].to_numpy(), batch["masked"].to_numpy()
        self._rows = batch["captions"].offsets.to_numpy()
        self._places, self._sided = captions.field("place").to_numpy(), captions.field("sided")
        self._starts, self._words = words.offsets.to_numpy(), words.values.to_numpy()

    def __len__(self) -> int:
        return len(self._image_ids)

    def image_id(self, row: int) -> int:
        """The image's id."""
        return int(self._image_ids[row])

    def has_caption(self, rows: slice) -> np.ndarray:
        """bool [n]: which rows have a caption with a known word."""
        starts = self._rows[rows.start : rows.stop + 1]
        return starts[1:] > starts[:-1]

    def has_masks(self, rows: slice, objects: int) -> np.ndarray:
        """bool [n]: in which rows each of the first `objects` objects has a mask."""
        return self._masked[rows] >= objects

    def count(self, row: int) -> int:
        """Usable captions of one row."""
        return int(self._rows[row + 1] - self._rows[row])

    def words(self, row: int, number: int) -> np.ndarray:
        """int64 [n]: word ids of the row's usable caption `number`."""
        caption = self._rows[row] + number
        return self._words[self._starts[caption] : self._starts[caption + 1]].astype(np.int64)

    def is_sided(self, row: int, number: int) -> bool:
        """Whether the caption names left or right."""
        return bool(self._sided[int(self._rows[row]) + number].as_py())

    def place(self, row: int, number: int) -> int:
        """Place of the usable caption in the shard's list of the row's captions."""
        return int(self._places[self._rows[row] + number])


class RowList:
    """The rows that `usable` flags, in order, stored only as their number in every block."""

    BLOCK = 4096

    def __init__(self, usable: Flags, total: int) -> None:
        """`usable`: bool [n] for a slice of the `total` rows; called again for a block that it flags in part."""
        self._usable, self._total = usable, total
        counts = [int(np.count_nonzero(usable(self._block(start)))) for start in range(0, total, self.BLOCK)]
        self._starts = [0, *itertools.accumulate(counts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"no row {index} in {len(self)}")
        number = bisect_right(self._starts, index) - 1
        block, within = self._block(number * self.BLOCK), index - self._starts[number]
        if self._starts[number + 1] - self._starts[number] < block.stop - block.start:
            within = int(np.flatnonzero(self._usable(block))[within])
        return block.start + within

    def _block(self, start: int) -> slice:
        return slice(start, min(start + self.BLOCK, self._total))
