"""Options of `prepare` and `run` -> the data set in COCO's format that they name, checked."""

from collections.abc import Sequence
from pathlib import Path

from objgan.errors import InputError
from objgan.files import read_json
from pipelines.cli.options import SourceOptions
from pipelines.command_line import Location
from pipelines.data.prepare.json_stream import JsonFile
from pipelines.data.prepare.source import CocoPart, CocoSource, Split, load_ids, load_split
from pipelines.storage.remote_file import RemoteFile


def source_of(options: SourceOptions) -> CocoSource | None:
    """The data set that the options name; None: the embedded sample.

    Raises:
        InputError: a part is missing or invalid.
    """
    if not (options.instances or options.captions or options.images or options.captions_from):
        return None
    written = options.captions_from is not None
    if written and options.captions:
        raise InputError("--captions-from writes captions in place of those of --captions: give one of them")
    if not options.instances or not (options.captions or written):
        raise InputError(
            "give both --instances FILE and --captions FILE, or neither for the sample data; for instances without "
            "captions, --captions-from classes writes them"
        )
    first, *more = _parts(options.images, options.instances, options.captions)
    split = load_split(options.split) if options.split != "hash" else Split()
    val2014 = load_ids(options.val2014) if options.val2014 else frozenset()
    synonyms = read_synonyms(options.synonyms) if options.synonyms else {}
    source = CocoSource(first.images, first.instances, first.captions, split, val2014, synonyms, tuple(more))
    # Check before Ray starts.
    source.check()
    return source


def _parts(images: Sequence[Location], instances: Sequence[Location], captions: Sequence[Location]) -> list[CocoPart]:
    """The parts of a data set, paired in order; they may share one folder of images."""
    if captions and len(instances) != len(captions):
        raise InputError(
            f"--instances and --captions are paired in order, but given {len(instances)} and {len(captions)} times: "
            f"give both for each part of the data set"
        )
    if len(images) not in (0, 1, len(instances)):
        raise InputError(
            f"--images and --instances are paired in order, but given {len(images)} and {len(instances)} times: "
            f"give one folder of images for each part of the data set, or one for all"
        )
    folders: list[Location | None] = [*images] if images else [None]
    folders *= len(instances) // len(folders)
    texts: list[JsonFile | None] = [*map(_json_file, captions)] if captions else [None] * len(instances)
    return [CocoPart(*files) for files in zip(folders, map(_json_file, instances), texts, strict=True)]


def _json_file(place: Location) -> JsonFile:
    return place if isinstance(place, Path) else RemoteFile(place)


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Class -> words by which captions name it.

    Raises:
        InputError: no such file, or content of another form.
    """
    content = read_json(path, "--synonyms")
    lists = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
        raise InputError(f'--synonyms: {path} must have the form {{"class": ["word", ...]}}')
    return dict(content)
