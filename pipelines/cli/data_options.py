"""Options of the commands that read COCO files, and what they say."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from objgan.files import read_json
from pipelines import command_line
from pipelines.cli import option_types
from pipelines.data.prepare.coco import CocoPart, CocoSource
from pipelines.data.prepare.splits import NAMED, Split, load_ids, load_split
from pipelines.data.shards.format import SPLITS


def add_source(command: argparse.ArgumentParser) -> None:
    """Where the data set lies."""
    command.add_argument(
        "--images",
        action="append",
        type=command_line.location,
        metavar="LOCATION",
        help="COCO images: folder or URI (s3://, gs://); leave out for boxes alone",
    )
    command.add_argument(
        "--instances",
        action="append",
        type=command_line.local_path,
        metavar="FILE",
        help="COCO instances JSON (default: the embedded sample data); give --images, --instances and --captions again "
        "for each further part of the data set, such as train2017 and val2017, in the same order",
    )
    command.add_argument(
        "--captions",
        action="append",
        type=command_line.local_path,
        metavar="FILE",
        help="COCO captions JSON; both may be .json.gz",
    )
    command.add_argument(
        "--split",
        type=_split,
        default="hash",
        metavar="HOW",
        help="hash (of the image id), coco (by file name), or a JSON file of ids (default: %(default)s)",
    )
    command.add_argument(
        "--val2014",
        type=command_line.local_path,
        metavar="FILE",
        help="ids of COCO 2014's validation images, where file names do not tell: warns if they end up in training",
    )
    command.add_argument(
        "--synonyms",
        type=command_line.local_path,
        metavar="FILE",
        help='{"class": ["word", ...]}: what captions call a class, too',
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
        type=command_line.local_path,
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
        "--out",
        type=command_line.local_path,
        default=Path("runs/inspect.html"),
        metavar="FILE",
        help="the page (default: %(default)s)",
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


def add_data(command: Any) -> None:
    """`--data` of a command or a group of options."""
    command.add_argument(
        "--data",
        type=command_line.location,
        default=Path("data/prepared"),
        metavar="LOCATION",
        help="what prepare wrote: folder or URI (s3://, gs://) (default: %(default)s)",
    )


def _add_prepared(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "data",
        type=command_line.location,
        nargs="?",
        default=Path("data/prepared"),
        metavar="LOCATION",
        help="what prepare wrote: folder or URI (s3://, gs://) (default: %(default)s)",
    )


def _split(text: str) -> str:
    return text if text in NAMED else str(command_line.local_path(text))


def source_of(options: argparse.Namespace) -> CocoSource | None:
    """The data set that the options name; None: none, the embedded sample is meant.

    Raises:
        InputError: a part of it is not given, or not what it should be.
    """
    if options.instances is None and options.captions is None and options.images is None:
        return None
    if options.instances is None or options.captions is None:
        raise InputError("give both --instances FILE and --captions FILE, or none of them for the sample data")
    first, *more = _parts(options.images or [], options.instances, options.captions)
    split = load_split(options.split) if options.split != "hash" else Split()
    val2014 = load_ids(options.val2014) if options.val2014 else frozenset()
    synonyms = read_synonyms(options.synonyms) if options.synonyms else {}
    source = CocoSource(first.images, first.instances, first.captions, split, val2014, synonyms, tuple(more))
    # Now, not once Ray has been started.
    source.check()
    return source


def _parts(images: list[Path | str], instances: list[Path], captions: list[Path]) -> list[CocoPart]:
    """The parts of a data set, paired in order; all of them may have one folder of images."""
    if len(instances) != len(captions):
        raise InputError(
            f"--instances and --captions are paired in order, and are given {len(instances)} and {len(captions)} "
            f"times: give both for each part of the data set"
        )
    if len(images) not in (0, 1, len(instances)):
        raise InputError(
            f"--images and --instances are paired in order, and are given {len(images)} and {len(instances)} times: "
            f"give one folder of images for each part of the data set, or one for all"
        )
    folders: list[Path | str | None] = [*images] if images else [None]
    folders *= len(instances) // len(folders)
    return [CocoPart(*files) for files in zip(folders, instances, captions, strict=True)]


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
