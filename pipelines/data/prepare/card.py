"""The data set's card: `README.md` of a prepared folder, for people, and for Hugging Face's `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from objgan.errors import shown
from objgan.vocabulary import normalise
from pipelines.data.shards.concerns import concerns, doubts, marks
from pipelines.data.shards.format import SCHEMA
from pipelines.data.shards.manifest import MANIFEST, SPLITS

_LONGEST = 300


def card(manifest: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """The text of the card.

    header: `info` and `licenses` of the instances JSON, as far as it has them; shown as they are, and shortened
    """
    ending, counts = manifest["format"], manifest["counts"]
    files = [{"split": split, "path": f"{split}-*.{ending}"} for split in SPLITS]
    features = [_feature(field, manifest["classes"]) for field in SCHEMA]
    config = {"config_name": "default", "data_files": files, "features": features}
    lines = ["---", yaml.safe_dump({"configs": [config]}, sort_keys=False, width=1000).rstrip(), "---", ""]
    lines += ["# Prepared data set", "", "Written by `python -m pipelines prepare`; one row per image."]
    lines += ["", "## Source and licence", "", *_source(header)]
    lines += [f"- sha256 or kind of {name}: `{value}`" for name, value in sorted(manifest["source"].items())]
    lines += ["", "## Contents", "", "| split | images |", "| --- | --- |"]
    lines += [f"| {split} | {manifest['rows'][split]} |" for split in SPLITS]
    numbers = ", ".join(f"{counts[name]} {name}" for name in ("captions", "objects", "masks", "crowds"))
    lines += ["", f"{numbers}; split by {manifest['split']}.", "", f"Classes: {_text(', '.join(manifest['classes']))}."]
    lines += [
        "",
        "## Rejected",
        "",
        f"{manifest['rejected']['rows']} records, each in `{manifest['rejected']['file']}`.",
    ]
    lines += [f"- {number} {_text(reason)}" for reason, number in manifest["rejected"]["reasons"].items()]
    lines += ["", "## Not annotations", "", *_list(marks(manifest))]
    lines += ["", "## Warnings", "", *_list([*concerns(manifest), *doubts(manifest)])]
    return "\n".join([*lines, "", f"All numbers, settings and digests: `{MANIFEST}`.", ""])


def _feature(field: pa.Field, classes: Sequence[str]) -> dict[str, Any]:
    """A column as the card of a data set on Hugging Face describes it."""
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    value: Any = {"float": "float32"}.get(str(kind), str(kind))
    if field.name == "labels":
        value = {"class_label": {"names": {str(label): name for label, name in enumerate(classes)}}}
    if pa.types.is_list(field.type):
        return {"name": field.name, "sequence": value}
    return {"name": field.name, "dtype": "image" if field.name == "image" else value}


def _source(header: Mapping[str, Any]) -> Iterator[str]:
    info, licences = header.get("info"), header.get("licenses")
    known = info if isinstance(info, dict) else {}
    for name in ("description", "url", "version", "year", "contributor"):
        if known.get(name):
            yield f"- {name}: {_text(known[name])}"
    named = [licence for licence in licences if isinstance(licence, dict)] if isinstance(licences, list) else []
    for licence in named[:20]:
        yield f"- licence: {_text(licence.get('name') or 'unnamed')} {_text(licence.get('url') or '')}".rstrip()
    if not named:
        yield "- licence: the JSON names none; see its source"


def _list(texts: Any) -> list[str]:
    return [f"- {_text(text)}" for text in texts] or ["None."]


def _text(value: object) -> str:
    """A value of somebody else's JSON on one short line that Markdown does not interpret."""
    text = normalise(value if isinstance(value, str) else shown(value))
    text = "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
