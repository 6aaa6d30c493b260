"""Checks across files: small files, the totals of the manifest, images that occur twice."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.errors import InputError
from objgan.json_input import parse_json
from pipelines.data.shards.concerns import contradictions
from pipelines.data.shards.format import Shard, dataset_digest
from pipelines.data.shards.manifest import ACCOUNTS, COUNTS, INDEX, MANIFEST, SHARD, SPLITS
from pipelines.data.shards.rejected import Reject, RejectCounts
from pipelines.data.shards.remote import read_bytes
from pipelines.data.verify.shard_checks import CheckReport, Fault, cannot, wrong_bytes
from pipelines.storage.retry import StorageAway
from pipelines.storage.storage import Storage

_MOST_TWICE = 10


def extra_files(storage: Storage, manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Shards in the folder that the manifest does not list: a reader of `train-*` would take them for data."""
    known = {file["name"] for file in (*manifest["shards"], *manifest["indices"])}
    for name in storage.names():
        if (SHARD.fullmatch(name) or INDEX.fullmatch(name)) and name not in known:
            yield Fault(name, f"not listed in {MANIFEST}: it belongs to another preparation, move it away")


def domain_faults(storage: Storage, manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the domain files, and of their classes and words compared with the manifest."""
    contents: dict[str, pa.Buffer] = {}
    for name, digest in manifest["domain"].items():
        data = _read(storage, f"domain/{name}")
        if isinstance(data, Fault):
            yield data
        elif fault := wrong_bytes(data, None, digest):
            yield Fault(f"domain/{name}", fault)
        else:
            contents[name] = data
    if len(contents) < len(manifest["domain"]):
        return
    try:
        classes, words = (parse_json(bytes(contents[name])) for name in ("classes.json", "vocabulary.json"))
        if classes != manifest["classes"]:
            yield Fault("domain/classes.json", "its classes differ from the manifest's")
        if len(words["words"]) != manifest["counts"].get("words"):
            text = f"{len(words['words'])} words, the manifest says {manifest['counts'].get('words')}"
            yield Fault("domain/vocabulary.json", text)
    except (KeyError, TypeError, ValueError) as error:
        yield Fault("domain", f"not what prepare writes ({type(error).__name__}: {error})")


def rejected_faults(storage: Storage, manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the list of rejects, and of its counts compared with the manifest."""
    rejected = manifest["rejected"]
    data = _read(storage, rejected["file"])
    if isinstance(data, Fault):
        yield data
        return
    if wrong := wrong_bytes(data, rejected["bytes"], rejected["sha256"]):
        yield Fault(rejected["file"], wrong)
        return  # its content is unknown
    counts = RejectCounts()
    try:
        for line in io.BytesIO(data):
            counts.add(Reject(**parse_json(line)))
    except (TypeError, ValueError) as error:
        yield Fault(rejected["file"], f"line {len(counts) + 1} is not a rejected record ({error})")
        return
    for name, value in counts.facts().items():
        if rejected[name] != value:
            yield Fault(MANIFEST, f"rejected.{name} says {rejected[name]}, {rejected['file']} has {value}")


def text_id_faults(storage: Storage, manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the list of ids that were texts, if there is one."""
    listed = manifest["text_ids"]
    if listed is None:
        return
    data = _read(storage, listed["file"])
    if isinstance(data, Fault):
        yield data
    elif wrong := wrong_bytes(data, listed["bytes"], listed["sha256"]):
        yield Fault(listed["file"], wrong)


def _read(storage: Storage, name: str) -> pa.Buffer | Fault:
    try:
        return read_bytes(storage, name)
    except StorageAway:
        raise
    except (OSError, InputError, pa.ArrowException) as error:
        return Fault(name, cannot(error))


def own_faults(manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Contradictions within the manifest."""
    files = [Shard(**facts) for facts in (*manifest["shards"], *manifest["indices"])]
    if manifest["digest"] != dataset_digest(files, manifest["domain"]):
        yield Fault(MANIFEST, "its digest does not match the files that it lists: the manifest was changed")
    counted = contradictions(facts["contradictions"] for facts in manifest["shards"])
    if manifest["contradictions"] != counted:
        yield Fault(MANIFEST, f"contradictions says {manifest['contradictions']}, its shards {counted}")
    for split in SPLITS:
        listed = sum(facts["rows"] for facts in manifest["shards"] if facts["split"] == split)
        if manifest["rows"].get(split) != listed:
            yield Fault(MANIFEST, f"rows.{split} says {manifest['rows'].get(split)}, its shards {listed}")
        if [facts["split"] for facts in manifest["indices"]].count(split) != 1:
            yield Fault(MANIFEST, f"lists no index of {split}, or several")


def joint_faults(manifest: Mapping[str, Any], reports: Mapping[str, CheckReport]) -> Iterator[Fault]:
    """Wrong totals, indices of other rows, images that occur twice; nothing if a shard could not be read."""
    shards = [reports[facts["name"]] for facts in manifest["shards"]]
    if any(report.image_ids is None for report in shards):
        return  # every total would be wrong
    yield from _count_faults(manifest, sum((report.counts for report in shards), Counter[str]()))
    ids = {split: _joined(report for report in shards if report.shard.split == split) for split in SPLITS}
    for facts in manifest["indices"]:
        indexed = reports[facts["name"]].image_ids
        if indexed is not None:
            yield from _index_faults(facts["name"], indexed, ids[facts["split"]])
    known, times = np.unique(np.concatenate(list(ids.values())), return_counts=True)
    twice = known[times > 1]
    for image_id in twice[:_MOST_TWICE].tolist():
        where = [report.shard.name for report in shards if image_id in _ids(report)]
        yield Fault(MANIFEST, f"image {image_id} occurs more than once, in {', '.join(where)}")
    if len(twice) > _MOST_TWICE:
        yield Fault(MANIFEST, f"{len(twice) - _MOST_TWICE} more images occur more than once")


def _ids(report: CheckReport) -> np.ndarray:
    return np.zeros(0, np.int64) if report.image_ids is None else report.image_ids


def _joined(reports: Iterator[CheckReport]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *map(_ids, reports)])


def _count_faults(manifest: Mapping[str, Any], counts: Counter[str]) -> Iterator[Fault]:
    """Counts of the shards that differ from the manifest, also together with the rejects from the input."""
    for name in COUNTS:
        if manifest["counts"].get(name) != counts[name]:
            yield Fault(MANIFEST, f"counts.{name} says {manifest['counts'].get(name)}, the shards hold {counts[name]}")
    for kind, name in ACCOUNTS:
        total, lost = manifest["totals"].get(kind), manifest["rejected"]["kinds"].get(kind)
        if total != counts[name] + (lost or 0):
            yield Fault(MANIFEST, f"totals.{kind} says {total}, but {counts[name]} are in shards, {lost} rejected")


def _index_faults(name: str, indexed: np.ndarray, ids: np.ndarray) -> Iterator[Fault]:
    if len(indexed) != len(ids):
        yield Fault(name, f"{len(indexed)} rows, the shards of its split have {len(ids)}")
    elif (indexed != ids).any():
        row = int(np.flatnonzero(indexed != ids)[0])
        yield Fault(name, f"image {indexed[row]}, the shards have {ids[row]} in its place", row)
