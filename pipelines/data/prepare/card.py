"""The data set's card: `README.md` of a prepared folder, for people, and for Hugging Face's `datasets`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from objgan.errors import InputError
from pipelines.data.shards.concerns import concerns, doubts, marks
from pipelines.data.shards.format import SCHEMA
from pipelines.data.shards.manifest import CARD, MANIFEST, SPLITS
from pipelines.runtime.markdown import escaped, unescaped

_MOST_LICENCES = 20
_UNKNOWN = "not named at the beginning of the instances JSON"
_SOURCE, _MOST_LINES = "Source and licence", 50
_ORIGIN = "Written by `python -m pipelines prepare`; one row per image."


def card(manifest: Mapping[str, Any], headers: Sequence[Mapping[str, Any]]) -> str:
    """The text of the card.

    headers: `info` and `licenses` of each instances JSON, as far as it has them (see `json_stream.header`)
    """
    counts, rejected, classes = manifest["counts"], manifest["rejected"], manifest["classes"]
    numbers = ", ".join(f"{counts[name]} {name}" for name in ("captions", "objects", "masks", "crowds"))
    sections: dict[str, Iterable[str]] = {
        _SOURCE: dict.fromkeys(line for header in headers for line in _source(header)),
        "Contents": [
            "| split | images |",
            "| --- | --- |",
            *(f"| {split} | {manifest['rows'][split]} |" for split in SPLITS),
            f"\n{numbers}; split by {manifest['split']}.",
            f"\n{len(classes)} classes: {escaped(', '.join(classes))}.",
        ],
        "Rejected": [
            f"{rejected['rows']} records, listed in `{rejected['file']}`.\n",
            *(f"- {number} {escaped(reason)}" for reason, number in rejected["reasons"].items()),
        ],
        "Not from annotations": _list(marks(manifest)),
        "Warnings": _list([*concerns(manifest), *doubts(manifest)]),
    }
    front = yaml.safe_dump({"configs": [_config(manifest)]}, sort_keys=False, width=1000, allow_unicode=True)
    start = f"---\n{front}---\n\n# Prepared data set\n\n{_ORIGIN}"
    texts = (f"## {title}\n\n" + "\n".join(lines).rstrip() for title, lines in sections.items())
    return "\n\n".join([start, *texts, f"All numbers, settings and digests: `{MANIFEST}`.\n"])


def source_lines(folder: Path) -> list[str]:
    """Source and licence of a prepared folder: the first lines of that section of its card, without Markdown.

    Somebody may have edited the card, for example to add a licence.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    _, _, rest = text.partition(f"\n## {_SOURCE}\n")
    lines = rest.partition("\n## ")[0].splitlines()
    found = [unescaped(line.removeprefix("- ")).strip() for line in lines if line.strip()]
    return found[:_MOST_LINES]


def check_card(path: Path) -> None:
    """Check that no other text is lost when the card is written to `path`.

    Raises:
        InputError: the file there is no card.
    """
    if path.exists() and _ORIGIN.encode() not in path.read_bytes():
        raise InputError(f"prepare: {path} is not the card that prepare writes: move it, or give another --out")


def _config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Files and columns, as a card on Hugging Face's Hub names them."""
    files = [{"split": split, "path": f"{split}-*.{manifest['format']}"} for split in SPLITS]
    features = [_feature(field, manifest["classes"]) for field in SCHEMA]
    return {"config_name": "default", "data_files": files, "features": features}


def _feature(field: pa.Field, classes: Sequence[str]) -> dict[str, Any]:
    many = pa.types.is_list(field.type)
    kind = str(field.type.value_type if many else field.type)
    value: Any = {"float": "float32"}.get(kind, kind)
    if field.name == "labels":
        value = {"class_label": {"names": {str(label): name for label, name in enumerate(classes)}}}
    if field.name == "image":
        value = "image"
    return {"name": field.name, "sequence" if many else "dtype": value}


def _source(header: Mapping[str, Any]) -> Iterator[str]:
    info, licences = header.get("info"), header.get("licenses")
    names = ("description", "url", "version", "year", "contributor")
    known = {name: info[name] for name in names if info.get(name)} if isinstance(info, dict) else {}
    yield from (f"- {name}: {escaped(value)}" for name, value in (known or {"source": _UNKNOWN}).items())
    named = [each for each in licences if isinstance(each, dict)] if isinstance(licences, list) else []
    for licence in named[:_MOST_LICENCES]:
        yield f"- licence: {escaped(licence.get('name') or 'unnamed')} {escaped(licence.get('url') or '')}".rstrip()
    if not named:
        yield f"- licence: {_UNKNOWN}"
    if len(named) > _MOST_LICENCES:
        yield f"- and {len(named) - _MOST_LICENCES} more licences"


def _list(texts: Iterable[str]) -> list[str]:
    return [f"- {escaped(text)}" for text in texts] or ["None."]
