"""What a model knows of its data set: words, classes, and how layouts are distributed.

Made by `prepare` from the training split alone, and carried by every checkpoint and model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from objgan.errors import InputError
from objgan.files import read_json, write_atomically
from objgan.vocabulary import Vocabulary


@dataclass(frozen=True)
class LayoutStatistics:
    """Of the training split's non-crowd objects, at most `max_objects` an image, the largest first.

    mean, std:      of (x, y, w, r): centre x and y, width (fractions), and ratio height / width
    class_counts:   objects of each class
    object_counts:  images with 0, 1, ... max_objects objects
    class_caps:     per class, the 99th percentile of its count in images that have it, at least 2
    images:         images counted
    """

    mean: tuple[float, float, float, float]
    std: tuple[float, float, float, float]
    class_counts: tuple[int, ...]
    object_counts: tuple[int, ...]
    class_caps: tuple[int, ...]
    images: int


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
        classes = read_json(folder / "classes.json", "class list")
        values = read_json(folder / "layout_statistics.json", "layout statistics")
        try:
            known: dict[str, Any] = {f.name: _tuple(values[f.name]) for f in fields(LayoutStatistics)}
        except (KeyError, TypeError) as error:
            raise InputError(f"layout statistics: {folder} lacks {error}; prepare the data again") from None
        told = folder / "synonyms.json"
        synonyms = read_json(told, "synonyms") if told.exists() else {}
        return cls(Vocabulary.load(folder), tuple(classes), LayoutStatistics(**known), synonyms)


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
