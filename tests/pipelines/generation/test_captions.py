"""Files of captions: formats, parts, damaged and foreign files."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from objgan.errors import InputError
from pipelines.generation import captions
from pipelines.generation.captions import CaptionFiles, Plan, Record
from pipelines.storage.storage import Storage

DEFAULT = dict.fromkeys(("caption", "layout", "id"))
TEXTS = ["a kite", 'two kites, "red"\nand a boat', "ein Drachen über dem Meer", "a \0 kite", "x" * 3000]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(row["caption"].replace("\n", " ") + "\n" for row in rows))
    return path


def read(files: CaptionFiles, plan: Plan) -> list[Record]:
    return [record for part in plan.parts for record in files.read(part)]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".txt", ".jsonl"])
def test_every_format_gives_every_row_once_whatever_the_size_of_parts(tmp_path: Path, ending: str) -> None:
    rows = [{"n": number, "caption": text} for number, text in enumerate(TEXTS)]
    files = CaptionFiles(write(tmp_path / f"captions{ending}", rows), DEFAULT)
    expected = [text.replace("\n", " ") if ending == ".txt" else text for text in TEXTS]
    digests = set()
    for size in (1, 2, 3, 99):
        plan = files.plan(size)
        assert [record["caption"] for record in read(files, plan) if isinstance(record, dict)] == expected
        assert [part.number for part in plan.parts] == list(range(-(-len(rows) // size)))
        assert [part.first for part in plan.parts] == list(range(0, len(rows), size))
        assert all(part.rows <= size for part in plan.parts) and plan.rows == len(rows)
        digests.add(plan.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_columns_have_any_names_and_ids_and_layouts_come_along(tmp_path: Path, ending: str) -> None:
    rows = [{"text": "a kite", "layout": '{"objects": []}', "key": 7}, {"text": "a boat", "layout": None, "key": 8}]
    path = write(tmp_path / f"c{ending}", rows)
    files = CaptionFiles(path, {"caption": "text", "layout": None, "id": "key"})
    found = read(files, files.plan(9))
    as_written = str if ending == ".csv" else int
    assert found == [{"caption": row["text"], "layout": row["layout"], "id": as_written(row["key"])} for row in rows]
    for columns, words in (
        (DEFAULT, "no column caption: .*text, layout, key; choose one by --caption-column"),
        ({**DEFAULT, "caption": "text", "id": "keys"}, "no column keys: did you mean key.*--id-column"),
    ):
        with pytest.raises(InputError, match=words):
            CaptionFiles(path, columns).plan(9)


def test_layouts_in_json_lines_may_be_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", [{"caption": "a kite", "layout": {"objects": []}}])
    files = CaptionFiles(path, DEFAULT)
    assert read(files, files.plan(1)) == [{"caption": "a kite", "layout": '{"objects": []}', "id": None}]


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (pa.large_string(), "caption"),
        (pa.string_view(), "caption"),
        (pa.dictionary(pa.int32(), pa.string()), "caption"),
        (pa.null(), "caption"),
        (pa.binary(), None),
        (pa.int64(), None),
        (pa.list_(pa.string()), None),
    ],
)
def test_parquet_of_every_kind_of_text_is_read_and_other_types_are_refused(
    tmp_path: Path, kind: pa.DataType, column: str | None
) -> None:
    pq.write_table(pa.table({"caption": pa.array([None, None], kind)}), tmp_path / "c.parquet")
    files = CaptionFiles(tmp_path / "c.parquet", DEFAULT)
    if column is None:
        with pytest.raises(InputError, match="not text"):
            files.plan(1)
    else:
        assert read(files, files.plan(1)) == [{"caption": None}] * 2


def test_a_folder_is_read_in_the_order_of_names_and_rows_are_numbered_through(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write(tmp_path / f"part-{number}.csv", [{"caption": f"{number} {row}"} for row in range(3)])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden").touch()
    files = CaptionFiles(tmp_path, DEFAULT)
    plan = files.plan(2)
    assert [part.first for part in plan.parts] == [0, 2, 3, 5, 6, 8]
    expected = [f"{number} {row}" for number in range(3) for row in range(3)]
    assert [record["caption"] for record in read(files, plan) if isinstance(record, dict)] == expected
    (tmp_path / "part-1.csv").write_text("text,caption\nx,y\n")
    with pytest.raises(InputError, match="not those of the first file"):
        files.plan(2)
    (tmp_path / "notes.md").touch()
    with pytest.raises(InputError, match=r"\.csv, \.md"):
        CaptionFiles(tmp_path, DEFAULT)


def test_rows_that_cannot_be_read_cost_only_themselves(tmp_path: Path) -> None:
    lines = [
        b'{"caption": "a kite"}',
        b'{"caption": "a ki',
        b"[1]",
        b"\xff\xfe{}",
        b"",
        b'{"caption": ["x"]}',
        b'{"id": 1}',
    ]
    (tmp_path / "c.jsonl").write_bytes(b"\n".join(lines))
    files = CaptionFiles(tmp_path / "c.jsonl", DEFAULT)
    found = read(files, files.plan(2))
    assert [type(record) for record in found] == [dict, str, str, str, dict, dict]
    assert "is not JSON" in str(found[1]) and "no JSON object" in str(found[2]) and "UTF-8" in str(found[3])
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfcaption,id\r\na kite,1\r\n\r\na, b,2\r\n\xe9,3\r\na boat,\r\n")
    files = CaptionFiles(tmp_path / "c.csv", DEFAULT)
    found = read(files, files.plan(2))
    assert found[0] == {"caption": "a kite", "layout": None, "id": "1"} and found[3]["id"] is None  # type: ignore[index]
    assert "3 fields" in str(found[1]) and "UTF-8" in str(found[2])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.txt", b"\n \n", "is empty"),
        ("c.csv", b"caption\n", "is empty"),
        ("c.csv", b"", "is empty"),
        ("c.jsonl", b'{"text": "a"}\n' * 200, "has no column caption"),
        ("c.csv", b'caption\na\n"b\nc\n', "row that begins in line 3 is not CSV"),
        ("c.txt", "a kite".encode("utf-16"), "is UTF-16"),
        ("c.parquet", b"PAR1", "no whole Parquet file"),
        ("c.parquet", b"", "no whole Parquet file"),
        ("c.csv.gz", b"", r"\.gz"),
        ("captions", b"", "no ending"),
    ],
)
def test_files_that_are_not_what_their_name_says_are_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        CaptionFiles(tmp_path / name, DEFAULT).plan(10)
    assert name in str(caught.value) or ".gz" in str(caught.value) or "no ending" in str(caught.value)


def test_nothing_at_the_location_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none.csv", "empty", "no/where.csv"):
        with pytest.raises(InputError, match="no file"):
            CaptionFiles(tmp_path / name, DEFAULT)


def test_parquet_that_is_cut_short_or_damaged_is_refused_at_once_not_taken_for_lost_storage(tmp_path: Path) -> None:
    path = write(tmp_path / "c.parquet", [{"caption": text} for text in TEXTS])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="no whole Parquet file"):
        CaptionFiles(path, DEFAULT).plan(2)
    path.write_bytes(whole[:4] + bytes(60) + whole[64:])
    files = CaptionFiles(path, DEFAULT)
    plan = files.plan(2)
    with pytest.raises(InputError, match="no whole Parquet file"):
        read(files, plan)


def test_a_large_row_group_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"caption": hashlib.sha256(str(number).encode()).hexdigest()} for number in range(500)]
    path = tmp_path / "c.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", use_dictionary=False)
    whole = CaptionFiles(path, DEFAULT).plan(100)
    monkeypatch.setattr(captions, "_BUFFER", 1000)
    pieces: list[bytes] = []
    with path.open("rb") as file:
        cuts = list(captions.FORMATS[".parquet"](DEFAULT).cut(file, 100, pieces.append, "c.parquet"))
    assert len(cuts) == 5 and max(map(len, pieces)) == 1000 and sum(map(len, pieces)) > 500 * 64
    files = CaptionFiles(path, DEFAULT)
    assert files.plan(100) == whole and read(files, whole) == [{**row} for row in rows]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".txt", ".jsonl"])
def test_other_captions_have_another_digest_and_other_columns_do_not(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c{ending}"

    def digest(*texts: str, other: int = 0) -> str:
        rows = [{"caption": text} | ({"other": other} if ending == ".parquet" else {}) for text in texts]
        return CaptionFiles(write(path, rows), DEFAULT).plan(2).digest

    assert digest("a", "b", "c") == digest("a", "b", "c", other=1)
    assert len({digest("a", "b", "c"), digest("a", "b"), digest("a", "x", "c"), digest("b", "a", "c")}) == 4


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", [{"caption": "a kite"}] * 4)
    files = CaptionFiles(path, DEFAULT)
    plan = files.plan(2)
    write(path, [{"caption": "a kite"}] * 3)
    with pytest.raises(InputError, match="was changed"):
        read(files, plan)


def test_parts_of_long_lines_are_small_and_endless_lines_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "_MOST_BYTES", 100)
    monkeypatch.setattr(captions, "_MOST_LINE", 1000)
    path = tmp_path / "c.txt"
    path.write_text("\n".join(["x" * 60] * 7))
    files = CaptionFiles(path, DEFAULT)
    plan = files.plan(99)
    assert [part.rows for part in plan.parts] == [2, 2, 2, 1] and len(read(files, plan)) == 7
    path.write_text("a\n" + "x" * 2000)
    with pytest.raises(InputError, match="line 2 has over"):
        files.plan(99)


def test_captions_in_a_bucket_are_read_alike(s3: str, tmp_path: Path) -> None:
    place, mark, query = s3.partition("?")
    for ending in (".parquet", ".csv", ".txt", ".jsonl"):
        path = write(tmp_path / f"c{ending}", [{"caption": text} for text in TEXTS])
        storage = Storage(s3).child(ending[1:])
        storage.send(path, path.name)
        here, file, folder = (
            CaptionFiles(location, DEFAULT)
            for location in (path, f"{place}/{ending[1:]}/{path.name}{mark}{query}", storage.uri)
        )
        assert here.plan(2) == file.plan(2) == folder.plan(2)
        assert read(here, here.plan(2)) == read(file, file.plan(2)) == read(folder, folder.plan(2))
    with pytest.raises(InputError, match="no file s3://bucket-"):
        CaptionFiles(f"{place}/none.csv{mark}{query}", DEFAULT)


def test_a_file_of_a_storage_reads_from_any_position_to_its_end(tmp_path: Path) -> None:
    data = bytes(range(256)) * 50
    (tmp_path / "x").write_bytes(data)
    file = Storage(tmp_path).open("x")
    assert file.read(10) == data[:10] and file.tell() == 10
    assert file.seek(-5, io.SEEK_END) == len(data) - 5 and file.read() == data[-5:] and file.read(3) == b""
    assert io.BufferedReader(Storage(tmp_path).open("x")).readlines() == io.BytesIO(data).readlines()
    with pytest.raises(FileNotFoundError):
        Storage(tmp_path).open("y")
