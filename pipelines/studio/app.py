"""What answers the page of `studio`: its three files, and a model behind three addresses.

```
GET  /api/model                                   what the page has to know of the model
POST /api/check {caption, layout}                 unknown words, and the facts that the layout keeps
POST /api/draw  {caption, layout, seed, sample}   lines of JSON: {"state": "waiting" | "drawing" | "done" | "failed"}
```
It keeps nothing of a request: captions, layouts and pictures are in the page. `layout` is the text of a layout file.
"""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from objgan.drawing import css_colour, name_colours
from objgan.errors import InputError, shown, unknown
from objgan.generation import ObjGAN
from objgan.json_input import JsonFault, JsonLimits, parse_json
from objgan.layout_file import GivenLayout, parse_layout
from objgan.picture import png
from pipelines.studio.guard import Guard

logger = logging.getLogger(__name__)
_LIMITS = JsonLimits(bytes=4 << 20, values=200_000)
"""Of a request. A mask of 256 x 256 pixels takes some kilobytes."""
_MOST_WAITING = 16
_MOST_NUMBER = 2**53 - 1
"""Scripts of a page have no larger whole numbers."""
_PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}


class _TooLarge(InputError):
    """A request with too many bytes."""


@dataclass(frozen=True)
class DrawRequest:
    """What a page asks for.

    layout: text of a layout file, which has seed and sample of its own; None: the model makes one
    """

    caption: str = ""
    layout: str | None = None
    seed: int = 0
    sample: int = 0

    @classmethod
    def read(cls, body: bytes) -> Self:
        """A request from its JSON.

        Raises:
            InputError: no JSON, over the limits, an unknown key, or a value of the wrong kind.
        """
        try:
            content = parse_json(body, _LIMITS)
        except JsonFault as fault:
            raise InputError(f"request {fault}") from None
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict):
            raise InputError(f"request must be an object with {', '.join(names)}")
        for name in content:
            if name not in names:
                raise unknown("key", name, names, "request: ")
        asked = cls(**content)
        if not isinstance(asked.caption, str):
            raise InputError(f"caption must be a text, got {shown(asked.caption)}")
        if not isinstance(asked.layout, str | None):
            raise InputError(f"layout must be a text, the JSON of a layout file, got {shown(asked.layout)}")
        _check_number("seed", asked.seed)
        _check_number("sample", asked.sample)
        return asked

    def given(self, model: ObjGAN) -> GivenLayout | None:
        """Its layout.

        Raises:
            InputError: as `parse_layout`, or the page cannot show its seed.
        """
        if self.layout is None:
            return None
        given = parse_layout(self.layout, model.rules)
        _check_number("layout: seed", given.seed or 0)
        _check_number("layout: sample", given.sample)
        return given


def _check_number(what: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= _MOST_NUMBER:
        raise InputError(f"{what} must be a whole number from 0 to {_MOST_NUMBER}, got {shown(value)}")


class PictureService:
    """One model, which draws one picture at a time, in the order in which they were asked for."""

    def __init__(self, model: ObjGAN, name: str) -> None:
        """`name` of the model, as the page shows it."""
        self.model, self.name = model, name
        self._turn = asyncio.Lock()
        self._asked = 0

    @property
    def is_full(self) -> bool:
        """Whether too many pictures are asked for already."""
        return self._asked >= _MOST_WAITING

    def facts(self) -> dict[str, Any]:
        """What the page has to know of the model."""
        colours = name_colours(self.model.domain.classes)
        return {
            "name": self.name,
            "classes": {name: css_colour(colours[name]) for name in self.model.domain.classes},
            "most_objects": self.model.config.data.max_objects,
        }

    def check(self, asked: DrawRequest) -> dict[str, Any]:
        """What can be said of a request without a picture.

        Raises:
            InputError: as `ObjGAN.read_caption` and `DrawRequest.given`.
        """
        words, given = self.model.read_caption(asked.caption), asked.given(self.model)
        facts = () if given is None else self.model.facts(words, given.layout)
        return {
            "unknown_words": words.unknown,
            "cut_words": words.cut,
            "facts": [fact._asdict() for fact in facts],
        }

    async def draw(self, asked: DrawRequest) -> AsyncIterator[str]:
        """A line of JSON for each thing that happens, the picture last."""
        ahead, self._asked = self._asked, self._asked + 1
        try:
            if ahead:
                yield _line(state="waiting", ahead=ahead)
            async with self._turn:
                yield _line(state="drawing")
                # Not interrupted where the page is closed: the next picture waits for it.
                yield await run_in_threadpool(self._picture, asked)
        finally:
            self._asked -= 1

    def _picture(self, asked: DrawRequest) -> str:
        try:
            given = asked.given(self.model)
            number, seed = (asked.sample, asked.seed) if given is None else (0, None)
            (made,) = self.model.generate([asked.caption], n=[number], seed=seed, layouts=[given])
        except InputError as error:
            return _line(state="failed", error=str(error))
        except Exception as error:  # whatever a library raises, the page has to know that there is no picture
            logger.warning(f"a picture failed: {type(error).__name__}: {error}")
            return _line(state="failed", error="the picture failed; the terminal of `studio` says why")
        layout = made.layout_json(self.model.domain.classes)
        return _line(state="done", png=base64.b64encode(png(made.image)).decode(), layout=layout)


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"


def build_app(service: PictureService, host: str) -> Guard:
    """The web application; `host` is the name or address that it is reached by, beside those of this machine."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)  # whose pages would load scripts from elsewhere

    @app.exception_handler(InputError)
    async def _refuse(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, _TooLarge) else 400)

    for address, name in _PAGE.items():
        app.get(address)(_file(name))

    @app.get("/api/model")
    async def _model() -> dict[str, Any]:
        return service.facts()

    @app.post("/api/check")
    async def _check(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(service.check, await _read(request))

    @app.post("/api/draw")
    async def _draw(request: Request) -> Response:
        asked = await _read(request)
        await run_in_threadpool(service.check, asked)
        if service.is_full:
            return JSONResponse({"error": f"{_MOST_WAITING} pictures are waiting already: try again later"}, 503)
        return StreamingResponse(service.draw(asked), media_type="application/x-ndjson")

    return Guard(app, host)


def _file(name: str) -> Any:
    async def send() -> FileResponse:
        return FileResponse(Path(__file__).parent / name)

    return send


async def _read(request: Request) -> DrawRequest:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LIMITS.bytes:
            raise _TooLarge(f"request has more than {_LIMITS.bytes >> 20} MiB")
    return DrawRequest.read(bytes(body))
