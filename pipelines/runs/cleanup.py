"""What killed writers leave behind in runs, found and removed; and the end of dead runs recorded in MLflow."""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow.fs

from objgan.checkpoint import read_config, read_state
from objgan.errors import InputError
from objgan.stages import stage_class
from pipelines.redaction import in_a_line
from pipelines.runs.listing import choose, find_groups, find_runs, is_alive, name_within
from pipelines.storage.checkpoints import CheckpointStore
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client
from pipelines.tracking.offline_queue import FOLDER, OfflineQueue, shown
from pipelines.tracking.tracker import Tracking, known_run, send_queued, store_exists

logger = logging.getLogger(__name__)
# Written aside (`.step_00000040.x7ab3c_1`), on its way out (`.step_00000040.deleted.1f2e`), Ray's own, or set aside.
_LEFT = re.compile(r"^(\.[^/]+\.[^./]+|\.ray.*|ray-.*|broken_step_.*)$")
_SEND_S = 600.0
_STATUS = {"finished": "FINISHED", "failed": "FAILED"}


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs, and its size in bytes."""

    storage: Storage
    name: str
    size: int


def leftovers(base: Storage) -> list[Leftover]:
    """What killed writers left in runs that nobody holds, and in the folders of `run`."""
    found: list[Leftover] = []
    for storage in [*_unheld(base), *_above(base)]:
        hidden = storage.names(hidden=True)
        names = [name for name in hidden if _LEFT.match(name)]
        names += _surplus(storage)
        names += [f"{FOLDER}/{name}" for name in _orphans(storage.names(FOLDER, hidden=True))]
        found += [Leftover(storage, name, _size(storage, name)) for name in names]
    return found


def collect(base: Storage, dry: bool) -> None:
    """Remove leftovers, saying what; `dry`: only say it."""
    found = leftovers(base)
    for each in found:
        logger.info(f"{'would remove' if dry else 'removed'} {shown(each.storage)}/{each.name} ({_bytes(each.size)})")
        if not dry:
            each.storage.delete(each.name)
    verb = "could be freed" if dry else "freed"
    logger.info(f"{_bytes(sum(each.size for each in found))} {verb} in {shown(base)}")


def collect_models(uri: str, dry: bool) -> None:
    """Remove models from MLflow that a killed `register` logged and that never became a version."""
    if not store_exists(uri):
        return
    from pipelines.models.registry import mlflow_at, orphans, remove_orphan

    try:
        with mlflow_at(uri) as client:
            for model in orphans(client):
                if not dry:
                    remove_orphan(client, model)
                verb = "would remove" if dry else "removed"
                logger.info(f"MLflow: {verb} {model.model_id}, whose register was killed")
    except Exception as error:  # MLflow is not needed to clean up
        logger.info(f"MLflow: cannot look for models of killed registers ({in_a_line(error)})")


def reconcile(base: Storage, uri: str, dry: bool) -> None:
    """Runs that MLflow takes for RUNNING and that nobody holds get the status that they ended with."""
    places = [
        (run_info.name, run_info.storage, _STATUS.get(run_info.state, "KILLED"))
        for run_info in find_runs(base)
        if not run_info.alive
    ]
    places += [
        (name, storage, "KILLED") for name, storage in find_groups(base) if not _group_alive(base, name, storage)
    ]
    for name, storage, status in places:
        run = known_run(storage)
        if run is None or OfflineQueue(storage).names():
            continue  # the backlog says how it ended, and `runs send` sends it
        try:
            client = mlflow_client(uri)
            if client.get_run(run).info.status != "RUNNING":
                continue
            if not dry:
                client.set_terminated(run, status)
        except Exception as error:  # MLflow is not needed to clean up
            logger.info(f"MLflow: cannot ask about {name} ({in_a_line(error)})")
            continue
        verb = "would become" if dry else "is now"
        logger.info(f"MLflow: {name} {verb} {status} (it was RUNNING, and nobody holds it)")


def send(base: Storage, wanted: str, uri: str) -> bool:
    """Send the backlogs of a run, or of all runs of an ID, saying what; whether nothing is left.

    Raises:
        InputError: there is no such run.
    """
    chosen = [(run_info.name, run_info.storage, run_info.alive) for run_info in choose(base, wanted)]
    if len(chosen) > 1 or chosen[0][0] != name_within(base, wanted):
        names = [name for name, _, _ in chosen]
        groups = [(group, at) for group, at in find_groups(base) if any(name.startswith(f"{group}/") for name in names)]
        chosen += [(group, at, _group_alive(base, group, at)) for group, at in groups]
    left = False
    for name, storage, alive in chosen:
        before = OfflineQueue(storage).summary()
        if not before:
            logger.info(f"{name}: nothing is left to send")
        elif alive:
            logger.info(f"{name}: is under way, and sends what it kept itself")
        elif after := send_queued(Tracking(uri, known_run(storage), storage), _SEND_S):
            left = True
            logger.info(f"{name}: {after.text()}")
        else:
            logger.info(f"{name}: sent {before.metrics} metrics and {before.pictures} pictures")
    return not left


def _unheld(base: Storage) -> Iterator[Storage]:
    for run_info in find_runs(base):
        if not run_info.alive:
            yield run_info.storage
    for name, storage in find_groups(base):
        if not _group_alive(base, name, storage):
            yield storage


def _above(base: Storage) -> Iterator[Storage]:
    """The folders `ID` above runs `ID/STAGE`, where no process works: a killed `register` leaves half a model there."""
    known = {name for name, _ in find_groups(base)}
    names = {name.partition("/")[0] for name in (run_info.name for run_info in find_runs(base)) if "/" in name}
    for name in sorted(names - known):
        if not _group_alive(base, name, base.child(name)):
            yield base.child(name)


def _group_alive(base: Storage, name: str, storage: Storage) -> bool:
    below = (run_info for run_info in find_runs(base) if run_info.name.startswith(f"{name}/"))
    return is_alive(storage) or any(run_info.alive for run_info in below)


def _surplus(storage: Storage) -> list[str]:
    """Checkpoints that a writer would have pruned, had it not been killed; in a folder alone."""
    if storage.local is None:
        return []
    names = CheckpointStore(storage, 1, ("", "min")).names()
    try:
        newest = storage.local / names[-1]
        stage = read_state(newest)["stage"]
        training = getattr(read_config(newest), stage).training
    except (InputError, IndexError):
        return []  # of a run whose newest is broken, every checkpoint may be needed
    store = CheckpointStore(storage, training.keep_checkpoints, stage_class(stage).objective)
    best = store.best()
    kept = {*names[-training.keep_checkpoints :], *(best[:1] if best else ()), *store.pins()}
    done = storage.json("finished.json")
    return [name for name in names if name not in kept and (not done or name != done.get("checkpoint"))]


def _orphans(names: Iterable[str]) -> list[str]:
    """Pictures of a backlog whose records were sent, or never written; files written aside."""
    whole = {name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl")}
    pictures = [name for name in names if name.endswith(".png") and name.rpartition("-")[0] not in whole]
    return pictures + [name for name in names if _LEFT.match(name)]


def _size(storage: Storage, name: str) -> int:
    full = f"{storage.path}/{name}"
    infos = [storage.filesystem.get_file_info(full)]
    if infos[0].type == pyarrow.fs.FileType.Directory:
        infos = storage.filesystem.get_file_info(pyarrow.fs.FileSelector(full, recursive=True))
    return sum(info.size or 0 for info in infos if info.type == pyarrow.fs.FileType.File)


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} TB"
