"""The schema of a manifest, which is checked as a whole before any part of it is used, above all as a path.

A manifest may come from a bucket that others write to. Its names become files of this machine, its sha256 values
become names in the cache, and its sizes are reserved on disk.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from objgan.errors import InputError, shown
from objgan.files import SHA256
from objgan.sections import DataConfig

MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
FORMATS = ("arrow", "parquet")
CARD = "README.md"
"""For people, who may edit it: no part of the manifest."""
REJECTED = "rejected.jsonl"
TEXT_IDS = "text_ids.jsonl"
DOMAIN = frozenset({"vocabulary.json", "vectors.safetensors", "classes.json", "layout_statistics.json"})
SYNONYMS = "synonyms.json"
ACCOUNTS = (("image", "images"), ("caption", "captions"), ("annotation", "objects"))
"""Kind of an input record, and the name of its count in shards."""
COUNTS = ("images", "captions", "objects", "masks", "crowds", "colours", "scenes")
CONTRADICTIONS = ("boxes", "masks", "areas", "outside", "oversized", "tiny", "cut")
"""Three totals, then counts of contradictions (see `pipelines.data.shards.concerns`)."""
SHARD = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5,9}}\.({'|'.join(FORMATS)})")
INDEX = re.compile(rf"_index-({'|'.join(SPLITS)})\.arrow")
MOST_BYTES = 1 << 40
"""Largest file."""
_MOST = 10**15


def is_sha256(text: object) -> bool:
    """Whether it is a sha256 as `objgan.files.sha256` writes it: 64 hexadecimal digits, letters in lower case."""
    return isinstance(text, str) and SHA256.fullmatch(text) is not None


def _sum(text: str) -> str:
    if not is_sha256(text):
        raise ValueError("a sha256 has 64 hexadecimal digits, letters in lower case")
    return text


def _domain_files(files: dict[str, str]) -> dict[str, str]:
    if not DOMAIN <= files.keys() <= DOMAIN | {SYNONYMS}:
        raise ValueError(f"its files are {', '.join(sorted(DOMAIN))} and optionally {SYNONYMS}")
    return files


def _all_contradictions(counts: dict[str, int]) -> dict[str, int]:
    if counts.keys() != set(CONTRADICTIONS):
        raise ValueError(f"it has one number for each of {', '.join(CONTRADICTIONS)}")
    return counts


def _one_a_split(rows: dict[str, int]) -> dict[str, int]:
    if rows.keys() != set(SPLITS):
        raise ValueError(f"it has one number for each of {', '.join(SPLITS)}")
    return rows


LONGEST_NAME = 300
Text = Annotated[str, Field(max_length=LONGEST_NAME)]
Sum = Annotated[str, AfterValidator(_sum)]
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Counts = Annotated[dict[Text, Count], Field(max_length=1000)]
Reasons = Annotated[dict[Annotated[str, Field(max_length=2000)], Count], Field(max_length=100_000)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _File(_Facts):
    """A shard or an index."""

    name: str
    split: Literal["train", "validation", "test"]
    rows: Count
    bytes: int = Field(ge=1, le=MOST_BYTES)
    sha256: Sum
    inputs: Sum | Literal[""] = ""
    contradictions: Counts = Field(default_factory=dict)


class _Columns(_Facts):
    image: StrictBool
    boxes: StrictBool
    masks: StrictBool
    attributes: StrictBool


class _Rejected(_Facts):
    file: Literal["rejected.jsonl"]
    bytes: int = Field(ge=0, le=MOST_BYTES)
    sha256: Sum
    rows: Count
    kinds: Counts
    reasons: Reasons


class _TextIds(_Facts):
    """Ids that were texts, one a line, with the numbers in their place."""

    file: Literal["text_ids.jsonl"]
    bytes: int = Field(ge=1, le=MOST_BYTES)
    sha256: Sum
    rows: int = Field(ge=1, le=_MOST)


class _Vectors(_Facts):
    source: Literal["captions", "pipeline", "wordllama"]
    sha256: Sum | None
    channels: int = Field(ge=1, le=100_000)
    words: Count | None = None
    found: Count | None = None
    derived: Count | None = None


class _Coverage(_Facts):
    words: Count
    known: Count
    reason: Text


class _Manifest(_Facts):
    """The whole manifest. Add new fields of `prepare` here."""

    schema_version: int
    code_version: Text
    digest: Sum
    settings: DataConfig
    columns: _Columns
    rows: Annotated[dict[Text, Count], AfterValidator(_one_a_split)]
    totals: Counts
    counts: Counts
    rejected: _Rejected
    text_ids: _TextIds | None
    contradictions: Annotated[dict[Text, Count], AfterValidator(_all_contradictions)]
    classes: list[Text] = Field(min_length=1, max_length=100_000)
    vectors: _Vectors
    coverage: _Coverage
    domain: Annotated[dict[Text, Sum], AfterValidator(_domain_files)]
    shards: list[_File] = Field(min_length=1, max_length=1_000_000)
    indices: list[_File] = Field(max_length=len(SPLITS))
    source: dict[Text, Text] = Field(max_length=100)
    split: Literal["hash", "coco", "ids"]
    format: Literal["arrow", "parquet"]


def validate_manifest(content: Mapping[str, Any], where: str) -> None:
    """Check that a manifest of this schema version has the fields that `prepare` writes, and no others.

    where: its location, for messages

    Raises:
        InputError: it does not; the first fault is named.
    """
    try:
        manifest = _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        value = "" if isinstance(first["input"], dict | list) else f", got {shown(first['input'])}"
        raise _damaged(where, f"{shown(place)[1:-1]}: {first['msg'].removeprefix('Value error, ')}{value}") from None
    for kind, files, pattern in (("shards", manifest.shards, SHARD), ("indices", manifest.indices, INDEX)):
        _check_names(where, kind, files, pattern)


def _check_names(where: str, kind: str, files: Iterable[_File], pattern: re.Pattern[str]) -> None:
    known: set[str] = set()
    for file in files:
        match = pattern.fullmatch(file.name)
        if match is None or match[1] != file.split:
            raise _damaged(where, f"{kind}: {shown(file.name)} is not a file name of split {file.split}")
        if file.name in known:
            raise _damaged(where, f"{kind}: {file.name} is listed twice")
        known.add(file.name)


def _damaged(where: str, fault: str) -> InputError:
    return InputError(f"data: {where}/{MANIFEST} is damaged ({fault}); copy it again, or prepare again")
