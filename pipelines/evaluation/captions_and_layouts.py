"""What an evaluation reads: the held-out split as each stage sees it, and as generation needs it."""

from dataclasses import dataclass
from pathlib import Path

from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import STAGE_CLASSES
from pipelines.data.loading.data_folder import open_data
from pipelines.data.loading.reader import ShardReader
from pipelines.evaluation.synthesis import ALL_WORDS


@dataclass(frozen=True)
class Sources:
    """A reader for every stage that the data have columns for, and why not for the others.

    rows: for generated images: whole captions, and all that the data know of their images
    """

    stages: dict[str, ShardReader]
    rows: ShardReader
    skipped: dict[str, str]


def open_sources(data: Path | str, split: str, model: ObjGAN) -> Sources:
    """Readers of one split.

    Raises:
        InputError: no data, of other classes or words than the model's, or no usable image.
    """
    folder = open_data(data, model.config.compute)
    manifest = folder.manifest
    _check_domain(Domain.load(folder.domain()), model.domain, str(folder))
    stages, skipped = {}, {}
    for name, cls in STAGE_CLASSES.items():
        words = getattr(model.config, name).training.max_words
        try:
            stages[name] = ShardReader(data, split, cls.columns, model.config, words)
        except InputError as error:
            skipped[name] = str(error)
    there = {name for name, known in manifest["columns"].items() if known}
    # Masks leave out the images that lack some: without pixels there is nothing that they would be good for.
    more = there & {"image", "masks", "attributes"} if "image" in there else set()
    rows = ShardReader(data, split, frozenset({"boxes", *more}), model.config, ALL_WORDS)
    return Sources(stages, rows, skipped)


def _check_domain(ours: Domain, models: Domain, data: str) -> None:
    for what, here, there in (
        ("classes", ours.classes, models.classes),
        ("words", ours.vocabulary.words, models.vocabulary.words),
    ):
        if here != there:
            raise InputError(f"evaluate: {data} has other {what} than the model's data: give the data of its training")
