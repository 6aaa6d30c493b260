"""Folders that were begun or finished before: what stays, what is made again, what goes."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.data.prepare.convert import WORK, Report, read_receipt, receipt_path, write_receipt
from pipelines.data.shards.format import FORMATS, MANIFEST, SPLITS, Shard
from pipelines.data.shards.rejected import Reject, read_rejects

Log = Callable[[str], None]


def reopen(out: Path, manifest: Mapping[str, Any], log: Log) -> None:
    """Make a finished folder an unfinished one that lacks the shards of which any image was rejected."""
    rejects: dict[str, list[Reject]] = {}
    for one in read_rejects(out / manifest["rejected"]["file"]):
        if one.shard is not None:
            rejects.setdefault(one.shard, []).append(one)
    for shard in (Shard(**facts) for facts in manifest["shards"]):
        lost = rejects.get(shard.name, [])
        if any(one.kind == "image" for one in lost):
            receipt_path(out, shard.name).unlink(missing_ok=True)
        else:
            write_receipt(out, shard.name, Report(shard, shard.inputs, tuple(lost)))
    (out / MANIFEST).unlink()
    log(f"prepare: taking the {manifest['rejected']['kinds']['image']} rejected images again")


def forget_rejects(out: Path) -> None:
    """Of an unfinished folder: have shards made again of which any image was rejected."""
    for path in (out / WORK / "receipts").glob("*.json"):
        report = read_receipt(out, path.name.removesuffix(".json"))
        if report is None or any(one.kind == "image" for one in report.rejected):
            path.unlink()


def remove_leftovers(out: Path, kept: set[str]) -> None:
    """Shards of an earlier, unfinished try with other inputs, and what a killed writer left half done."""
    for split in SPLITS:
        for ending in FORMATS:
            for path in out.glob(f"{split}-[0-9]*.{ending}"):
                if path.name not in kept:
                    path.unlink()
    names = [*SPLITS, "manifest.json.", "rejected.jsonl."]
    halves = [path for name in names for path in out.glob(f".{name}*")] + list((out / "domain").glob(".*"))
    for path in halves:
        path.unlink(missing_ok=True)


def clean(out: Path, manifest: Mapping[str, Any]) -> None:
    """Remove what nobody needs any more."""
    remove_leftovers(out, {shard["name"] for shard in manifest["shards"]})
    shutil.rmtree(out / WORK, ignore_errors=True)
