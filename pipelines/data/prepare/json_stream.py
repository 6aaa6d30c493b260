"""Reads COCO's JSON as a stream: the objects of one list, one by one, for files of any size.

The first pass over a file parses all of it and notes where its lists are; later ones parse one list alone.
"""

import contextlib
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import ijson
import numpy as np

from objgan.errors import InputError
from pipelines.storage.remote_file import RemoteFile
from pipelines.storage.retry import StorageAway

Record = dict[str, Any]
JsonFile = Path | RemoteFile
_CHUNK = 1 << 18
_BOM = b"\xef\xbb\xbf"
_LISTS = ("images", "annotations", "captions", "categories")
MOST_NESTED = 64
"""Depth of nested lists and objects. The parser's memory grows with its square."""

# A whole text; a text that the end of the chunk cuts; NaN and infinities as Python's json writes them; numbers that may
# not fit into 64 bits, for which the parser would refuse the whole file.
_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*+"|"(?:[^"\\]|\\.)*+\\?\Z|-?\b(?:NaN|Infinity)\b'
    rb"|(?<![\d.eE+-])-?(?:\d{19,}(?:\.\d+)?(?:[eE][+-]?\d+)?|\d+(?:\.\d+)?[eE]\+?\d{3,})",
    re.DOTALL,
)
# An escaped backslash, a pair of surrogates, half of a pair.
_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_KEY = re.compile(rb'(?<=[{,\s])("(?:[^"\\]|\\.)*+")\s*:\s*\Z', re.DOTALL)
_LONGEST_KEY = 200
_CUT_WORD = re.compile(rb"[-+.A-Za-z0-9]*\Z")
_BRACKETS = np.isin(np.arange(256), list(b"[]{}"))

_Places = dict[str, list[tuple[int, int]]]
_places: dict[tuple[object, ...], _Places] = {}
"""Where the lists of a file are, by its identity: the first byte, and the one behind the last, of lists of a name."""


def records(path: JsonFile, role: str, key: str, *, optional: bool = False) -> Iterator[Record]:
    """The objects of the list `key`, in order; numbers are int or float; NaN becomes null.

    Numbers beyond 64 bits are texts.

    path:     JSON, gzip'd or not
    role:     names the file in errors
    optional: a file without the list yields nothing

    Raises:
        InputError: the file is missing, unreadable, cut short, nested too deeply or not JSON, or has no such list of
            objects.
    """
    empty = True
    with _explained(path, role):
        for record in _items(path, key):
            empty = False
            if not isinstance(record, dict):
                break
            yield record
        else:
            if not empty or _has_list(path, key) or (optional and not _has_key(path, key)):
                return
    raise InputError(f'{role}: {path} is not COCO JSON: it has no list of objects "{key}"')


def first_record(path: JsonFile, role: str, key: str) -> Record | None:
    """The first object of the list `key`, without reading further; None for an empty list.

    Raises:
        InputError: as `records`.
    """
    return next(records(path, role, key), None)


def header(path: JsonFile, role: str) -> Record:
    """`info` and `licenses` of the file, each only if it comes before the first list of records, as in COCO's files.

    Raises:
        InputError: as `records`.
    """
    builder, depth, wanted = ijson.ObjectBuilder(), 0, True
    with _explained(path, role), _open(path) as file:
        for event, value in ijson.basic_parse(_Mended(file), use_float=True, buf_size=_CHUNK):
            depth += event.startswith("start_") - event.startswith("end_")
            if depth == 1 and event == "map_key":
                if value in _LISTS:
                    break
                wanted = value in ("info", "licenses")
            if wanted:
                builder.event(event, value)
    return dict(builder.value)


def _items(path: JsonFile, key: str) -> Iterator[Any]:
    done = 0
    try:
        for item in _parsed(path, key, lambda file: file):
            done += 1
            yield item
        return
    except UnicodeDecodeError:
        pass  # half of a surrogate pair in a key; if the file is not UTF-8, it is raised again
    except ijson.JSONError as error:
        if "overflow" not in str(error) and not _mentions(path, b"NaN", b"Infinity"):
            raise
    for number, item in enumerate(_parsed(path, key, _Mended)):
        if number >= done:
            yield item


def _parsed(path: JsonFile, key: str, mend: Callable[[Any], Any]) -> Iterator[Any]:
    """The items of a list: parsed alone if its place is known, otherwise with all of the file."""
    identity = _identity(path)
    known = _places.get(identity)
    with _raw(path) as file:
        if known is None:
            counted = _Counted(file)
            source: Any = io.BufferedReader(counted, _CHUNK)
        else:
            source = ijson.from_iter(_pieces(file, key, known.get(key, [])))
        yield from ijson.items(mend(source), f"{key}.item", use_float=True, buf_size=_CHUNK)
        if known is None and counted.nesting.named:
            _places[identity] = counted.nesting.lists


def _pieces(file: IO[bytes], key: str, places: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of a JSON object with these lists of a file alone, all of them named `key`."""
    begin = file.tell()
    yield b"{"
    for number, (start, end) in enumerate(places):
        yield (", " if number else "").encode() + json.dumps(key).encode() + b":"
        file.seek(begin + start)
        while start < end and (chunk := file.read(min(_CHUNK, end - start))):
            start += len(chunk)
            yield chunk
    yield b"}"


def _identity(path: JsonFile) -> tuple[object, ...]:
    if isinstance(path, RemoteFile):
        return path.identity()
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _has_list(path: JsonFile, key: str) -> bool:
    """Slow if the places of the lists are unknown: only called for lists without entries."""
    if (known := _places.get(_identity(path))) is not None:
        return key in known
    with _open(path) as file:
        events = ijson.parse(_Mended(file), use_float=True, buf_size=_CHUNK)
        return any(prefix == key and event == "start_array" for prefix, event, _ in events)


def _has_key(path: JsonFile, key: str) -> bool:
    """Whether the file is an object with this key, or not an object. Slow only if the file has this word."""
    with _open(path) as file:
        events = ijson.parse(_Mended(file), use_float=True, buf_size=_CHUNK)
        top = next(events, ("", "", None))
        if top[1] != "start_map":
            return True
        return _mentions(path, b'"%b"' % key.encode()) and any(event == ("", "map_key", key) for event in events)


@contextlib.contextmanager
def _open(path: JsonFile) -> Iterator[IO[bytes]]:
    with _raw(path) as file:
        yield io.BufferedReader(_Counted(file), _CHUNK)


@contextlib.contextmanager
def _raw(path: JsonFile) -> Iterator[Any]:
    """The bytes of a file, unzipped, behind its byte order mark."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw, "rb") if zipped else contextlib.nullcontext(raw) as file:
            if file.read(len(_BOM)) != _BOM:
                file.seek(0)
            yield file


class _Counted(io.RawIOBase):
    """A file whose lists are noted as it is read; refuses JSON that is nested too deeply."""

    def __init__(self, file: Any) -> None:
        self._file, self.nesting = file, _Nesting()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self.nesting.add(data)
        buffer[: len(data)] = data
        return len(data)


class _TooDeep(ValueError):
    """The JSON is nested too deeply."""


class _Nesting:
    """Counts open brackets chunk by chunk, without those in texts; notes where the lists of the outermost object are.

    named: whether the names of all lists were found
    """

    def __init__(self) -> None:
        self.lists: _Places = {}
        self.named = True
        self._at, self._open, self._in_text = 0, 0, False
        self._before, self._escape, self._list = b"", b"", ("", 0)

    def add(self, data: bytes) -> None:
        """Count the brackets of the next bytes.

        Raises:
            _TooDeep: over `MOST_NESTED` are open at once.
        """
        # Without escaped characters, every remaining quote begins or ends a text. All bytes keep their places.
        plain = (self._escape + data).replace(b"\\\\", b"__").replace(b'\\"', b"__")
        begin = self._at - len(self._escape)
        self._escape = b"\\" if plain.endswith(b"\\") else b""
        codes = np.frombuffer(plain, np.uint8)
        quotes, brackets = np.flatnonzero(codes == ord('"')), np.flatnonzero(_BRACKETS[codes])
        brackets = brackets[(np.searchsorted(quotes, brackets) + self._in_text) % 2 == 0]
        self._in_text ^= len(quotes) % 2 == 1
        context, self._at = self._before + data, self._at + len(data)
        if len(brackets):
            kinds = codes[brackets]
            # In ASCII, "]" and "}" have bit 4 set, "[" and "{" do not.
            depths = self._open + np.where(kinds & 4, -1, 1).cumsum()
            if depths.max() > MOST_NESTED:
                raise _TooDeep(f"lists and objects nested over {MOST_NESTED} levels deep")
            self._open = int(depths[-1])
            ends = ((kinds == ord("[")) & (depths == 2)) | ((kinds == ord("]")) & (depths == 1))
            for place in (begin + brackets[ends]).tolist():
                self._note(place, context[: place - self._at])
        self._before = context[-_LONGEST_KEY:]

    def _note(self, place: int, before: bytes) -> None:
        """A list of the outermost object begins or ends at this byte; `before` are some of the bytes before it."""
        name, start = self._list
        if start:
            self.lists.setdefault(name, []).append((start, place + 1))
            self._list = "", 0
            return
        key = _KEY.search(before[-_LONGEST_KEY:])
        self.named &= key is not None
        with contextlib.suppress(ValueError):
            name = json.loads(key[1]) if key else ""
        self._list = name, place


class _Mended:
    """A file of JSON with null for NaN and infinities, texts for numbers that do not fit, and whole characters."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._kept = file, b""

    def read(self, size: int) -> bytes:
        while True:
            chunk = self._file.read(size)
            data, last = self._kept + chunk, not chunk
            self._kept = b""
            if not last:
                data = self._hold_back(data)
            if data or last:
                return _TOKEN.sub(_mend, data)

    def _hold_back(self, data: bytes) -> bytes:
        """Keep a text or a word that the end cuts for the next chunk."""
        cut = len(data)
        for match in _TOKEN.finditer(data):
            token = match[0]
            if match.end() == len(data) and token[:1] == b'"' and not _is_whole(token):
                cut = match.start()
        if cut == len(data):
            word = _CUT_WORD.search(data)
            cut = word.start() if word else cut
        self._kept = data[cut:]
        return data[:cut]


def _mend(token: re.Match[bytes]) -> bytes:
    text = token[0]
    if text.startswith(b'"'):
        return _SURROGATE.sub(lambda match: b"?" if match.lastgroup == "half" else match[0], text)
    if not text.lstrip(b"-")[:1].isdigit():
        return b"null"
    if text.lstrip(b"-").isdigit():
        fits = len(text) <= 20 and -(2**63) <= int(text) < 2**63
    else:
        fits = math.isfinite(float(text))
    return text if fits else b'"%b"' % text


def _is_whole(text: bytes) -> bool:
    body = text[1:-1]
    return len(text) > 1 and text.endswith(b'"') and (len(body) - len(body.rstrip(b"\\"))) % 2 == 0


def _mentions(path: JsonFile, *words: bytes) -> bool:
    with _open(path) as file:
        before = b""
        while chunk := file.read(_CHUNK):
            data = before + chunk
            if any(word in data for word in words):
                return True
            before = data[-max(map(len, words)) :]
    return False


@contextlib.contextmanager
def _explained(path: JsonFile, role: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{role}: no file {path}; check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{role}: {path} is a broken gzip file ({error})") from None
    except StorageAway:
        raise
    except OSError as error:
        raise InputError(f"{role}: cannot read {path} ({error.strerror or error})") from None
    except _TooDeep as error:
        raise InputError(f"{role}: {path} has {error}, which is not COCO JSON") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise InputError(f"{role}: {path} is not JSON ({_first_line(error)}); fetch or write it again") from None


def _first_line(error: Exception) -> str:
    """The parser's message, without its picture of the position."""
    message = error.args[0] if error.args else error
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return (text.strip().splitlines() or [type(error).__name__])[0].strip()[:120]
