"""A picture whose layout can be edited in Python.

```
model = objgan.load("runs/assemble/model")
picture = model("two red kites above a boat")
picture.layout.objects[0].move(0.1, 0)
picture.layout.add("boat", (0.2, 0.6, 0.6, 0.3))
model.redraw(picture).save(Path("kites.png"))
```
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from objgan.errors import InputError, unknown
from objgan.files import write_atomically
from objgan.layout_file import GivenLayout, LayoutRules, check_box, parse_layout


class PictureObject:
    """An object of a layout. What is set is checked at once; a shape follows its box."""

    def __init__(self, label: str, box: Sequence[float], rules: LayoutRules, more: Mapping[str, Any]) -> None:
        """`more`: what else a layout file has of it."""
        self._rules, self._more = rules, dict(more)
        self.label, self.box = label, box

    @property
    def label(self) -> str:
        """Name of its class.

        Raises (when it is set):
            InputError: no class of the model has this name.
        """
        return self._label

    @label.setter
    def label(self, label: str) -> None:
        if label not in self._rules.classes:
            raise unknown("label", label, self._rules.classes)
        self._label = label

    @property
    def box(self) -> Sequence[float]:
        """(x, y, w, h), fractions of the image side from the top-left corner.

        Raises (when it is set):
            InputError: not four numbers, without area, or outside the image.
        """
        return self._box

    @box.setter
    def box(self, box: Sequence[float]) -> None:
        self._box: Sequence[float] = tuple(check_box(np.asarray(box).tolist(), f"box of {self._label}"))

    def move(self, across: float, down: float) -> None:
        """Move the box to the right and down, by fractions of the image side.

        Raises:
            InputError: it would leave the image.
        """
        x, y, w, h = self.box
        self.box = (x + across, y + down, w, h)

    def forget_shape(self) -> None:
        """Let the model draw a new shape in the box."""
        self._more.pop("mask", None)

    def to_dict(self) -> dict[str, Any]:
        """The entry of a layout file."""
        return {"label": self.label, "box": list(self.box), **self._more}

    def __repr__(self) -> str:
        return f"{self.label} at ({', '.join(f'{value:.3g}' for value in self.box)})"


class PictureLayout:
    """The objects of a picture, and what its noise is drawn from; as in a layout file (see `objgan.layout_file`)."""

    def __init__(self, content: Mapping[str, Any], rules: LayoutRules) -> None:
        """`content`: what `to_dict` returns, or the JSON of a layout file.

        Raises:
            InputError: as `read_layout`.
        """
        parse_layout(json.dumps(content), rules)
        self._rules = rules
        self._head = {key: value for key, value in content.items() if key != "objects"}
        self.objects = [
            PictureObject(entry["label"], entry["box"], rules, {k: entry[k] for k in ("place", "mask") if k in entry})
            for entry in content["objects"]
        ]

    def add(self, label: str, box: Sequence[float]) -> PictureObject:
        """A new object; the model draws its shape.

        Raises:
            InputError: an unknown label, a wrong box, or more objects than the model takes.
        """
        if len(self.objects) >= self._rules.max_objects:
            raise InputError(f"this model takes at most {self._rules.max_objects} objects: remove one first")
        self.objects.append(PictureObject(label, box, self._rules, {}))
        return self.objects[-1]

    def remove(self, entry: PictureObject) -> None:
        """Take one of `objects` out.

        Raises:
            ValueError: it is none of them.
        """
        self.objects.remove(entry)

    def to_dict(self) -> dict[str, Any]:
        """The content of a layout file."""
        return {**self._head, "objects": [entry.to_dict() for entry in self.objects]}

    def given(self, rules: LayoutRules) -> GivenLayout:
        """What `ObjGAN.generate` takes, by the rules of its model.

        Raises:
            InputError: as `read_layout`.
        """
        return parse_layout(json.dumps(self.to_dict()), rules)


@dataclass
class Picture:
    """An image with its caption and layout; both can be edited, `ObjGAN.redraw` then makes the new image.

    image: uint8 [S, S, 3]
    facts: what the caption states, in words, and whether the layout keeps it
    unknown_words: of the caption, which the model does not know
    """

    caption: str
    layout: PictureLayout
    image: np.ndarray
    facts: tuple[tuple[str, bool], ...]
    unknown_words: tuple[str, ...]

    def save(self, path: Path | str) -> None:
        """Write the image as PNG, and the layout beside it as `.json`, which `generate --layout` reads."""
        path, content = Path(path), self.layout.to_dict() | {"caption": self.caption}
        write_atomically(path, self._repr_png_())
        write_atomically(path.with_suffix(".json"), json.dumps(content, ensure_ascii=False) + "\n")

    def _repr_png_(self) -> bytes:
        """How notebooks show it."""
        return png(self.image)


def png(image: np.ndarray | Image.Image) -> bytes:
    """The PNG file of an image, uint8 [S, S, 3]; the same bytes for the same pixels: no date, no name."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, "PNG")
    return buffer.getvalue()
