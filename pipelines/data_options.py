"""Options of the commands that read COCO files, and what they say."""

import argparse
from functools import partial
from pathlib import Path

from objgan.errors import InputError
from objgan.files import read_json
from pipelines import option_types
from pipelines.coco import CocoSource
from pipelines.shards import SPLITS
from pipelines.splits import Split, load_ids, load_split


def add_source(command: argparse.ArgumentParser) -> None:
    """Where the data set lies."""
    command.add_argument(
        "--images", metavar="LOCATION", help="COCO images: folder or URI (s3://, gs://); leave out for boxes alone"
    )
    command.add_argument(
        "--instances", type=Path, metavar="FILE", help="COCO instances JSON (default: the embedded sample data)"
    )
    command.add_argument("--captions", type=Path, metavar="FILE", help="COCO captions JSON; both may be .json.gz")
    command.add_argument(
        "--split",
        default="hash",
        metavar="HOW",
        help="hash (of the image id), coco (by file name), or a JSON file of ids (default: %(default)s)",
    )
    command.add_argument(
        "--val2014",
        type=Path,
        metavar="FILE",
        help="ids of COCO 2014's validation images, where file names do not tell: warns if they end up in training",
    )
    command.add_argument(
        "--synonyms", type=Path, metavar="FILE", help='{"class": ["word", ...]}: what captions call a class, too'
    )


def add_prepare(command: argparse.ArgumentParser) -> None:
    """How to prepare it."""
    command.add_argument(
        "--format",
        choices=("arrow", "parquet"),
        default="arrow",
        help="of the shards; training reads arrow, parquet is for other tools (default: %(default)s)",
    )
    command.add_argument(
        "--vectors",
        type=Path,
        metavar="DIR",
        help="a spaCy pipeline that has word vectors (default: they are fitted on the training captions)",
    )
    command.add_argument("--strict", action="store_true", help="refuse if anything is rejected (exit code 2)")
    command.add_argument(
        "--retry-rejected", action="store_true", help="take images again that were rejected, mended in the meantime"
    )


def add_verify(command: argparse.ArgumentParser) -> None:
    """Which data to verify."""
    _add_prepared(command)
    command.add_argument(
        "--processes", type=option_types.count, metavar="N", help="files that are read at a time (default: one a core)"
    )


def add_inspect(command: argparse.ArgumentParser) -> None:
    """Which data to show, and how much of them."""
    _add_prepared(command)
    command.add_argument(
        "--out", type=Path, default=Path("runs/inspect.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    command.add_argument(
        "--samples",
        type=partial(option_types.whole, least=0),
        default=48,
        metavar="N",
        help="images on the page (default: %(default)s)",
    )
    command.add_argument("--seed", type=option_types.seed, default=0, metavar="S", help="other samples (default: 0)")
    command.add_argument("--split", choices=SPLITS, help="one split alone (default: all)")
    command.add_argument("--json", action="store_true", help="the numbers for programs, in place of the table")


def _add_prepared(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "data",
        type=place,
        nargs="?",
        default=Path("data/prepared"),
        metavar="DIR",
        help="what prepare wrote: folder or URI (s3://, gs://) (default: %(default)s)",
    )


def place(text: str) -> Path | str:
    """A folder, or a URI as it is."""
    return text if "://" in text else Path(text)


def source_of(options: argparse.Namespace) -> CocoSource | None:
    """The data set that the options name; None: none, the embedded sample is meant.

    Raises:
        InputError: a part of it is not given, or not what it should be.
    """
    if options.instances is None and options.captions is None and options.images is None:
        return None
    if options.instances is None or options.captions is None:
        raise InputError("give both --instances FILE and --captions FILE, or none of them for the sample data")
    images = options.images
    place = images if images is None or "://" in images else Path(images)
    split = load_split(options.split) if options.split != "hash" else Split()
    val2014 = load_ids(options.val2014) if options.val2014 else frozenset()
    synonyms = read_synonyms(options.synonyms) if options.synonyms else {}
    source = CocoSource(place, options.instances, options.captions, split, val2014, synonyms)
    # Now, not once Ray has been started.
    source.check()
    return source


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Class -> words by which captions name it.

    Raises:
        InputError: no such file, or another content.
    """
    content = read_json(path, "--synonyms")
    lists = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
        raise InputError(f'--synonyms: {path} is not of the form {{"class": ["word", ...]}}; write it so')
    return dict(content)
