"""Secrets leave no trace: one function that every text passes before it is shown, logged or stored.

Passwords come in with URIs (of MLflow, of storage, of proxies) and in variables of the environment, and go out again in
our messages, in those of libraries, in `status.json`, in MLflow's tags. Where a text is made, nobody can know all of
that; so the places where texts leave the process call `redact`: `say`, the last line, logs in JSON, records of Python's
`logging`, tracebacks, help and errors of option parsers, `status.json`, leases, MLflow's parameters and tags.

`pipelines`, `tune`, `cluster` and `programs` stand on this module, which imports the standard library alone.
"""

import logging
import os
import re
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"

_URI = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"<>`\\]+)")
# What is left of a URI that was taken for a path.
_COLLAPSED = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*):/(?!/)[^\s/:@'\"]*:[^\s@'\"]*@")
# What a location or a database is opened with. Everything else in a query may be a key, a token or a signature.
_HARMLESS = {
    *("endpoint_override", "scheme", "region", "allow_bucket_creation", "allow_bucket_deletion", "anonymous"),
    *("force_virtual_addressing", "check_directory_existence_before_creation", "background_writes", "smart_defaults"),
    *("tls_ca_file_path", "project_id", "retry_limit_seconds", "connect_timeout", "request_timeout", "timeout"),
    *("replication", "buffer_size", "default_block_size", "hdfs_port", "blob_storage_scheme", "dfs_storage_scheme"),
    *("enable_tls", "sslmode", "charset", "driver", "mode", "cache", "uri", "application_name"),
    *("experiment_ids", "experiment_name", "run_id", "max_results", "page_token"),
}
_SECRET_NAMES = (
    r"(?:[\w-]*(?:password|passwd|passphrase|secret|credential|signature|api_?key|access_?key|private_?key|auth_?token"
    r"|access_?token|session_?token|security-token|sas_?token)[\w-]*|pwd|sig|token)"
)
_ASSIGNED = re.compile(rf"(?i)(?<![\w-])([\"']?{_SECRET_NAMES}[\"']?)(\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&)\]}}]+)")
_NO_VALUE = re.compile(r"(?i)[\"']?(?:\*{3}|none|null|true|false|yes|no|\d{1,3})[\"']?")
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_SECRET_VARIABLES = re.compile(r"(?i)(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|CREDENTIAL|AUTH)(_|\b|$)")
_PLACES = re.compile(r"(?i)(_PATH|_FILE|_DIR|_URI|_URL|_MODE|_ID|_NAME|_TYPE)$")
_SHORTEST = 8
"""Letters from which a secret of the environment is searched for as such; shorter ones are words, too."""


def redact(text: str) -> str:
    """`text` without passwords: of every URI in it the user, the password and what in its query may be a secret, and
    the values of secrets of the environment, wherever they stand."""
    if "://" in text:
        text = _URI.sub(lambda match: f"{match[1]}://{_redact_rest(match[2])}", text)
    text = _COLLAPSED.sub(rf"\1:/{HIDDEN}@", text)
    for secret in _known_secrets():
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _ASSIGNED.sub(_hide_value, text)
    return _HEADER.sub(rf"\1 {HIDDEN}", text)


def place_of(uri: str) -> str:
    """A location as messages name it: without user, password and query."""
    if "://" not in uri:
        return uri
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{_without_user(rest)[1].partition('?')[0]}"


def typed_again(word: str) -> str:
    """A word of a command line as it can be typed again: locations keep their query, but have no user and no secret.

    Who types it has the credentials in the environment, or adds them.
    """
    bare = _URI.sub(lambda match: f"{match[1]}://{_drop_hidden(_redact_rest(match[2]))}", word)
    return redact(bare)


def redact_all(value: Any) -> Any:
    """A value as JSON has them, with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): redact_all(one) for name, one in value.items()}
    return [redact_all(one) for one in value] if isinstance(value, list | tuple) else value


def in_a_line(error: BaseException, most: int = 200) -> str:
    """What an error says, in one short line without secrets; that a package is missing, in plain words."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    text = f"the Python package {missing} is not installed" if missing else redact(" ".join(str(error).split()))
    text = text or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def install() -> None:
    """Redact all records of `logging` and Python's warnings, from any module to any handler."""
    factory, shape = logging.getLogRecordFactory(), warnings.formatwarning
    if not isinstance(factory, partial) or factory.func is not _record:
        logging.setLogRecordFactory(partial(_record, factory))
    if not isinstance(shape, partial) or shape.func is not _warning:
        warnings.formatwarning = partial(_warning, shape)


def _record(factory: Any, *arguments: Any, **more: Any) -> logging.LogRecord:
    record: logging.LogRecord = factory(*arguments, **more)
    try:
        record.msg, record.args = redact(record.getMessage()), ()
    except (TypeError, ValueError, KeyError):
        return record  # its own fault, which `logging` reports when it is shown
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return record


def _warning(shape: Any, *arguments: Any, **more: Any) -> str:
    return redact(shape(*arguments, **more))


def _redact_rest(rest: str) -> str:
    """What follows `://`."""
    user, place = _without_user(rest)
    place, hash_, fragment = place.partition("#")
    place, mark, query = place.partition("?")
    shown = f"{HIDDEN}@{place}" if user else place
    shown += mark + "&".join(map(_redact_parameter, query.split("&"))) if mark else ""
    if hash_:
        inner, question, more = fragment.partition("?")
        inner = HIDDEN if "=" in inner else inner
        shown += hash_ + inner + (question + "&".join(map(_redact_parameter, more.split("&"))) if question else "")
    return shown


def _drop_hidden(rest: str) -> str:
    place, _, query = rest.removeprefix(f"{HIDDEN}@").partition("?")
    kept = "&".join(part for part in query.split("&") if part and HIDDEN not in part)
    return f"{place}?{kept}" if kept else place


def _without_user(rest: str) -> tuple[str, str]:
    """What follows `://` as user with password, and the others; a password may hold any letter, though it should not.

    A colon before the first slash begins a password or a port. Then the last @ before the query ends the user; if it is
    no port, and there is none, the last @ at all.
    """
    authority, head = re.split(r"[/?#]", rest, maxsplit=1)[0], re.split(r"[?#]", rest, maxsplit=1)[0]
    _, colon, port = authority.rpartition("]")[2].partition(":")
    if not colon:
        end = authority.rfind("@")
    else:
        end = head.rfind("@")
        if end < 0 and not port.isdigit():
            end = rest.rfind("@")
    return (rest[:end], rest[end + 1 :]) if end >= 0 else ("", rest)


def _redact_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals or not value:
        return parameter if name.lower() in _HARMLESS or not name else HIDDEN if len(name) >= _SHORTEST else parameter
    harmless = name.lower() in _HARMLESS and "@" not in unquote(value)
    return parameter if harmless else f"{name}={HIDDEN}"


def _hide_value(match: re.Match[str]) -> str:
    name, sign, value = match[1], match[2], match[3]
    bare = name.strip("\"'").lower()
    # "token: x" is prose; "token=x" and "password: x" are not.
    if _NO_VALUE.fullmatch(value) or (bare in ("token", "sig") and "=" not in sign and name == bare):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{sign}{quote}{HIDDEN}{quote}"


def _known_secrets() -> list[str]:
    """Secrets of the environment, as they are and as they stand in URIs, the longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if "://" in value:
            for match in _URI.finditer(value):
                _, _, password = _without_user(match[2])[0].partition(":")
                found |= {password, unquote(password), unquote_plus(password)}
        elif _SECRET_VARIABLES.search(name) and not _PLACES.search(name):
            found.add(value)
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)
