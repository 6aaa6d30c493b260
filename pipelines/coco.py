"""Read and check COCO JSON: images, instances and captions joined by image id, with clear refusals."""

import gzip
import hashlib
import json
import math
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa

from objgan.attributes import COLOURS, SCENES
from objgan.errors import InputError

Record = dict[str, Any]

RECORDS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("captions", pa.list_(pa.string())),
        ("annotation_ids", pa.list_(pa.int64())),
        ("labels", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.float64())),
        ("areas", pa.list_(pa.float64())),
        ("crowds", pa.list_(pa.bool_())),
        ("segmentations", pa.list_(pa.string())),
        ("colours", pa.list_(pa.string())),
        ("scene", pa.string()),
    ]
)
"""One row an image, flat. width, height: null where unknown. boxes: 4 an object, xywh in pixels; areas: square pixels,
null where unknown; segmentations: the JSON text of polygons or RLE, null without one. colours: an annotation's
`attributes.colour`, scene: an image's `scene`; neither is COCO's own, null where missing or not a name of
`objgan.attributes`."""


@dataclass(frozen=True)
class CocoSource:
    """Where a COCO data set lies; `images` None: boxes and captions without pixels."""

    images: Path | None
    instances: Path
    captions: Path

    def digests(self) -> dict[str, str]:
        """What the inputs are, wherever they lie: sha256 of each JSON file, and of the image files' names and sizes.

        Raises:
            InputError: a file or the image folder is missing or unreadable.
        """
        files = {"instances": self.instances, "captions": self.captions}
        digests = {what: hashlib.sha256(_bytes(path, what)).hexdigest() for what, path in files.items()}
        return digests if self.images is None else digests | {"images": _listing(self.images)}


@dataclass(frozen=True)
class CocoData:
    """What the JSON says, before any pixel is read.

    records: table of schema `RECORDS`, sorted by image id, every image with at least one caption
    classes: names by label; label = place of the category among all, sorted by category id
    dropped: reason -> number of images, captions or objects left out
    images:  folder of the image files or None
    """

    records: pa.Table
    classes: tuple[str, ...]
    dropped: dict[str, int]
    images: Path | None


def read_coco(images: Path | None, instances: Path, captions: Path) -> CocoData:
    """The joined records of a COCO data set; `images` None: boxes and captions without pixels.

    Raises:
        InputError: a file is missing, unreadable, not JSON, not COCO JSON, swapped with the other one, or empty; an
            annotation has an unknown category; the image folder is missing or holds none of the images.
    """
    boxes, texts = _read(instances, "instances"), _read(captions, "captions")
    _check_swapped(boxes, texts, instances, captions)
    dropped: Counter[str] = Counter()
    by_id = _images(boxes, instances, dropped)
    classes, label_of = _classes(boxes, instances)
    _note_strangers(texts, by_id, dropped)
    captions_of = _captions(texts, captions, by_id, dropped)
    objects_of = _objects(boxes, instances, label_of, by_id, dropped)
    kept = [image_id for image_id in sorted(by_id) if captions_of.get(image_id)]
    dropped["images without a caption"] += len(by_id) - len(kept)
    if not kept:
        raise InputError(f"captions: none of the {len(by_id)} images of {instances} has a caption in {captions}")
    rows = [_row(by_id[image_id], captions_of[image_id], objects_of.get(image_id, ())) for image_id in kept]
    if images is not None:
        _check_folder(images, [row["file_name"] for row in rows], instances)
    records = pa.Table.from_pylist(rows, schema=RECORDS)
    return CocoData(records, classes, {reason: n for reason, n in sorted(dropped.items()) if n}, images)


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what}: no file {path}; check the path") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path} ({error.strerror})") from None


def _read(path: Path, what: str) -> Record:
    """A COCO file's content, gzip'd or not."""
    data = _bytes(path, what)
    try:
        content = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{what}: {path} is a broken gzip file ({error})") from None
    except (ValueError, RecursionError) as error:  # ValueError: JSON and its encoding
        raise InputError(f"{what}: {path} is not JSON ({error})") from None
    for key in ("images", "annotations"):
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f'{what}: {path} is not COCO JSON: it has no list of objects "{key}"')
    return content


def _check_swapped(boxes: Record, texts: Record, instances: Path, captions: Path) -> None:
    def is_captions(content: Record) -> bool:
        return any("caption" in annotation for annotation in content["annotations"][:1])

    def is_instances(content: Record) -> bool:
        return any("category_id" in annotation or "bbox" in annotation for annotation in content["annotations"][:1])

    if is_captions(boxes) and is_instances(texts):
        raise InputError(f"instances and captions are swapped: {instances} holds captions, {captions} holds instances")
    if is_captions(boxes):
        raise InputError(f"instances: {instances} holds captions, not instances; give the instances JSON")
    if is_instances(texts) and not is_captions(texts):
        raise InputError(f"captions: {captions} holds instances, not captions; give the captions JSON")


def _classes(content: Record, path: Path) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names by label, and category id -> label."""
    categories = content.get("categories")
    if not isinstance(categories, list) or not categories:
        raise InputError(f'instances: {path} is not COCO instances JSON: it has no list "categories"')
    names: dict[int, str] = {}
    for category in categories:
        if not (isinstance(category, dict) and _is_id(category.get("id")) and isinstance(category.get("name"), str)):
            raise InputError(f"instances: {path} has a category without a whole-number id and a name: {category!r:.80}")
        if category["id"] in names:
            raise InputError(f"instances: {path} has category id {category['id']} twice")
        names[category["id"]] = category["name"].strip()
    return tuple(names[key] for key in sorted(names)), {key: label for label, key in enumerate(sorted(names))}


def _images(content: Record, path: Path, dropped: Counter[str]) -> dict[int, Record]:
    """Image id -> record. An id that comes twice keeps its first record."""
    by_id: dict[int, Record] = {}
    for image in content["images"]:
        if not _is_id(image.get("id")):
            raise InputError(f"instances: {path} has an image without a whole-number id: {image!r:.80}")
        if image["id"] in by_id:
            dropped["image records with an id seen before"] += 1
        else:
            by_id[image["id"]] = image
    if not by_id:
        raise InputError(f'instances: {path} is an empty data set: its list "images" has no entry')
    return by_id


def _note_strangers(texts: Record, by_id: dict[int, Record], dropped: Counter[str]) -> None:
    """Count images that only the captions know: whether they show any object is not known."""
    strangers = {image["id"] for image in texts["images"] if _is_id(image.get("id"))} - by_id.keys()
    dropped["images of the captions JSON that the instances JSON lacks"] += len(strangers)


def _captions(content: Record, path: Path, by_id: dict[int, Record], dropped: Counter[str]) -> dict[int, list[str]]:
    """Image id -> captions in the order of their ids, blanks and newlines cleaned."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for annotation in content["annotations"]:
        text = annotation.get("caption")
        if not isinstance(text, str):
            raise InputError(f"captions: {path} has an annotation without a caption: {annotation!r:.80}")
        if not _known_image(annotation, by_id):
            dropped["captions of images that the instances JSON lacks"] += 1
        elif not text.strip():
            dropped["empty captions"] += 1
        else:
            found[annotation["image_id"]].append((_annotation_id(annotation), " ".join(text.split())))
    return {image_id: [text for _, text in sorted(texts)] for image_id, texts in found.items()}


def _objects(
    content: Record, path: Path, label_of: dict[int, int], by_id: dict[int, Record], dropped: Counter[str]
) -> dict[int, list[Record]]:
    """Image id -> its objects with a usable box, in the order of their ids."""
    found: dict[int, list[Record]] = defaultdict(list)
    for annotation in content["annotations"]:
        category = annotation.get("category_id")
        if not _is_id(category) or category not in label_of:
            raise InputError(
                f"instances: {path} has no category {category!r} that annotation {annotation.get('id')!r} is of; "
                f'add it to "categories" or leave the annotation out'
            )
        box = annotation.get("bbox")
        if not _known_image(annotation, by_id):
            dropped["objects of images that the instances JSON lacks"] += 1
        elif not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
            dropped["objects without a box of four numbers"] += 1
        else:
            found[annotation["image_id"]].append(_object(annotation, label_of[category]))
    return {image_id: sorted(objects, key=lambda one: one["id"]) for image_id, objects in found.items()}


def _object(annotation: Record, label: int) -> Record:
    area, segmentation = annotation.get("area"), annotation.get("segmentation")
    attributes = annotation.get("attributes")
    return {
        "id": _annotation_id(annotation),
        "label": label,
        "box": [float(side) for side in annotation["bbox"]],
        "area": float(area) if _is_number(area) and area > 0 else None,
        "crowd": bool(annotation.get("iscrowd", 0)),
        "segmentation": json.dumps(segmentation) if segmentation else None,
        "colour": _name(attributes.get("colour") if isinstance(attributes, dict) else None, COLOURS),
    }


def _row(image: Record, captions: list[str], objects: Iterable[Record]) -> Record:
    objects = list(objects)
    name, width, height = image.get("file_name"), image.get("width"), image.get("height")
    sized = _is_id(width) and _is_id(height) and 0 < min(width, height) <= max(width, height) < 2**31
    return {
        "image_id": image["id"],
        "file_name": name if isinstance(name, str) else "",
        "width": width if sized else None,
        "height": height if sized else None,
        "captions": captions,
        "annotation_ids": [one["id"] for one in objects],
        "labels": [one["label"] for one in objects],
        "boxes": [side for one in objects for side in one["box"]],
        "areas": [one["area"] for one in objects],
        "crowds": [one["crowd"] for one in objects],
        "segmentations": [one["segmentation"] for one in objects],
        "colours": [one["colour"] for one in objects],
        "scene": _name(image.get("scene"), SCENES),
    }


def _check_folder(folder: Path, names: list[str], instances: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"images: no folder {folder}; check the path")
    if not any(name and (folder / name).is_file() for name in names):
        first = names[0] or "unnamed"
        raise InputError(f"images: none of the {len(names)} images of {instances} is in {folder} (the first: {first})")


def _listing(folder: Path) -> str:
    """sha256 over the names and sizes of the files below a folder (hidden ones apart)."""
    if not folder.is_dir():
        raise InputError(f"images: no folder {folder}; check the path")
    names = (Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith("."))
    # A dangling link is a file that is not there; the rows say so later.
    sizes = sorted((p.relative_to(folder).as_posix(), p.stat().st_size if p.exists() else -1) for p in names)
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _known_image(annotation: Record, by_id: dict[int, Record]) -> bool:
    image_id = annotation.get("image_id")
    return _is_id(image_id) and image_id in by_id


def _annotation_id(annotation: Record) -> int:
    number = annotation.get("id")
    return number if _is_id(number) else -1


def _name(value: object, names: Sequence[str]) -> str | None:
    """The value where it is one of the names."""
    return value if isinstance(value, str) and value in names else None


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
