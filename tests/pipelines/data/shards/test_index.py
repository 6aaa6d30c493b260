"""The index that `prepare` writes of every row, and how the reader uses it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objgan.errors import InputError
from objgan.vocabulary import SPECIAL, UNK, Vocabulary
from pipelines.data.shards.format import SCHEMA, write_shard
from pipelines.data.shards.index import ALL_MASKED, INDEX_SCHEMA, Index, RowList, build_index

WORDS = (*SPECIAL, "a", "kite", "left", "dog")
KNOWN = st.sampled_from(["a", "kite", "left", "right", "leftover", "dog", "xyzzy", "bright"])
CAPTION = st.lists(KNOWN, max_size=5).map(" ".join)


def _vocabulary() -> Vocabulary:
    return Vocabulary(WORDS, np.zeros((len(WORDS), 4), np.float32))


def _table(rows) -> pa.Table:
    empty = {field.name: [] if pa.types.is_list(field.type) else None for field in SCHEMA}
    return pa.Table.from_pylist(
        [{**empty, "image_id": number, **row} for number, row in enumerate(rows)], schema=SCHEMA
    )


def _index(folder, *tables) -> Index:
    write_shard(folder, "_index-train.arrow", "train", build_index(tables, _vocabulary()), INDEX_SCHEMA)
    return Index(folder / "_index-train.arrow")


def test_captions_are_ids_with_their_places_and_sides(tmp_path) -> None:
    first = _table([{"image_id": -5, "tokens": ["xyzzy", "a dog", "a kite to the left"]}, {"tokens": []}])
    second = _table([{"image_id": 2**60, "tokens": ["", "dog right xyzzy"]}, {"tokens": ["xyzzy"]}])
    index = _index(tmp_path, first, second)
    assert len(index) == 4 and [index.count(row) for row in range(4)] == [2, 0, 1, 0]
    assert [index.image_id(row) for row in (0, 2)] == [-5, 2**60]
    assert index.words(0, 0).tolist() == [2, 5] and index.words(0, 0).dtype == np.int64
    assert index.words(0, 1).tolist() == [2, 3, UNK, UNK, 4] and index.words(2, 0).tolist() == [5, UNK, UNK]
    assert [index.place(0, 0), index.place(0, 1), index.place(2, 0)] == [1, 2, 1]
    assert [index.is_sided(0, 0), index.is_sided(0, 1), index.is_sided(2, 0)] == [False, True, True]
    assert index.has_caption(slice(0, 4)).tolist() == [True, False, True, False]
    assert index.has_caption(slice(1, 3)).tolist() == [False, True]


def test_masks_are_counted_up_to_the_first_object_without_one(tmp_path) -> None:
    rows = [
        {"masks": ["04", "04"], "crowds": [False, False]},
        {"masks": [None, "04", None], "crowds": [True, False, False]},
        {"masks": ["04", None], "crowds": [False, True]},
        {"masks": [None], "crowds": [False]},
        {},
    ]
    index = _index(tmp_path, _table(rows))
    written = build_index([_table(rows)], _vocabulary())
    assert written["masked"].to_pylist() == [ALL_MASKED, 1, ALL_MASKED, 0, ALL_MASKED]
    assert index.has_masks(slice(0, 5), 1).tolist() == [True, True, True, False, True]
    assert index.has_masks(slice(0, 5), 2).tolist() == [True, False, True, False, True]


@given(st.lists(st.lists(CAPTION, max_size=4), min_size=1, max_size=8), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_any_captions_are_kept_as_the_vocabulary_encodes_them(tmp_path_factory, rows, parts) -> None:
    vocabulary = _vocabulary()
    tables = [_table([{"tokens": row} for row in rows[part::parts]]) for part in range(parts)]
    tables = [table for table in tables if len(table)]
    index = _index(tmp_path_factory.mktemp("index"), *tables)
    for row, texts in enumerate(row for part in range(parts) for row in rows[part::parts]):
        kept = [at for at, text in enumerate(texts) if (vocabulary.encode_tokens(text.split()) != UNK).any()]
        assert [index.place(row, number) for number in range(index.count(row))] == kept
        for number, at in enumerate(kept):
            assert index.words(row, number).tolist() == vocabulary.encode_tokens(texts[at].split()).tolist()
            sided = any(word.startswith(("left", "right")) for word in texts[at].split())
            assert index.is_sided(row, number) is sided


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_row_lists_are_the_flagged_rows(flags, block) -> None:
    class Small(RowList):
        BLOCK = block

    given_flags = np.array(flags, bool)
    rows = Small(lambda part: given_flags[part], len(flags))
    assert [rows[index] for index in range(len(rows))] == np.flatnonzero(given_flags).tolist()
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_a_broken_index_is_named(tmp_path) -> None:
    _index(tmp_path, _table([{"tokens": ["a dog"]}]))
    whole = (tmp_path / "_index-train.arrow").read_bytes()
    (tmp_path / "_index-train.arrow").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cannot read .*_index-train\.arrow"):
        Index(tmp_path / "_index-train.arrow")
