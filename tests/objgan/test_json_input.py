"""JSON from outside: what Python's parser lets pass, or dies of, is refused in one short line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from objgan.errors import InputError, one_line, shown
from objgan.files import read_json
from objgan.json_input import LIMITS, OWN, JsonFault, JsonLimits, parse_json

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not JSON"),
    "text": (b"hello", "is not JSON"),
    "cut": (b'{"a": [1, 2', "is not JSON"),
    "two values": (b"{} {}", "is not JSON"),
    "a mark of byte order": (b"\xef\xbb\xbf{}", "is not JSON"),
    "Latin-1": ('{"a": "\xe9"}'.encode("latin-1"), "is not JSON (byte 7"),
    "UTF-16": ("{}".encode("utf-16"), "is not JSON"),
    "NaN": (b'{"a":\n NaN}', "holds NaN, which is no number of JSON (line 2)"),
    "Infinity": (b"[-Infinity]", "holds -Infinity"),
    "a number over float64": (b"[1e999]", "holds 1e999, which is too large"),
    "digits": (b"[" + b"9" * 5000 + b"]", "5,000 digits"),
    "digits below zero": (b"[-" + b"9" * 21 + b"]", "21 digits"),
    "digits of a fraction": (b"[0." + b"1" * 500 + b"]", "502 characters"),
    "lists in lists": (b"[" * 33 + b"]" * 33, "nested more than 32 deep"),
    "100,000 lists in lists": (b"[" * 100_000 + b"]" * 100_000, "nested more than 32 deep"),
    "100,000 objects in objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 32 deep"),
    "an open end of lists": (b"[" * 1_000_000, "nested more than 32 deep"),
    "a key twice": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "has the key 'c' twice"),
    "a key twice by an escape": (b'{"a": 1, "\\u0061": 2}', "has the key 'a' twice"),
    "half a surrogate pair": (b'["\\ud800"]', "half a surrogate pair"),
    "the other half": (b'["x\\uDFFFx"]', "half a surrogate pair"),
    "half a surrogate pair as a key": (b'{"\\ud800": 1}', "half a surrogate pair"),
    "more values than fit": (b"[" + b"0," * 2_000_000 + b"0]", "more than 2,000,000 values"),
    "more lists than fit": (b"[" + b"[],{}," * 1_000_000 + b"0]", "more than 2,000,000 values"),
    "more bytes than fit": (b'"' + b"x" * LIMITS.bytes + b'"', "more than 32 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_json_is_refused_in_one_short_line(tmp_path: Path, name: str) -> None:
    data, reason = BAD[name]
    path = tmp_path / "some.json"
    path.write_bytes(data)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_json(path, "layout")
    message = str(caught.value)
    assert message.startswith(f"layout: {path} ") and reason in message, message[:500]
    assert "\n" not in message and len(message) < 400 and message.isprintable()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 0.5, 1e300, True, None, "ä😀", {"b": []}]},
        2**63 - 1,
        -(2**63),
        0.1 + 0.2,
        [[[[]]]],
        "\ufffd and \x7f",
        list(range(100_000)),
    ],
)
def test_json_is_read_as_it_is(tmp_path: Path, value: object) -> None:
    path = tmp_path / "some.json"
    for escaped in (True, False):
        path.write_text(json.dumps(value, ensure_ascii=escaped), encoding="utf-8")
        assert read_json(path, "x") == value


def test_files_of_our_own_may_hold_nan() -> None:
    assert str(parse_json(b"[NaN, -Infinity]", OWN)) == "[nan, -inf]"
    with pytest.raises(JsonFault, match="nested more than 3 deep"):
        parse_json(b"[[[[]]]]", JsonLimits(depth=3))


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/urandom"), tmp_path):
        with pytest.raises(InputError, match=r"no regular file|directory"):
            read_json(path, "layout")
    with pytest.raises(InputError, match="no path"):
        read_json(Path("a\0b"), "layout")


def test_what_a_shell_pipes_in_is_read(repository: Path) -> None:
    program = "import sys, pathlib, objgan.files; print(objgan.files.read_json(pathlib.Path(sys.argv[1]), 'x'))"
    words = ["bash", "-c", f'"{sys.executable}" -c "{program}" <(sleep 0.3; echo "[1]")']
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
    assert done.stdout.strip() == "[1]", done.stderr


@pytest.mark.parametrize(
    "value",
    ["x" * 3_000_000, "\n" * 3_000_000, ["y" * 3_000_000] * 9, {"k" * 3_000_000: 1}, 10**4000, [[[[[[[[1]]]]]]]]],
)
def test_long_values_are_cut_in_messages(value: object) -> None:
    text = shown(value)
    assert len(text) < 400 and "\n" not in text


def test_a_message_is_one_line_of_printable_text_whatever_it_repeats() -> None:
    error = InputError("layout: \x1b[31mred\x1b[0m\r\n\ud800 " + "x" * 10_000_000 + " write it anew")
    assert "\x1b" not in str(error) and "\n" not in str(error) and len(str(error)) <= 2000
    assert str(error).startswith("layout: \\x1b[31mred\\x1b[0m \\ud800 xxx") and str(error).isprintable()
    str(error).encode()
    assert str(error).endswith("write it anew")
    assert one_line("short and plain, with ä") == "short and plain, with ä"
    assert one_line("a" * 5000 + " do this").endswith(" do this")
