"""Rows of captions and layouts -> rows of pictures: what a registered model takes and gives, as plain Python values.

Every row stands for itself: its pictures do not depend on the other rows, and an error in it costs no other row.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

from objgan.errors import InputError, shown, unknown
from objgan.generation import Generated, ObjGAN
from objgan.layout_file import GivenLayout, parse_layout
from objgan.picture import png

INPUTS = ("caption", "layout", "id")
OUTPUTS = ("id", "row", "sample", "seed", "caption", "image_png", "layout", "unknown_words", "facts", "error")
MOST_SAMPLES = 64
"""Of one row."""
_MOST_SEED = 2**63 - 1
_CHOICES = {"steps": ("layout", "image"), "on_error": ("raise", "row")}


@dataclass(frozen=True)
class Params:
    """How to answer.

    n:        pictures of each row, 1 to 64
    seed:     of the noise; None: the row's layout's, or else 0
    steps:    "layout": only layouts; "image": images, too
    on_error: "raise": nothing is generated if any row has an error; "row": such a row has `error` in its place
    """

    n: int = 1
    seed: int | None = None
    steps: str = "image"
    on_error: str = "raise"

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Values by their names.

        Raises:
            InputError: an unknown name, or a value that is not allowed.
        """
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("param", name, names)
        params = cls(**given)
        if type(params.n) is not int or not 1 <= params.n <= MOST_SAMPLES:
            raise InputError(f"param n must be a whole number from 1 to {MOST_SAMPLES}, got {shown(params.n)}")
        if params.seed is not None and (type(params.seed) is not int or abs(params.seed) > _MOST_SEED):
            raise InputError(f"param seed must be a whole number of 64 bits, or left out, got {shown(params.seed)}")
        for name, choices in _CHOICES.items():
            if getattr(params, name) not in choices:
                raise unknown(f"value of param {name}", getattr(params, name), choices)
        return params


class _Row(NamedTuple):
    number: int
    id: str | int | None
    caption: str
    layout: GivenLayout | None


def answer(model: ObjGAN, rows: Sequence[Mapping[str, Any]], params: Params) -> Iterator[dict[str, Any]]:
    """The rows' pictures, in order: a dictionary of `OUTPUTS` for each.

    rows: values by the names in `INPUTS`; `caption` is a text, `layout` the text of a layout file or None, `id` a text,
          a whole number or None

    `image_png` is base64; `layout`, `unknown_words` and `facts` are JSON. What a row does not have is None.

    Raises:
        InputError: a row has an error, where `params.on_error` is "raise".
    """
    checked = [_read(model, number, row) for number, row in enumerate(rows)]
    if params.on_error == "raise":
        _refuse([(number, row) for number, row in enumerate(checked) if isinstance(row, InputError)])
    for number, row in enumerate(checked):
        if isinstance(row, InputError):
            caption = rows[number].get("caption")
            known = {"id": _plain_id(rows[number].get("id")), "caption": caption if isinstance(caption, str) else None}
            yield dict.fromkeys(OUTPUTS) | known | {"row": number, "error": str(row)}
        else:
            images = params.steps == "image"
            made = model.generate([row.caption], n=params.n, seed=params.seed, layouts=[row.layout], images=images)
            yield from (_answer(model, row, picture) for picture in made)


def _read(model: ObjGAN, number: int, row: Mapping[str, Any]) -> _Row | InputError:
    """A row, checked; what is wrong with it otherwise."""
    caption, layout, name = (row.get(key) for key in INPUTS)
    try:
        if caption is None:
            raise InputError("caption is missing: give a text")
        if not isinstance(caption, str):
            raise InputError(f"caption must be a text, got {_kind(caption)}")
        if layout is not None and not isinstance(layout, str):
            raise InputError(f"layout must be a text, the JSON of a layout file, got {_kind(layout)}")
        if name is not None and _plain_id(name) is None:
            raise InputError(f"id must be a text or a whole number, got {_kind(name)}")
        model.read_caption(caption)
        return _Row(number, _plain_id(name), caption, None if layout is None else parse_layout(layout, model.rules))
    except InputError as error:
        return error


def _refuse(wrong: Sequence[tuple[int, InputError]]) -> None:
    if wrong:
        number, error = wrong[0]
        more = f'; so do {len(wrong) - 1} more rows: param on_error "row" gives each its error' if wrong[1:] else ""
        raise InputError(f"row {number} has an error: {error}{more}")


def _answer(model: ObjGAN, row: _Row, picture: Generated) -> dict[str, Any]:
    facts = [fact._asdict() for fact in picture.facts]
    values = (
        *(row.id, row.number, picture.index, picture.seed, picture.caption),
        base64.b64encode(png(picture.image)).decode() if picture.scales else None,
        picture.layout_json(model.domain.classes),
        json.dumps(picture.words.unknown, ensure_ascii=False),
        json.dumps(facts, ensure_ascii=False),
        None,
    )
    return dict(zip(OUTPUTS, values, strict=True))


def _plain_id(value: object) -> str | int | None:
    """A text or a whole number; None for all else. Tables write whole numbers as 1.0 beside a missing one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str) or type(value) is int else None


def _kind(value: object) -> str:
    return f"{shown(value)} ({type(value).__name__})"
