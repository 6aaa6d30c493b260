"""Options that several commands share, and checks of their values."""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from objgan.files import read_json
from pipelines import command_line
from pipelines.data.prepare.source import NAMED, CocoPart, CocoSource, Split, load_ids, load_split
from pipelines.data.shards.manifest import SPLITS
from pipelines.runtime import console


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
        "--processes", type=count, metavar="N", help="files that are read at a time (default: one a core)"
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
        type=partial(whole, least=0),
        default=48,
        metavar="N",
        help="images on the page (default: %(default)s)",
    )
    command.add_argument("--seed", type=seed, default=0, metavar="S", help="other samples (default: 0)")
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


def add_settings(command: Any, example: str) -> None:
    """Options by which a tree of settings is told: a recipe, a file over it, single settings over both.

    command: an argparse parser, or a group of one
    example: of a single setting, for the help
    """
    command.add_argument("--recipe", default="tiny", metavar="NAME", help="tiny (default), small, paper or fast")
    command.add_argument(
        "--config", type=command_line.local_path, metavar="FILE", help="YAML settings over the recipe's"
    )
    command.add_argument(
        "--set",
        action=command_line.Assignments,
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help=f"one setting over both, for example {example}",
    )


def add_log_format(command: Any) -> None:
    """How a program's lines are told."""
    told = os.environ.get(console.VARIABLE, "")
    command.add_argument(
        "--log-format",
        choices=console.FORMATS,
        default=told if told in console.FORMATS else console.FORMATS[0],
        help=f"json: one object a line, for machines (default: {console.VARIABLE}, else text)",
    )


def count(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0)


def workers(text: str) -> tuple[int, int | None]:
    """N, or N-M: the least, and the most where it is told."""
    least, dash, most = text.partition("-")
    return whole(least, 1), whole(most, 1) if dash else None


def with_workers(assignments: Sequence[str], workers: Sequence[str]) -> list[str]:
    """The assignments of `--set`, and those that `--workers` stands for.

    Raises:
        InputError: both say how many workers there are.
    """
    given = {assignment.partition("=")[0] for assignment in assignments}
    if twice := given & {assignment.partition("=")[0] for assignment in workers}:
        raise InputError(f"--workers and --set {min(twice)} say the same thing: give one of them")
    return [*assignments, *workers]


def whole(text: str, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is under {least}")
    return value
