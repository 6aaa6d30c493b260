"""What a model knows of its data set: words, classes, and how layouts are distributed.

Made by `prepare` from the training split alone, and carried by every checkpoint and model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from objgan.errors import InputError
from objgan.files import read_json, write_atomically
from objgan.vocabulary import Vocabulary

Form = TypeVar("Form")
DOMAIN_FILES = r"vocabulary\.json|vectors\.safetensors|classes\.json|layout_statistics\.json|synonyms\.json"
"""Names of the files that `Domain.save` writes."""
_Name = Annotated[str, Field(strict=True, min_length=1, max_length=300)]
_Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
_Counts = Annotated[tuple[_Count, ...], Field(max_length=100_000)]
_Share = Annotated[float, Field(strict=True, ge=0, le=1)]
_Number = Annotated[float, Field(strict=True, ge=-1e6, le=1e6, allow_inf_nan=False)]


@dataclass(frozen=True)
class LayoutStatistics:
    """Of the training split's non-crowd objects, at most `max_objects` an image, the largest first.

    mean, std:      of (x, y, w, r): centre x and y, width (fractions), and ratio height / width
    class_counts:   objects of each class
    object_counts:  images with 0, 1, ... max_objects objects
    class_caps:     per class, the 99th percentile of its count in images that have it, at least 2
    images:         images counted
    overlaps:       the 95th percentile of how much two objects of an image overlap, of one class and of different
                    classes: intersection over the smaller area (`geometry.overlap`)
    """

    mean: tuple[_Number, _Number, _Number, _Number]
    std: tuple[_Number, _Number, _Number, _Number]
    class_counts: _Counts
    object_counts: _Counts
    class_caps: _Counts
    images: _Count
    overlaps: tuple[_Share, _Share] = (1.0, 1.0)


_CLASSES = TypeAdapter(Annotated[tuple[_Name, ...], Field(min_length=1, max_length=100_000)])
_STATISTICS = TypeAdapter(LayoutStatistics)
_SYNONYMS: TypeAdapter[dict[str, list[str]]] = TypeAdapter(dict[_Name, Annotated[list[_Name], Field(max_length=1000)]])


@dataclass(frozen=True)
class Domain:
    """Vocabulary, class names (index = label), layout statistics; class -> words by which captions name it, too."""

    vocabulary: Vocabulary
    classes: tuple[str, ...]
    statistics: LayoutStatistics
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write vocabulary, vectors, `classes.json`, `layout_statistics.json` and, if any, `synonyms.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.vocabulary.save(folder)
        write_atomically(folder / "classes.json", json.dumps(list(self.classes), indent=1) + "\n")
        write_atomically(folder / "layout_statistics.json", json.dumps(asdict(self.statistics), indent=1) + "\n")
        if self.synonyms:
            write_atomically(folder / "synonyms.json", json.dumps(self.synonyms, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing or not what `save` writes.
        """
        classes = _read(folder / "classes.json", _CLASSES, "class list")
        statistics = _read(folder / "layout_statistics.json", _STATISTICS, "layout statistics")
        if not len(classes) == len(statistics.class_counts) == len(statistics.class_caps):
            raise InputError(
                f"layout statistics: {folder} has {len(classes)} classes, statistics of {len(statistics.class_counts)} "
                f"and caps of {len(statistics.class_caps)}; prepare the data again"
            )
        path = folder / "synonyms.json"
        synonyms = _read(path, _SYNONYMS, "synonyms") if path.exists() else {}
        return cls(Vocabulary.load(folder), classes, statistics, synonyms)


def _read(path: Path, form: TypeAdapter[Form], what: str) -> Form:
    content = read_json(path, what)
    try:
        return form.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f" {part}" for part in first["loc"])
        raise InputError(f"{what}: {path}:{place[:80]}: {first['msg']}; prepare the data again") from None
