"""The stream of JSON objects gives what Python's own parser gives, in chunks of any size."""

import gzip
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objgan.errors import InputError
from objgan.vocabulary import normalise
from pipelines.data.prepare import json_stream
from pipelines.data.prepare.coco_records import caption_row, object_row
from pipelines.data.prepare.json_stream import header, records
from pipelines.data.shards.rejected import Unusable

TEXT = st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(
    ['NaN, "NaN" \\', 'a\\" NaN ]', "-Infinity,é☃", '\\\\"', "NaNny"]
)
NUMBER = st.integers(-(2**53), 2**53) | st.floats()
VALUE = NUMBER | TEXT | st.booleans() | st.none() | st.lists(NUMBER, max_size=3)


@pytest.fixture(autouse=True)
def whole_chunks(monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 18)


def _plain(value):
    """A value as in JSON: no NaN."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.dictionaries(TEXT, VALUE, max_size=4), max_size=4),
    st.sampled_from([1, 2, 3, 7, 1 << 18]),
    st.booleans(),
)
def test_any_objects_come_through(tmp_path_factory, objects, chunk, escaped) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps({"other": [{"x": 1}], "annotations": objects}, ensure_ascii=escaped), encoding="utf-8")
    before, json_stream._CHUNK = json_stream._CHUNK, chunk
    try:
        for _ in range(2):  # the second pass parses the list alone
            assert list(records(path, "instances", "annotations")) == _plain(objects)
    finally:
        json_stream._CHUNK = before


def test_a_byte_order_mark_is_passed_over(tmp_path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"images": [{}]}')
    assert list(records(tmp_path / "a.json", "instances", "images")) == [{}]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"images": [{}', b'{"images": [{"a": "\xff"}]}', b'{"images": [{}]} x', b"\x1f\x8b\x08broken"]
)
def test_broken_json_is_refused_in_one_line(tmp_path, raw) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(InputError, match=r"^instances: .*(is not JSON|broken gzip)") as caught:
        list(records(tmp_path / "a.json", "instances", "images"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 18])
@pytest.mark.parametrize(
    "text", ["1000000000000000000000", "-9223372036854775809", "1" + "0" * 5000, "1e999", "-1.5E+400", "1.25e1000"]
)
def test_numbers_beyond_64_bits_become_texts_and_harm_no_other_record(tmp_path, monkeypatch, chunk, text) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    others = '{"id": 9223372036854775807, "x": 0.12345678901234567890, "y": "1e999, 10000000000000000000"}'
    (tmp_path / "a.json").write_text(f'{{"images": [{others}, {{"id": {text}}}, {others}]}}')
    first, second, third = records(tmp_path / "a.json", "instances", "images")
    assert first == third == json.loads(others) and second == {"id": text}


def test_lists_nested_without_end_are_refused_before_the_parser_builds_them(tmp_path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for inner in (deep, '{"a":' * 100_000 + "1" + "}" * 100_000):
        (tmp_path / "a.json").write_text(f'{{"images": [{{"id": {inner}}}]}}')
        with pytest.raises(InputError, match="nested over 64 levels"):
            list(records(tmp_path / "a.json", "instances", "images"))


@settings(deadline=None)
@given(st.lists(TEXT | st.text('[]{}"\\')), st.sampled_from([1, 2, 3, 7, 1 << 18]))
def test_brackets_in_texts_do_not_nest(tmp_path_factory, texts, chunk) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    expected = [{"text": text * 40} for text in texts]
    path.write_text(json.dumps({"images": expected}))
    before, json_stream._CHUNK = json_stream._CHUNK, chunk
    try:
        assert list(records(path, "instances", "images")) == expected
    finally:
        json_stream._CHUNK = before


def _is_side(value) -> bool:
    try:
        return math.isfinite(float(value if isinstance(value, str) else value + 0.0)) and not isinstance(value, bool)
    except (TypeError, ValueError):
        return False


@settings(deadline=None)
@given(
    st.one_of(VALUE, st.lists(VALUE, max_size=5)), st.one_of(VALUE, st.lists(st.lists(VALUE, max_size=8), max_size=3))
)
def test_any_box_and_segmentation_becomes_a_row_or_says_why_not(box, segmentation) -> None:
    try:
        row = object_row({"id": 1, "image_id": 2, "category_id": 3, "bbox": box, "segmentation": segmentation}, 0)
    except Unusable:
        usable = isinstance(box, list) and len(box) == 4 and all(_is_side(side) for side in box)
        assert not usable
        return
    assert all(isinstance(side, float) and math.isfinite(side) for side in row["box"]) and len(row["box"]) == 4
    assert row["polygons"] is None or row["other"] is None
    assert (segmentation in (None, [])) == (row["polygons"] is None and row["other"] is None)


@settings(deadline=None)
@given(st.one_of(VALUE, st.text()))
def test_any_caption_becomes_a_line_or_says_why_not(text) -> None:
    try:
        row = caption_row({"id": 1, "image_id": 2, "caption": text}, 0)
    except Unusable:
        assert not isinstance(text, str) or not normalise(text)
        return
    assert row["text"] == " ".join(row["text"].split()) and row["text"]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_half_of_a_surrogate_pair_in_a_key_rejects_no_record(tmp_path, monkeypatch, chunk) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    text = r'{"images": [{"a\ud800b": 1}, {"\udc00": {}}, {"\ud83d\ude00": "\\ud800"}, {"id": 2}]}'
    (tmp_path / "a.json").write_text(text)
    found = list(records(tmp_path / "a.json", "instances", "images"))
    assert found == [{"a?b": 1}, {"?": {}}, {"\U0001f600": "\\ud800"}, {"id": 2}]


LISTS = (
    rb'{"x": {"images": [{}]}, "im\u0061ges" : [{"id": 1}], "annotations": [], '
    rb'"a\"b, \"images": [["images: [", {"id": 9}]], "images": [{"id": "]\\"}, {"id": [[2], {"images": []}]}]}'
)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("zipped", [False, True])
def test_later_passes_parse_one_list_alone(tmp_path, monkeypatch, chunk, start, zipped) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path, raw = tmp_path / "a.json", start + LISTS
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    first = list(records(path, "instances", "images"))
    assert first == [{"id": 1}, {"id": "]\\"}, {"id": [[2], {"images": []}]}]
    monkeypatch.setattr(json_stream, "_Counted", None)  # reads the whole file
    assert list(records(path, "instances", "images")) == first
    assert list(records(path, "instances", "annotations")) == []
    with pytest.raises(InputError, match='no list of objects "captions"'):
        list(records(path, "instances", "captions"))


@pytest.mark.parametrize("raw", [b'{"%b": [1], "images": [{}]}' % (b"x" * 300), b'{"images":%b[{}]}' % (b" " * 300)])
def test_a_list_whose_name_is_far_away_is_found_in_the_whole_file(tmp_path, raw) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    assert [list(records(tmp_path / "a.json", "instances", "images")) for _ in range(2)] == [[{}], [{}]]


def test_a_file_that_was_written_again_is_read_again(tmp_path) -> None:
    for number in range(3):
        (tmp_path / "a.json").write_text(json.dumps({"x": [1] * number, "images": [{"id": number}]}))
        assert list(records(tmp_path / "a.json", "instances", "images")) == [{"id": number}]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_header_is_what_comes_before_the_lists(tmp_path, monkeypatch, chunk, zipped) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    info = {"description": '\u00e9 "NaN"', "year": math.nan, "images": [1], "nested": {"categories": [2]}}
    licences = [{"id": 1, "name": "CC"}]
    content = {"": {"info": 1, "images": 2}, "videos": [{"info": 3}], "info": info, "licenses": licences, "images": []}
    raw = json.dumps(content).encode()
    (tmp_path / "a.json").write_bytes(gzip.compress(raw) if zipped else raw)
    assert header(tmp_path / "a.json", "instances") == {"info": {**info, "year": None}, "licenses": licences}


@pytest.mark.parametrize("key", ["images", "annotations", "captions", "categories"])
def test_the_header_ends_at_the_first_list(tmp_path, key) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"licenses": [], key: [{"id": 1}], "info": {"year": 2017}}))
    assert header(path, "instances") == {"licenses": []}
    path.write_text(json.dumps({key: []}))
    assert header(path, "instances") == {}


def test_the_header_does_not_read_the_lists(tmp_path) -> None:
    """What is cut short or no JSON far behind it is `records`' to report."""
    (tmp_path / "a.json").write_text('{"info": {"year": 2017}, "images": [' + '{"id": 1}, ' * 10**6)
    assert header(tmp_path / "a.json", "instances") == {"info": {"year": 2017}}
    with pytest.raises(InputError, match="instances: no file"):
        header(tmp_path / "b.json", "instances")
