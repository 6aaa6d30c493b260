"""Files of captions -> parts, each the rows of one shard; a part -> its rows. Memory holds at most one part of a file.

Parts are cut by rows alone, and rows are numbered through all files in the order of their names. So neither depends on
the number of workers, nor on the blocks that Ray would make of a file.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types

from objgan.errors import InputError, did_you_mean, shown
from objgan.json_input import LIMITS, JsonFault, parse_json
from objgan.serving import INPUTS
from pipelines.command_line import Location
from pipelines.redaction import in_a_line
from pipelines.storage.storage import Storage, is_damage

Result = TypeVar("Result")
_BOM, _UTF_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_MOST_LINE = LIMITS.bytes
_MOST_BYTES = 64 << 20
"""Of the lines of a part, which then ends, whatever its number of rows."""
_BUFFER = 1 << 20
_LOOKED_AT = 100
"""Lines of JSON, one of which must have the chosen columns."""
_BATCH = 1024

Columns = Mapping[str, str | None]
"""Column of each of INPUTS; None: the one of the same name, if there is one."""
Record = dict[str, Any] | str
"""Values by INPUTS, or why the row cannot be read."""
Cut = tuple[int, int, int]
"""Rows of a part, and where they start and stop."""


@dataclass(frozen=True)
class Part:
    """The input of shard `number`: `rows` rows of one file, of which the first is row `first` of all.

    start, stop: of the lines, in bytes; in a Parquet file, in rows
    """

    number: int
    file: str
    first: int
    rows: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The parts of all files, in order, and a digest of everything that is read of the files."""

    parts: tuple[Part, ...]
    digest: str

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)


class CaptionFiles:
    """One file of captions, or a folder of files of one format. Picklable: workers open the files anew."""

    def __init__(self, location: Location, columns: Columns) -> None:
        """`location`: a path or URI.

        Raises:
            InputError: nothing there, no known format or several, columns that the format does not have.
        """
        self._storage, self._names = _listed(location)
        endings = sorted({PurePosixPath(name).suffix.lower() for name in self._names})
        if len(endings) > 1 or endings[0] not in FORMATS:
            given = ", ".join(ending or "no ending" for ending in endings)
            raise InputError(
                f"captions: {self._storage} has files of {given}: give a file, or a folder of files, of one of "
                f"{', '.join(FORMATS)}"
            )
        self._format = FORMATS[endings[0]](columns)

    def plan(self, rows: int) -> Plan:
        """Parts of at most `rows` rows. Reads every file once; of Parquet, only the columns.

        Raises:
            InputError: no row at all, an unknown column, or a file that is not of its format.
        """
        parts: list[Part] = []
        digests = []
        for name in self._names:
            read = hashlib.sha256()
            with self._opened(name) as file:
                for count, start, stop in self._format.cut(file, rows, read.update, self._where(name)):
                    first = parts[-1].first + parts[-1].rows if parts else 0
                    parts.append(Part(len(parts), name, first, count, start, stop))
            digests.append(read.hexdigest())
        if not parts:
            raise InputError(f"captions: {self._where(self._names[0])} is empty: give one caption a row")
        return Plan(tuple(parts), hashlib.sha256(json.dumps(digests).encode()).hexdigest())

    def read(self, part: Part) -> list[Record]:
        """The rows of a part.

        Raises:
            InputError: the file was damaged or changed since `plan`.
        """
        where = self._where(part.file)
        with self._opened(part.file) as file:
            records = list(self._format.records(file, part, where))
        if len(records) != part.rows:
            raise InputError(f"captions: {where} was changed while it was read: run the command again")
        return records

    def _opened(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(self._storage.open(name), _BUFFER)

    def _where(self, name: str) -> str:
        return f"{self._storage}/{name}"


def _listed(location: Location) -> tuple[Storage, list[str]]:
    """The folder, and the names of the files in it. Hidden files and Spark's marks (`_SUCCESS`) are no captions."""
    storage = Storage(location)
    names = [name for name in storage.names() if not name.startswith("_")]
    if names:
        return storage, names
    folder, name = storage.above(), PurePosixPath(storage.path).name
    if (storage.local is not None and storage.local.is_dir()) or not folder.exists(name):
        raise InputError(f"captions: no file {storage}, and no files in it; check the location")
    return folder, [name]


class _Format(Protocol):
    """How rows lie in a file. `where` names the file in messages."""

    def __init__(self, columns: Columns) -> None: ...

    def cut(self, file: io.BufferedReader, rows: int, read: Callable[[bytes], None], where: str) -> Iterator[Cut]:
        """Parts of at most `rows` rows; `read` receives what is read."""

    def records(self, file: io.BufferedReader, part: Part, where: str) -> Iterator[Record]:
        """The rows of a part."""


class _Text:
    """One caption a line; blank lines are no rows."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._check_columns()

    def cut(self, file: io.BufferedReader, rows: int, read: Callable[[bytes], None], where: str) -> Iterator[Cut]:
        """As `_Format`."""
        return _cut((bool(line.strip()) for line in _lines(file, where, read)), rows, file)

    def records(self, file: io.BufferedReader, part: Part, where: str) -> Iterator[Record]:
        """As `_Format`."""
        return (self._record(line) for line in _part(file, part) if line.strip())

    def _check_columns(self) -> None:
        if any(self._columns.values()):
            raise InputError("captions: a .txt file has no columns: leave out the options that name one")

    def _record(self, line: bytes) -> Record:
        try:
            return {"caption": line.decode("utf-8-sig").strip()}
        except UnicodeDecodeError:
            return _NOT_UTF_8


class _JsonLines(_Text):
    """One JSON object a line; blank lines are no rows."""

    def cut(self, file: io.BufferedReader, rows: int, read: Callable[[bytes], None], where: str) -> Iterator[Cut]:
        """As `_Format`.

        Raises:
            InputError: none of the first lines has a chosen column.
        """
        keys: dict[str, Any] = {}
        for _, line in zip(
            range(_LOOKED_AT), filter(bytes.strip, _lines(file, where, lambda data: None)), strict=False
        ):
            content = _json(line)
            keys |= dict.fromkeys(content) if isinstance(content, dict) else {}
        if keys:
            _choose(self._columns, keys, where)
        file.seek(0)
        return super().cut(file, rows, read, where)

    def _check_columns(self) -> None:
        pass

    def _record(self, line: bytes) -> Record:
        content = _json(line)
        if not isinstance(content, dict):
            return content
        values = {name: content.get(self._columns[name] or name) for name in INPUTS}
        if isinstance(values["layout"], dict):
            values["layout"] = json.dumps(values["layout"])
        return values


class _Csv:
    """Comma-separated values under a line of names; blank lines are no rows. All files have the same names."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._header: list[str] | None = None

    def cut(self, file: io.BufferedReader, rows: int, read: Callable[[bytes], None], where: str) -> Iterator[Cut]:
        """As `_Format`.

        Raises:
            InputError: an unknown column, another header than that of the first file, a quote that does not close.
        """
        table = _csv(_lines(file, where, read), where)
        header = next(table, None)
        if header is None:
            return
        _choose(self._columns, header, where)
        if self._header not in (None, header):
            raise InputError(f"captions: {where} has the columns {shown(header)}, not those of the first file")
        self._header = header
        yield from _cut(map(bool, table), rows, file)

    def records(self, file: io.BufferedReader, part: Part, where: str) -> Iterator[Record]:
        """As `_Format`."""
        return (self._record(fields) for fields in _csv(_part(file, part), where) if fields)

    def _record(self, fields: Sequence[str]) -> Record:
        header = self._header or []
        if len(fields) != len(header):
            return f"the row has {len(fields)} fields, and the table {len(header)} columns: quote texts with commas"
        if any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
            return _NOT_UTF_8
        row = dict(zip(header, fields, strict=True))
        values: dict[str, Any] = {name: row.get(self._columns[name] or name) for name in INPUTS}
        return values | {name: values[name] or None for name in ("layout", "id")}


class _Parquet:
    """Parquet: texts, and ids as texts or whole numbers."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def cut(self, file: io.BufferedReader, rows: int, read: Callable[[bytes], None], where: str) -> Iterator[Cut]:
        """As `_Format`.

        Raises:
            InputError: an unknown column, one of another type, or no whole Parquet file.
        """
        table = _parquet(file, where)
        for name, column in self._present(table, where).items():
            kind = table.schema_arrow.field(column).type
            if not (_is_text(kind) or (name == "id" and pyarrow.types.is_integer(kind))):
                raise InputError(f"captions: column {column} of {where} is {kind}, not text: name another column")
        facts = table.metadata
        wanted = set(self._present(table, where).values())
        for group in range(facts.num_row_groups):
            for index in range(facts.num_columns):
                chunk = facts.row_group(group).column(index)
                if chunk.path_in_schema in wanted:
                    starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
                    file.seek(min(start for start in starts if start is not None))
                    for left in range(chunk.total_compressed_size, 0, -_BUFFER):
                        read(file.read(min(left, _BUFFER)))
        for start in range(0, facts.num_rows, rows):
            stop = min(start + rows, facts.num_rows)
            yield stop - start, start, stop

    def records(self, file: io.BufferedReader, part: Part, where: str) -> Iterator[Record]:
        """As `_Format`.

        Raises:
            InputError: the file is damaged.
        """
        table = _parquet(file, where)
        present = self._present(table, where)
        groups, skipped, end = [], 0, 0
        for group in range(table.metadata.num_row_groups):
            begin, end = end, end + table.metadata.row_group(group).num_rows
            if end <= part.start:
                skipped = end
            elif begin < part.stop:
                groups.append(group)
        batches = table.iter_batches(_BATCH, row_groups=groups, columns=sorted(set(present.values())))
        start, stop = part.start - skipped, part.stop - skipped
        while stop > 0 and (batch := _whole(lambda: next(batches, None), where)) is not None:
            for row in batch[max(0, start) : stop].to_pylist():
                yield {name: row[column] for name, column in present.items()}
            start, stop = start - len(batch), stop - len(batch)

    def _present(self, table: pq.ParquetFile, where: str) -> dict[str, str]:
        return _choose(self._columns, table.schema_arrow.names, where)


FORMATS: dict[str, type[_Format]] = {".parquet": _Parquet, ".csv": _Csv, ".txt": _Text, ".jsonl": _JsonLines}
"""By the ending of a file's name."""
_NOT_UTF_8 = "the row is not UTF-8"


def _choose(columns: Columns, given: Iterable[str], where: str) -> dict[str, str]:
    """Which of the `given` columns to read, by INPUTS.

    Raises:
        InputError: none for captions, or a chosen one is missing.
    """
    given = list(given)
    for name in INPUTS:
        wanted = columns[name] or (name if name == "caption" else None)
        if wanted is not None and wanted not in given:
            listed = ", ".join(map(str, given[:20]))
            meant = did_you_mean(wanted, given)
            raise InputError(
                f"captions: {where} has no column {wanted}:{meant} it has {listed}; choose one by --{name}-column"
            )
    return {name: column for name in INPUTS if (column := columns[name] or name) in given}


def _lines(file: io.BufferedReader, where: str, read: Callable[[bytes], None]) -> Iterator[bytes]:
    """The lines of a file, with their ends; `read` receives all bytes.

    Raises:
        InputError: a line is too long, or the file is UTF-16.
    """
    number = 0
    while line := file.readline(_MOST_LINE + 1):
        number += 1
        if len(line) > _MOST_LINE:
            raise InputError(f"captions: {where} line {number} has over {_MOST_LINE >> 20} MiB: shorten it")
        if number == 1 and line.startswith(_UTF_16):
            raise InputError(f"captions: {where} is UTF-16: convert it to UTF-8")
        read(line)
        yield line


def _part(file: io.BufferedReader, part: Part) -> Iterator[bytes]:
    """The lines of a part."""
    file.seek(part.start)
    return io.BytesIO(file.read(part.stop - part.start))


def _cut(units: Iterable[bool], rows: int, file: io.BufferedReader) -> Iterator[Cut]:
    """Parts of text. units: read the rest of `file`, and say of each piece whether it is a row."""
    start = stop = file.tell()
    count = 0
    for is_row in units:
        stop, count = file.tell(), count + is_row
        if count == rows or (count and stop - start >= _MOST_BYTES):
            yield count, start, stop
            start, count = stop, 0
    if count:
        yield count, start, stop


def _csv(lines: Iterable[bytes], where: str) -> Iterator[list[str]]:
    """The fields of each row, none of a blank line; bytes that are not UTF-8 become half surrogate pairs.

    Raises:
        InputError: quotes do not match.
    """
    csv.field_size_limit(_MOST_LINE)
    texts = (line.decode(errors="surrogateescape").removeprefix("\ufeff") for line in lines)
    table, begin = csv.reader(texts, strict=True), 1
    while True:
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"captions: {where}: the row that begins in line {begin} is not CSV ({error}): correct its quotes"
            ) from None
        begin = table.line_num + 1
        yield fields


def _json(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or why there is none."""
    try:
        content = parse_json(line.removeprefix(_BOM))
    except JsonFault as fault:
        return f"the row {fault}"
    return content if isinstance(content, dict) else f"the row is no JSON object, but {shown(content)}"


def _parquet(file: io.BufferedReader, where: str) -> pq.ParquetFile:
    # Without a buffer, all rows of a row group would be in memory.
    return _whole(lambda: pq.ParquetFile(file, buffer_size=_BUFFER), where)


def _whole(read: Callable[[], Result], where: str) -> Result:
    """What `read` returns.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        raise InputError(
            f"captions: {where} is no whole Parquet file ({in_a_line(error)}): take another copy"
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())
