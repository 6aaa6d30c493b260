"""Captions -> images, layouts and pictures of how they came about, in a folder."""

import contextlib
import logging
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from objgan.drawing import draw_boxes, draw_masks, enlarge, grid
from objgan.errors import InputError, shown
from objgan.files import write_atomically
from objgan.generation import Generated, ObjGAN
from objgan.layout_file import read_layout
from objgan.mlflow_model import MLFLOW_URI, download
from objgan.model_folder import only_model
from objgan.picture import png
from pipelines.models.registry import mlflow_at
from pipelines.redaction import place_of, redact
from pipelines.storage.fetching import at_hand

logger = logging.getLogger(__name__)
PICTURE_SIDE = 256
_SHEET_SIDE, _SHEET_SAMPLES, _SHEET_WIDE = 160, 60, 6
_SLUG_LENGTH = 48
_LISTED_WORDS = 20

Judged = Callable[[ObjGAN], Callable[[Generated], str]]
"""For a model, a function that says what a judge sees in a picture."""


@dataclass(frozen=True)
class GenerateJob:
    """What to generate, as data.

    model:        a model's folder or its URI, `runs:/RUN/...` or `models:/NAME@ALIAS`
    captions:     texts; may be empty where `layout` has a caption of its own
    seed:         of the noise; None: that of `layout`, or else 0
    layout:       layout file that every caption is drawn with
    tracking_uri: where `runs:/` and `models:/` are looked up
    """

    model: Path | str
    captions: tuple[str, ...]
    out: Path
    n: int = 1
    seed: int | None = None
    layout: Path | None = None
    tracking_uri: str = ""


def generate(job: GenerateJob, judged: Judged | None = None) -> list[Path]:
    """Write NAME.png, NAME.json and NAME_steps.png for every sample, and contact_sheet.png for several.

    The same job gives the same bytes. Returns the files, images first, the contact sheet last.

    judged: the contact sheet and the log say what a judge sees

    Raises:
        InputError: unknown model, wrong layout file, no caption, a caption without known words, n under 1.
    """
    if job.n < 1:
        raise InputError(f"n must be at least 1, got {job.n}")
    with local_model(job.model, job.tracking_uri) as folder:
        model = ObjGAN.load(folder)
    describe = judged(model) if judged is not None else None
    given = read_layout(job.layout, model.rules) if job.layout is not None else None
    captions = job.captions or ((given.caption,) if given is not None and given.caption else ())
    if not captions:
        raise InputError("nothing to generate: give a caption, --captions FILE, or a --layout with a caption")
    made = model.generate(captions, n=job.n, seed=job.seed, layouts=None if given is None else [given] * len(captions))
    images, others = [], []
    for name, one in zip(sample_names(made), made, strict=True):
        images.append(job.out / f"{name}.png")
        others += [job.out / f"{name}.json", job.out / f"{name}_steps.png"]
        write_atomically(images[-1], png(one.image))
        write_atomically(others[-2], one.layout_json(model.domain.classes))
        write_atomically(others[-1], png(steps(one)))
    for one in {one.caption: one for one in made}.values():
        for line in unused_words(one):
            logger.info(line)
    for one in made:
        broken = [fact.fact for fact in one.facts if not fact.kept]
        if broken:
            where = f"caption {shown(one.caption)}, sample {one.index}"
            logger.info(f"{where}: the layout does not keep: {', '.join(broken)}")
    seen = None if describe is None else [describe(one) for one in made]
    for one, text in zip(made, seen or (), strict=False):
        logger.info(f"caption {shown(one.caption)}, sample {one.index}: the judge sees {text}")
    if len(made) > 1:
        others.append(job.out / "contact_sheet.png")
        write_atomically(others[-1], png(contact_sheet(made, seen)))
    logger.info(f"{len(made)} image{'s' if len(made) > 1 else ''} in {job.out}")
    return images + others


def unused_words(one: Generated) -> Iterator[str]:
    """A line for unknown words, and one for words beyond the most that a caption may have."""
    what = f"caption {shown(one.caption)}"
    if one.words.unknown:
        yield f"{what}: not in the model's vocabulary: {_few(one.words.unknown)}"
    if one.words.cut:
        yield f"{what}: cut after {len(one.words.ids)} words, without: {_few(one.words.cut)}"


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED_WORDS} more" if len(words) > _LISTED_WORDS else ""
    return ", ".join(word if len(word) <= _SLUG_LENGTH else shown(word) for word in words[:_LISTED_WORDS]) + more


def read_captions(path: Path) -> list[str]:
    """The captions of a text file, one a line; blank lines are skipped.

    Raises:
        InputError: missing, not UTF-8 text, or without a caption.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"captions: no file {path}; check the path") from None
    except OSError as error:
        raise InputError(f"captions: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"captions: {path} is not UTF-8 text; write one caption a line") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise InputError(f"captions: {path} is empty; write one caption a line")
    return captions


@contextlib.contextmanager
def local_model(location: Path | str, tracking_uri: str) -> Iterator[Path]:
    """The folder of a model on this machine, for the length of a block.

    Raises:
        InputError: nothing there, or no model in it.
    """
    if isinstance(location, str) and MLFLOW_URI.match(location):
        with tempfile.TemporaryDirectory(prefix="objgan-model-") as scratch:
            yield _download(location, tracking_uri, Path(scratch))
        return
    shown = place_of(str(location))
    with at_hand("model", location) as folder:
        assert folder is not None
        if (folder / "model.json").is_file():
            yield folder
        elif (folder != location and folder.is_dir()) or (folder / "MLmodel").is_file():
            yield only_model(folder, shown)
        else:
            raise InputError(
                f"unknown model {shown}: give a model's folder or its URI, runs:/RUN/... or models:/NAME@ALIAS"
            )


def sample_names(made: Sequence[Generated]) -> list[str]:
    """A file name for each sample: its caption's words and a number, each name once."""
    counts: Counter[str] = Counter()
    names = []
    for one in made:
        slug = _slug(one.caption)
        names.append(f"{slug}_{counts[slug]}")
        counts[slug] += 1
    return names


def steps(one: Generated, side: int = PICTURE_SIDE) -> Image.Image:
    """Caption, boxes, shapes and image side by side; the image enlarged where it is smaller."""
    return grid([_columns(one, max(side, one.image.shape[0]))], [one.caption], ["boxes", "shapes", "image"])


def contact_sheet(made: Sequence[Generated], seen: Sequence[str] | None = None) -> Image.Image:
    """Boxes, shapes and image of up to 60 samples, two samples side by side from seven on.

    Above each: its caption, which of the facts that the caption states the layout keeps and breaks, and what a judge
    sees, if `seen` is given.
    """
    blocks = []
    for number, one in enumerate(made[:_SHEET_SAMPLES]):
        lines = [*asked_and_kept(one), *([] if seen is None else [f"judge sees: {seen[number]}"])]
        blocks.append(grid([_columns(one, _SHEET_SIDE)], ["\n".join(lines)]))
    wide = 2 if len(blocks) > _SHEET_WIDE else 1
    return grid([blocks[start : start + wide] for start in range(0, len(blocks), wide)])


def asked_and_kept(one: Generated) -> Iterator[str]:
    """Lines: the caption; the stated facts that the layout keeps; those that it breaks. No line without a fact."""
    yield " ".join(one.caption.split())
    for verb, kept in (("keeps", True), ("breaks", False)):
        facts = [fact.fact for fact in one.facts if fact.kept is kept]
        if facts:
            yield f"layout {verb}: {', '.join(facts)}"


def _columns(one: Generated, side: int) -> list[Image.Image]:
    count = len(one.names)
    shapes = one.layout.soft_masks[0, :count]
    return [
        draw_boxes(one.names, one.layout.boxes[0, :count], side),
        draw_masks(one.names, shapes, side),
        enlarge(Image.fromarray(one.image), side),
    ]


def _slug(caption: str) -> str:
    plain = unicodedata.normalize("NFKD", caption).encode("ascii", "ignore").decode().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", plain))
    if len(words) > _SLUG_LENGTH:
        words = words[:_SLUG_LENGTH].rsplit("-", 1)[0]
    return words or "caption"


def _download(uri: str, tracking_uri: str, folder: Path) -> Path:
    with mlflow_at(tracking_uri):
        try:
            return download(uri, folder)
        except InputError as error:
            raise InputError(redact(str(error))) from None
