"""The page of results: docs/results.md and its pictures, from the rows and models that there are.

The captions are the test split's first ones, drawn with the evaluation's noise: nobody chose them.
"""

import io
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from objgan.drawing import draw_boxes, draw_masks, enlarge, grid, to_image
from objgan.files import write_atomically
from objgan.generation import ObjGAN
from objgan.layout import Layout
from pipelines.evaluation.captions_and_layouts import open_sources
from pipelines.evaluation.protocols import Place, Protocol
from pipelines.evaluation.synthesis import Prompts, Synthesis, read_prompts
from tests.benchmarks.learn import ablation, sample_images
from tests.benchmarks.learn.rows import Log, Options, Row, load_rows
from tests.benchmarks.learn.sample_runs import SampleRuns
from tests.benchmarks.learn.variants import VARIANTS

DOCS = Path(__file__).resolve().parents[3] / "docs"
CAPTIONS, SIDE, LIMIT = 8, 128, 400_000
STEPS_PICTURE, ABLATION_PICTURE = "results_steps.jpg", "results_ablation.jpg"

_INTRODUCTION = """# Results

Made by `python -m tests.benchmarks.learn page` from what `make bench-learn` measured; all figures, also those on
genuine COCO, are in [tests/benchmarks/RESULTS.md](../tests/benchmarks/RESULTS.md).

The data are drawn (`python -m pipelines sample`): {pictures} pictures of 64 x 64 pixels with true captions, boxes,
shapes, colours and backgrounds. Everything below was trained on CPU cores. The captions in the pictures are the first
{captions} of the test split, in order, each with the noise of the evaluation: nobody chose them."""


@dataclass(frozen=True)
class Drawn:
    """What the pictures are made of, for the first test captions.

    texts:   whole captions
    prompts: their words and true layouts and images
    """

    texts: list[str]
    prompts: Prompts
    classes: tuple[str, ...]


def make_page(options: Options, log: Log, runs: SampleRuns | None = None, docs: Path = DOCS) -> Path:
    """Write the page and the pictures that can be made; the page says what is missing."""
    runs = runs or SampleRuns(options.out)
    parts = [_INTRODUCTION.format(pictures=runs.pictures, captions=CAPTIONS)]
    parts += [_steps(runs, docs, log), _ablation(options, runs, docs, log)]
    write_atomically(docs / "results.md", wrapped("\n\n".join(parts) + "\n"))
    log(f"page: {docs / 'results.md'}")
    return docs / "results.md"


def wrapped(text: str) -> str:
    """Markdown whose lines of prose are under 120 characters."""
    fill = partial(textwrap.fill, width=119, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line if line.startswith(('|', '#', '!')) else fill(line)}\n" for line in text.splitlines())


def write_picture(path: Path, image: Image.Image, limit: int = LIMIT) -> None:
    """As JPEG, at the highest quality of some whose file is not over `limit` bytes."""
    for quality in range(92, 9, -4):
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= limit:
            break
    write_atomically(path, buffer.getvalue())


def _steps(runs: SampleRuns, docs: Path, log: Log) -> str:
    rows, model = load_rows(runs.out, sample_images.NAME), runs.folder("evaluation") / "model"
    if model.is_dir() and runs.prepared.is_dir():
        write_picture(docs / STEPS_PICTURE, steps_picture(runs, model))
        log(f"page: {STEPS_PICTURE}")
    return _section(
        "From captions to images",
        "Left, everything comes from the caption: boxes, shapes, image. Right, the image from the true boxes and "
        "shapes, beside the true image.",
        _shown(docs / STEPS_PICTURE, "Captions, predicted boxes and shapes, the image; the image from true shapes"),
        sample_images.table(rows) if rows else _nothing(sample_images.NAME),
    )


def _ablation(options: Options, runs: SampleRuns, docs: Path, log: Log) -> str:
    rows = load_rows(options.out, ablation.NAME)
    seed, models = _models(options.out, rows)
    if models and runs.prepared.is_dir():
        write_picture(docs / ABLATION_PICTURE, ablation_picture(runs, models))
        log(f"page: {ABLATION_PICTURE}, seed {seed}, {', '.join(models)}")
    return _section(
        "The paper's claim in small",
        "Obj-GAN's claim is that object-driven attention and object-wise discriminators make better images. Here the "
        "full model stands against variants that lack them. What a variant leaves out it gets back as width: all have "
        "as many parameters, within a few per cent, and as many minutes of training. (iii) sees no layout at all, so "
        "that its objects can only be in the true places by chance: compare it by what the captions state and by "
        "R-precision. It also lacks the layout discriminators, whose features the other three are trained to match.",
        _shown(docs / ABLATION_PICTURE, "True shapes, the variants' images from the true layout, the true image"),
        ablation.table(rows) if rows else f"{_nothing(ablation.NAME)} Figures of earlier networks are in RESULTS.md.",
    )


def steps_picture(runs: SampleRuns, folder: Path) -> Image.Image:
    """A row a caption: boxes, shapes and image from the caption alone; true shapes, image from them, true image."""
    synthesis, drawn = _open(runs, folder)
    with torch.no_grad():
        text = synthesis.text(drawn.prompts)
        made = synthesis.shapes(drawn.prompts, synthesis.boxes(drawn.prompts, text))
        true = drawn.prompts.batch.layout
        ours = synthesis.images(drawn.prompts, text, made)
        given = synthesis.images(drawn.prompts, text, true)
    real = synthesis.real(drawn.prompts)
    rows = [
        [
            draw_boxes(_names(drawn, made, row), made.boxes[row, : int(made.count[row])], SIDE),
            _shapes(drawn, made, row),
            _picture(ours[row]),
            _shapes(drawn, true, row),
            _picture(given[row]),
            _picture(real[row]),
        ]
        for row in range(len(drawn.texts))
    ]
    headings = ("predicted boxes", "predicted shapes", "image", "true shapes", "image from them", "true image")
    return grid(rows, drawn.texts, headings)


def ablation_picture(runs: SampleRuns, models: dict[str, Path]) -> Image.Image:
    """A row a caption: true shapes, each variant's image from the true layout, the true image."""
    columns: list[list[Image.Image]] = []
    for folder in models.values():
        synthesis, drawn = _open(runs, folder)
        with torch.no_grad():
            images = synthesis.images(drawn.prompts, synthesis.text(drawn.prompts), drawn.prompts.batch.layout)
        columns.append([_picture(image) for image in images])
    real = synthesis.real(drawn.prompts)
    rows = [
        [_shapes(drawn, drawn.prompts.batch.layout, row), *(column[row] for column in columns), _picture(real[row])]
        for row in range(len(drawn.texts))
    ]
    return grid(rows, drawn.texts, ["true shapes", *(VARIANTS[name].short for name in models), "true image"])


def _models(out: Path, rows: dict[str, Row]) -> tuple[int, dict[str, Path]]:
    """The lowest seed with most variants, and their model folders."""
    by_seed: dict[int, dict[str, Path]] = {}
    for seed in sorted({row["seed"] for row in rows.values()}):
        folders = {name: out / ablation.NAME / f"{name}_{seed}" / "model" for name in VARIANTS}
        by_seed[seed] = {name: folder for name, folder in folders.items() if folder.is_dir()}
    return max(by_seed.items(), key=lambda item: len(item[1]), default=(0, {}))


def _open(runs: SampleRuns, folder: Path) -> tuple[Synthesis, Drawn]:
    """The model, and the first captions of the protocol's split as the evaluation sees them."""
    model, protocol = ObjGAN.load(folder, device="cpu"), runs.protocol
    reader = open_sources(runs.prepared, protocol.split, model).rows
    places = _first(protocol, len(reader))
    prompts = read_prompts(reader, places, 0, model.domain.vocabulary.words)
    texts = [reader.text(place.index, 0, number=place.number) for place in places]
    return Synthesis(model, 0), Drawn(texts, prompts, model.domain.classes)


def _first(protocol: Protocol, length: int) -> list[Place]:
    return protocol.places(length)[:CAPTIONS]


def _names(drawn: Drawn, layout: Layout, row: int) -> list[str]:
    return [drawn.classes[label] for label in layout.labels[row, : int(layout.count[row])].tolist()]


def _shapes(drawn: Drawn, layout: Layout, row: int) -> Image.Image:
    return draw_masks(_names(drawn, layout, row), layout.soft_masks[row, : int(layout.count[row])], SIDE)


def _picture(image: Tensor) -> Image.Image:
    return enlarge(to_image(image), SIDE)


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _shown(path: Path, text: str) -> str:
    return f"![{text}]({path.name})" if path.exists() else f"No picture yet: {path.name}."


def _nothing(section: str) -> str:
    return f"Not measured yet: `python -m tests.benchmarks.learn --only {section}`."
