"""COCO data sets whose every field may be missing, null, text, a float, huge or nested; and what must hold for each.

`python -m tests.tools.chaos_data` runs 2,000 of them, tests/pipelines/data/prepare/test_whole_records.py a few.
"""

import itertools
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycocotools.mask as coco_mask
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from objgan.config import Config
from objgan.errors import InputError
from pipelines.data.prepare.convert import block_of, records_of, run_here
from pipelines.data.prepare.ingest import UNREAD, ingest
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.rows import Conversion, convert
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.format import Shard, load_manifest, write_shard
from pipelines.data.shards.manifest import SPLITS
from pipelines.data.shards.rejected import Reject, read_rejects
from pipelines.data.verify.manifest_checks import domain_faults, joint_faults, own_faults, rejected_faults
from pipelines.data.verify.shard_checks import CheckTask, Fault, RowRules, check_file, row_faults
from pipelines.recipes import resolve
from pipelines.storage.storage import Storage

Record = dict[str, Any]
SIZE, WIDTH, HEIGHT = 64, 40, 30
_PREPARED_WHOLE = 25
"""Of so many data sets, one goes the whole way, to a manifest that `verify` reads."""

TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["", " ", "1", "1.0", " 7 ", "1e999", "nan", "\ud800", "\x00", "a kite", "../x", "train2014/1.jpg", "\u200b"]
)
HUGE = st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400, 1e19, 1e300, -1e300])
NUMBER = st.integers(-3, 50) | st.floats() | HUGE
FLAT = st.none() | st.booleans() | NUMBER | TEXT
WILD = st.recursive(FLAT, lambda part: st.lists(part, max_size=4) | st.dictionaries(TEXT, part, max_size=3))
DEEP = st.integers(1, 60).map(lambda depth: json.loads("[" * depth + "]" * depth))


def _spelled(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A number as it is, as a float, or as text."""
    return numbers | numbers.map(float) | numbers.map(str)


def _value(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A good value, five times in six."""
    return st.integers(0, 5).flatmap(lambda chance: good if chance else WILD | DEEP | HUGE)


def _record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    """Any of the fields may be missing; there may be others."""
    rare = st.sampled_from([*fields, None, None, None, None])
    whole = st.fixed_dictionaries({name: _value(good) for name, good in fields.items()})
    return st.builds(lambda one, name, more: {k: v for k, v in {**more, **one}.items() if k != name}, whole, rare, MORE)


MORE: st.SearchStrategy[Record] = st.just({}) | st.dictionaries(TEXT, WILD, max_size=2)
ID = _spelled(st.integers(1, 6))
SIDE = _spelled(st.integers(0, 30)) | st.floats(0, 30)
BOX = st.lists(SIDE, min_size=4, max_size=4) | st.just([5, 5, 20, 10])
PAIR = st.lists(SIDE, min_size=2, max_size=2)
POLYGON = st.lists(SIDE, max_size=8) | st.lists(PAIR, max_size=5) | st.just([5, 5, 25, 5, 25, 15, 5, 15])


def _runs(starts: Sequence[int]) -> dict[str, Any]:
    """Run lengths that fill the picture, as COCO compresses them."""
    edges = [0, *sorted(starts), WIDTH * HEIGHT]
    lengths = {"size": [HEIGHT, WIDTH], "counts": [b - a for a, b in itertools.pairwise(edges)]}
    packed: bytes = coco_mask.frPyObjects(lengths, HEIGHT, WIDTH)["counts"]
    return {"size": [HEIGHT, WIDTH], "counts": packed.decode()}


GOOD_RUNS = st.lists(st.integers(0, WIDTH * HEIGHT), max_size=5).map(_runs)
CUT_RUNS = st.builds(lambda one, cut: {**one, "counts": one["counts"][:cut]}, GOOD_RUNS, st.integers(0, 6))
RUNS = st.fixed_dictionaries(
    {
        "size": _value(st.just([HEIGHT, WIDTH]) | st.lists(_spelled(st.integers(0, 60)) | HUGE, max_size=3)),
        "counts": _value(TEXT | st.lists(_spelled(st.integers(0, 1200)) | HUGE, max_size=4)),
    }
)
SEGMENTATION = st.none() | st.lists(POLYGON, max_size=3) | POLYGON | GOOD_RUNS | CUT_RUNS | RUNS

IMAGE = _record(
    id=ID,
    file_name=st.just("1.jpg") | TEXT,
    width=_spelled(st.just(WIDTH)),
    height=_spelled(st.just(HEIGHT)),
    scene=st.just("sea") | TEXT,
    coco_url=st.just("http://images.cocodataset.org/val2014/1.jpg") | TEXT,
)
OBJECT = _record(
    id=_spelled(st.integers(1, 99)),
    image_id=ID,
    category_id=_spelled(st.integers(1, 3)),
    bbox=BOX,
    area=SIDE | st.none(),
    iscrowd=_spelled(st.integers(0, 1)),
    segmentation=SEGMENTATION,
    attributes=st.none() | st.fixed_dictionaries({"colour": st.just("red") | WILD}),
)
CAPTION = _record(
    id=_spelled(st.integers(1, 99)),
    image_id=ID,
    caption=st.sampled_from(["A kite above the sea.", "two red kites", "!?", "\u200b kite\u00a0"]) | TEXT,
)
GOOD_CATEGORIES = [{"id": 1, "name": "kite"}, {"id": "2", "name": "boat"}]
WILD_CATEGORIES = st.lists(_record(id=ID, name=st.sampled_from(["kite", "boat", "person"]) | TEXT), max_size=3)
CATEGORIES = st.integers(0, 9).flatmap(lambda chance: st.just(GOOD_CATEGORIES) if chance else WILD_CATEGORIES)


@dataclass(frozen=True)
class DataSet:
    """The contents of both JSON files; `captions` None: one file for both.

    sound: there are good records and categories among all others, so that it must not be refused
    """

    instances: Record
    captions: Record | None
    sound: bool

    def write(self, folder: Path) -> CocoSource:
        folder.mkdir(exist_ok=True)
        paths = [folder / "instances.json", folder / "captions.json"]
        for path, content in zip(paths, (self.instances, self.captions), strict=True):
            if content is not None:
                path.write_text(json.dumps(content))
        return CocoSource(None, paths[0], paths[self.captions is not None])


GOOD_IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, 7)]
GOOD_OBJECTS = [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 10]} for n in (1, 2)]
GOOD_CAPTIONS = [{"id": n, "image_id": n, "caption": "a kite"} for n in range(1, 5)]


def _data_set(
    parts: tuple[list[Record], list[Record], list[Record]], categories: list[Record], layout: int, base: int
) -> DataSet:
    """The records; mostly, some good ones before or behind them, so that not all is refused."""
    sound = base > 0 and categories == GOOD_CATEGORIES
    good = (GOOD_IMAGES, GOOD_OBJECTS, GOOD_CAPTIONS)
    if base:
        parts = tuple(part + more if base % 2 else more + part for part, more in zip(parts, good, strict=True))
    images, objects, captions = parts
    instances = {"images": images, "annotations": objects, "categories": categories}
    if layout == 0:
        return DataSet({**instances, "annotations": [*objects, *captions]}, None, sound)
    if layout == 1:
        return DataSet(instances, {"annotations": captions}, sound)
    return DataSet(instances, {"images": images, "annotations": captions}, sound)


def _spoiled(data: DataSet, key: str | None, value: Any, missing: bool) -> DataSet:
    """One of the lists is anything, or is not there."""
    contents = [
        None if one is None else {k: value if k == key else v for k, v in one.items() if not (missing and k == key)}
        for one in (data.instances, data.captions)
    ]
    return DataSet(contents[0] or {}, contents[1], data.sound and key is None)


LISTS = st.sampled_from([None] * 30 + ["images", "annotations", "categories"])
_BUILT = st.builds(
    _data_set,
    st.tuples(st.lists(IMAGE, max_size=5), st.lists(OBJECT, max_size=8), st.lists(CAPTION, max_size=6)),
    CATEGORIES,
    st.integers(0, 5),
    st.integers(0, 5),
)


DATA_SETS = st.builds(_spoiled, _BUILT, LISTS, WILD | st.lists(WILD, max_size=3), st.booleans())


@dataclass
class Outcome:
    """How many data sets were tried, how many were refused in one line, and what became of the records."""

    tried: int = 0
    refused: int = 0
    prepared: int = 0
    records: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """One line."""
        told = ", ".join(f"{number} {name}" for name, number in sorted(self.records.items()))
        return f"{self.tried} data sets: {self.refused} refused, {self.prepared} prepared whole; {told}"


def check(data: DataSet, outcome: Outcome) -> None:
    """See that a data set is refused in one line, or every record of it is in a row or rejected, twice the same.

    Raises:
        AssertionError: it is not. Whatever else is raised is a fault, too.
    """
    outcome.tried += 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = data.write(folder / "coco")
        first, again = (_converted(source, folder / name, outcome) for name in ("first", "again"))
        assert first == again, "other bytes at the second time"
        if first[0] is None:
            assert not data.sound, f"good records were refused with the others: {first[1]}"
            outcome.refused += 1
        elif zlib.crc32(json.dumps(data.instances).encode()) % _PREPARED_WHOLE == 0:
            outcome.prepared += _prepared(source, folder)


def _converted(source: CocoSource, work: Path, outcome: Outcome) -> tuple[bytes | None, Any]:
    """The bytes of a shard of all images, and the rejects; None, and the message, where the data set is refused."""
    try:
        data = ingest(source, work)
    except InputError as error:
        # Where the data lie is another folder at the second time.
        return None, _one_line(error).replace(str(work), "")
    how = Conversion("train", None, SIZE, {category: label for label, category in enumerate(data.categories)})
    converted = convert(records_of(block_of(data.images.ids, "train", "x"), work), how)
    rejected = [*read_rejects(work / UNREAD), *converted.rejected]
    table = converted.table()
    kept = {
        "image": len(converted.rows),
        "caption": sum(len(row["captions"]) for row in converted.rows),
        "annotation": sum(len(row["labels"]) for row in converted.rows),
    }
    _check_accounts(data.totals, kept, rejected)
    rules = RowRules("train", SIZE, len(data.classes), pixels=False)
    assert not (faults := list(row_faults(table, rules))), faults
    shard = write_shard(work, "train-00000.arrow", "train", table)
    outcome.records.update({f"{kind}s kept": number for kind, number in kept.items()})
    outcome.records["rejects"] += len(rejected)
    return (work / shard.name).read_bytes(), (rejected, converted.contradictions)


def _one_line(error: InputError) -> str:
    assert str(error) and "\n" not in str(error), "not one line"
    return str(error)


def _check_accounts(totals: dict[str, int], kept: dict[str, int], rejected: list[Reject]) -> None:
    lost = Counter(one.kind for one in rejected)
    for kind, came in totals.items():
        assert came == kept[kind] + lost[kind], f"{came} {kind}s came in, {kept[kind]} kept, {lost[kind]} rejected"
    assert all(one.reason and "\n" not in one.line()[:-1] for one in rejected)


def _prepared(source: CocoSource, folder: Path) -> bool:
    """Whether it was prepared to the end, to a folder that `verify` calls whole."""
    try:
        prepare(source, folder / "out", CONFIG, run_here)
    except InputError as error:
        _one_line(error)
        return False
    faults = list(_faults(folder / "out"))
    assert not faults, faults
    return True


def _faults(out: Path) -> Iterator[Fault]:
    """What `verify` finds, in this process."""
    manifest, storage, reports = load_manifest(out), Storage(out), {}
    rules = {split: RowRules(split, SIZE, len(manifest["classes"]), pixels=False) for split in SPLITS}
    for kind in ("shards", "indices"):
        for shard in (Shard(**facts) for facts in manifest[kind]):
            task = CheckTask(storage, shard, rules[shard.split] if kind == "shards" else None)
            reports[shard.name] = check_file(task)
            yield from reports[shard.name].faults
    yield from itertools.chain(
        own_faults(manifest), domain_faults(storage, manifest), rejected_faults(storage, manifest)
    )
    yield from joint_faults(manifest, reports)


CONFIG: Config = resolve("tiny", None, ["data.image_size=64"])


def run(examples: int, chance: int = 0) -> Outcome:
    """Try that many data sets, drawn by the seed `chance`.

    Raises:
        Exception: one of them is not as it should be; hypothesis has made it small, and prints it.
    """
    outcome = Outcome()

    @seed(chance)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(DATA_SETS)
    def every(data: DataSet) -> None:
        check(data, outcome)

    every()
    return outcome
