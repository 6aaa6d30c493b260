"""The captions of a split's rows as flat arrays of word ids, so that a draw costs no parsing."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from objgan.vocabulary import UNK, Vocabulary

# Mirroring a picture would make such a caption untrue. A few harmless words match too ("leftover").
SIDED = r"(^| )(left|right)"


class Captions:
    """Rows of captions: [rows] x some captions x some words, without those that have no known word."""

    def __init__(self, columns: Sequence[pa.ChunkedArray], vocabulary: Vocabulary) -> None:
        """`columns`: the `tokens` columns of shards, list<string>, one string a caption."""
        column = pa.chunked_array([chunk for one in columns for chunk in one.chunks], pa.list_(pa.string()))
        rows = len(column)
        row_of = np.repeat(np.arange(rows), pc.list_value_length(column).to_numpy())
        captions = pc.list_flatten(column).combine_chunks()
        words = pc.split_pattern(captions, " ")
        lengths = pc.list_value_length(words).to_numpy(zero_copy_only=False)
        ids = _ids(pc.list_flatten(words), vocabulary)
        caption_of = np.repeat(np.arange(len(captions)), lengths)
        usable = np.bincount(caption_of[ids != UNK], minlength=len(captions)) > 0
        self.unusable = int((~usable).sum())
        self._ids = ids[usable[caption_of]]
        self._starts = np.concatenate([[0], np.cumsum(lengths[usable])])
        self._sided = pc.match_substring_regex(captions, SIDED).to_numpy(zero_copy_only=False)[usable]
        # Place of each usable caption among its row's captions, for whoever wants the text.
        first = np.searchsorted(row_of, np.arange(rows))
        self._place = (np.arange(len(captions)) - first[row_of])[usable]
        self._rows = np.searchsorted(row_of[usable], np.arange(rows + 1))

    def counts(self) -> np.ndarray:
        """int64 [rows]: usable captions of each row."""
        return np.diff(self._rows)

    def count(self, row: int) -> int:
        """Usable captions of one row."""
        return int(self._rows[row + 1] - self._rows[row])

    def words(self, row: int, number: int) -> np.ndarray:
        """int64 [n]: word ids of the row's usable caption `number`."""
        caption = self._rows[row] + number
        return self._ids[self._starts[caption] : self._starts[caption + 1]].astype(np.int64)

    def is_sided(self, row: int, number: int) -> bool:
        """Whether the caption says left or right."""
        return bool(self._sided[self._rows[row] + number])

    def place(self, row: int, number: int) -> int:
        """Where the usable caption stands in the shard's list of the row's captions."""
        return int(self._place[self._rows[row] + number])


def _ids(words: pa.Array, vocabulary: Vocabulary) -> np.ndarray:
    """int32 [n]: UNK for words that the vocabulary lacks."""
    known = pa.array(vocabulary.words[UNK + 1 :], pa.string())
    found = pc.index_in(words, value_set=known)
    return (pc.fill_null(found, UNK - (UNK + 1)).to_numpy(zero_copy_only=False) + UNK + 1).astype(np.int32)
