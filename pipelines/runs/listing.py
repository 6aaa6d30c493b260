"""The runs in a storage, as seen from outside: what each is doing, who holds it, and how it goes on."""

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from objgan.errors import InputError
from pipelines import command_line
from pipelines.redaction import place_of
from pipelines.runs.status import FILE, RunStatus
from pipelines.runs.sweeps import resume_command, sweep_above
from pipelines.storage.lease import LEASE, LeaseInfo, holder
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.mlflow_tracker import RUN_FILE
from pipelines.tracking.offline_queue import OfflineQueue, shown

# ID/STAGE, OUT/STAGE-IDENTITY, and a sweep's ID/trials/TRIAL/SEGMENT/STAGE.
_DEPTH = 5
# Any of these makes a folder a run.
_MARKS = {FILE, "settings.json"}
_FILES = re.compile(r"\.(json|jsonl|txt|png|jpg|yaml|db|arrow|safetensors|csv|html|md)(-journal|-wal|-shm)?$")
# A run of an older release, or of another scheduler, has no lease: so long after its last word it counts as alive.
_SILENCE = 60.0
_STEP_FOLDER = re.compile(r"^(?P<stage>.+)-[0-9a-f]{10}$")


@dataclass(frozen=True)
class RunInfo:
    """A run as it stands: `state` is the status's, or `dead` (killed), `begun` (no status yet) or `unreadable`."""

    name: str
    """Its folder within the storage: ID/STAGE, or OUT/STAGE-IDENTITY."""
    storage: Storage
    state: str
    alive: bool
    status: RunStatus | None
    held: LeaseInfo | None
    problem: str | None = None
    """Why the state is `unreadable`."""

    @property
    def stage(self) -> str:
        """What is trained."""
        last = self.name.rsplit("/", 1)[-1]
        match = _STEP_FOLDER.match(last)
        return self.status.stage if self.status else match["stage"] if match else last

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        status = asdict(self.status) if self.status else {}
        by = {"host": self.held.host, "pid": self.held.pid, "command": self.held.command} if self.held else None
        whole = {"run": self.name, "stage": self.stage, "state": self.state, "alive": self.alive, "held_by": by}
        return {**status, **whole, "folder": str(self.storage), "problem": self.problem, "to_go_on": to_go_on(self)}


def find_runs(base: Storage) -> list[RunInfo]:
    """Every run in a storage, by name."""
    return [_look(base, folder, names) for folder, names in _folders(base, "", _DEPTH) if names & _MARKS]


def find_groups(base: Storage) -> list[tuple[str, Storage]]:
    """Folders above runs that are MLflow runs themselves: the OUT of `run` and `demo`."""
    found = [
        (folder, names)
        for folder, names in _folders(base, "", _DEPTH - 1)
        if RUN_FILE in names and "settings.json" not in names
    ]
    runs = [info.name for info in find_runs(base)] if found else []
    return [(folder, base.child(folder)) for folder, _ in found if any(name.startswith(f"{folder}/") for name in runs)]


def choose(base: Storage, wanted: str) -> list[RunInfo]:
    """The run of that name, or all runs of that ID; a path or a URI that leads to them is understood, too.

    Raises:
        InputError: there is none; the known ones are named.
    """
    there, name = find_runs(base), name_within(base, wanted)
    chosen = [info for info in there if info.name == name] or [r for r in there if r.name.startswith(f"{name}/")]
    if not chosen and "://" in wanted and Storage(wanted).exists():
        last = wanted.partition("?")[0].rstrip("/").rpartition("/")[2]
        return choose(Storage(wanted).above(), last)
    if not chosen:
        known = ", ".join(info.name for info in there[:20]) or "none"
        raise InputError(f"no run {place_of(wanted)} in {shown(base)}: known are {known}")
    return chosen


def name_within(base: Storage, wanted: str) -> str:
    """The name of a run that was named by itself or by a path to it."""
    for place in (str(base), shown(base)):
        if wanted.startswith(f"{place}/"):
            return wanted.removeprefix(f"{place}/").strip("/")
    return wanted.strip("/")


def is_alive(storage: Storage) -> bool:
    """Whether a living process holds a folder, or the one above it."""
    return any(held is not None and held.seems_alive for held in _holders(storage))


def table(runs: Sequence[RunInfo]) -> str:
    """One line a run."""
    head = ("RUN", "STAGE", "STATE", "STEP", "SAMPLES/S", "LEFT", "CHECKPOINT", "SEEN", "HELD BY")
    return command_line.table([head, *(_row(info) for info in runs)])


def describe(info: RunInfo) -> str:
    """Everything worth knowing about a run, a line each."""
    lines = [("state", _state_text(info)), *_status_lines(info.status)]
    if queued := OfflineQueue(info.storage).summary():
        lines.append(("MLflow", queued.text().partition(": ")[2]))
    if command := to_go_on(info):
        lines.append(("to go on", command))
    return "\n".join([f"{info.name} ({info.stage})", *(f"  {name:<12}{text}" for name, text in lines)])


def to_go_on(info: RunInfo) -> str | None:
    """What to type to go on with a run; None where it is under way or finished. Of a trial it resumes the sweep."""
    if info.alive or info.state in ("finished", "unreadable"):
        return None
    base = info.storage.above(info.name.count("/") + 1)
    if (found := sweep_above(base, info.name)) is not None:
        sweep, confirming = found
        if confirming and not sweep.alive:
            return f"{resume_command(sweep.location, sweep.name)} --confirm N (as it was begun)"
        return sweep.to_resume
    command = (info.status.command if info.status else None) or (info.held.command if info.held else None)
    if command and "pipelines" in command:
        return re.sub(r"^(\S*python\S* )?\S*pipelines/__main__\.py", "python -m pipelines", command)
    above, _, last = info.name.rpartition("/")
    if _STEP_FOLDER.match(last):
        out = shlex.quote(info.storage.above().address)
        return f"python -m pipelines run --out {out} (with the options of its start)"
    where = "" if base.local == RUNS.resolve() else f" --storage {shlex.quote(base.address)}"
    return f"python -m pipelines train {info.stage} --run {above or last}{where} (with the options of its start)"


def _folders(base: Storage, folder: str, depth: int) -> Iterator[tuple[str, set[str]]]:
    names = set(base.names(folder))
    if folder:
        yield folder, names
    # The OUT of `run` has a status, too, and its steps are below it.
    if depth and "settings.json" not in names:
        for name in sorted(names):
            if not _FILES.search(name):
                yield from _folders(base, f"{folder}/{name}" if folder else name, depth - 1)


def _look(base: Storage, folder: str, names: set[str]) -> RunInfo:
    storage = base.child(folder)
    held = next((each for each in _holders(storage) if each is not None), None)
    alive, status, problem = held is not None and held.seems_alive, None, None
    try:
        status = RunStatus.load(storage) if FILE in names else None
    except InputError as error:
        problem = str(error)
    if held is None and status is not None and status.state == "running":
        alive = time.time() - status.updated < _SILENCE
    state = _state(status, alive, problem, "finished.json" in names)
    return RunInfo(folder, storage, state, alive, status, held, problem)


def _state(status: RunStatus | None, alive: bool, problem: str | None, finished: bool) -> str:
    if finished:
        return "finished"
    if problem is not None:
        return "unreadable"
    if status is None:
        return "running" if alive else "begun"
    return "dead" if status.state == "running" and not alive else status.state


def _holders(storage: Storage) -> list[LeaseInfo | None]:
    """Of the folder, and of the one above it: `run` holds all its steps by one lease. A broken lease holds nothing."""
    places = [storage]
    if "/" in storage.path.strip("/"):
        places.append(storage.above())
    found = []
    for place in places:
        try:
            found.append(holder(place) if place.exists(LEASE) else None)
        except InputError:
            found.append(None)
    return found


def _row(info: RunInfo) -> tuple[str, ...]:
    status = info.status
    if status is None:
        return info.name, info.stage, info.state, "-", "-", "-", "-", "-", _held(info)
    return (
        info.name,
        info.stage,
        info.state,
        f"{status.step}/{status.steps}",
        "-" if status.samples_per_s is None else f"{status.samples_per_s:.3g}",
        "-" if status.eta_s is None or info.state != "running" else span(status.eta_s),
        "-" if status.checkpoint is None else status.checkpoint.name,
        f"{span(time.time() - status.updated)} ago",
        _held(info),
    )


def _held(info: RunInfo) -> str:
    if info.held is None:
        return "-"
    return f"{info.held.pid} on {info.held.host}{'' if info.alive else ' (dead)'}"


def _state_text(info: RunInfo) -> str:
    why = info.status.reason if info.status else None
    if info.state == "dead":
        who = f"{info.held} is gone" if info.held else "it has not been heard of, and nobody holds it"
        return f"dead: {who}"
    if info.state == "unreadable":
        return f"unreadable: {info.problem}"
    held = f", held by {info.held}" if info.held and info.alive else ""
    return f"{info.state}{f' ({why})' if why else ''}{held}"


def _status_lines(status: RunStatus | None) -> list[tuple[str, str]]:
    if status is None:
        return []
    share = f" ({status.step / status.steps:.0%})" if status.steps else ""
    lines = [("step", f"{status.step}/{status.steps}{share}, reported {span(time.time() - status.updated)} ago")]
    if status.samples_per_s is not None:
        lines.append(("speed", f"{status.samples_per_s:.3g} samples/s, {status.workers} workers"))
    if status.state == "running" and status.eta_s is not None:
        lines.append(("left", span(status.eta_s)))
    if note := status.checkpoint:
        lines.append(("checkpoint", f"{note.name} (step {note.step}, {span(time.time() - note.time)} ago)"))
    if status.skipped:
        lines.append(("left out", f"{command_line.counted(status.skipped, 'step')}, not finite"))
    if status.restarts:
        lines.append(("restarts", str(status.restarts)))
    if status.error:
        lines.append(("last error", status.error))
    if status.mlflow_run:
        lines.append(("MLflow run", status.mlflow_run))
    return lines


def span(seconds: float) -> str:
    """A length of time for people."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 120 else str(timedelta(seconds=whole))
