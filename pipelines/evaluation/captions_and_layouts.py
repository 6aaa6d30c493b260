"""The readers of an evaluation: the held-out split with the columns of each stage, and of generation."""

from dataclasses import dataclass
from pathlib import Path

from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import STAGE_CLASSES
from pipelines.data.loading.data_folder import DataFolder, open_data
from pipelines.data.loading.reader import ShardReader
from pipelines.evaluation.synthesis import ALL_WORDS


@dataclass(frozen=True)
class Sources:
    """Readers of one split of `data`.

    stages:  one for each stage whose columns the data have
    rows:    for generated images: whole captions with all columns of their images
    skipped: stages without a reader, and the reason
    """

    data: DataFolder
    stages: dict[str, ShardReader]
    rows: ShardReader
    skipped: dict[str, str]


def open_sources(data: Path | str, split: str, model: ObjGAN) -> Sources:
    """Readers of one split.

    Raises:
        InputError: no data, other classes or words than the model's, or no usable image.
    """
    folder = open_data(data, model.config.compute)
    _check_domain(Domain.load(folder.domain()), model.domain, str(folder))
    stages, skipped = {}, {}
    for name, cls in STAGE_CLASSES.items():
        words = getattr(model.config, name).training.max_words
        if name not in model.config.stages:
            skipped[name] = f"not trained, because data.shapes={model.config.data.shapes} stands in for masks"
            continue
        try:
            stages[name] = ShardReader(folder, split, cls.columns, model.config, words)
        except InputError as error:
            skipped[name] = str(error)
    return Sources(folder, stages, row_reader(folder, split, model.config), skipped)


def row_reader(folder: DataFolder, split: str, config: Config) -> ShardReader:
    """The reader of a row: whole captions with all columns of their images.

    Raises:
        InputError: no usable image.
    """
    columns = {name for name, known in folder.manifest["columns"].items() if known}
    # A reader with masks skips images without masks; without pixels nothing needs the masks.
    more = columns & {"image", "masks", "attributes"} if "image" in columns else set()
    return ShardReader(folder, split, frozenset({"boxes", *more}), config, ALL_WORDS)


def _check_domain(ours: Domain, theirs: Domain, data: str) -> None:
    for kind, differ in (
        ("classes", ours.classes != theirs.classes),
        ("words", ours.vocabulary.words != theirs.vocabulary.words),
    ):
        if differ:
            raise InputError(f"evaluate: {data} has other {kind} than the model's data: use the data of its training")
