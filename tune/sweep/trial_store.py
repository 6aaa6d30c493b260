"""The rows of trials in a sweep's storage: files, rewritten at every event, from which a resumed sweep starts.

```
sweep.json                   the definition of the sweep (tune.sweep.spec_file)
inputs.json                  checksums of the data and of the shared checkpoints
state.json                   {"state", "seconds", "reason", "left"}; left: number of trials that have not ended
trials/ID/trial.json         a trial's row; the driver writes it
trials/ID/points.json        measures that the trial itself wrote; may be one report ahead of the row
trials/ID/segments.json      under population-based training: donor and settings of each segment
trials/ID[/segment_01]/STAGE an ordinary training run
```
Nothing is pickled: Ray Tune's own state is deleted at the end of each process.
"""

import hashlib
import json
from dataclasses import asdict, fields
from typing import Any, get_args

from objgan.errors import InputError
from pipelines.storage.storage import Storage
from tune.sweep.results import Point, State, SweepResult, Trial

TRIALS = "trials"
_STATE, _ROW = "state.json", "trial.json"
ENDED: frozenset[State] = frozenset({"finished", "stopped", "failed", "diverged"})
"""States of trials that a resumed sweep does not run again."""


def trial_id(seed: int, number: int) -> str:
    """The id of a trial: a function of the sweep's seed and the trial's number, so that no trial runs twice."""
    return f"{number:03d}_{hashlib.sha256(f'{seed}/{number}'.encode()).hexdigest()[:6]}"


def trial_folder(trial: str, segment: int = 0) -> str:
    """The folder of a trial's stages below the sweep; each take-over of a donor's weights begins a segment."""
    return f"{TRIALS}/{trial}" + (f"/segment_{segment:02d}" if segment else "")


def checkpoint_place(store: Storage, trial: Trial, stage: str) -> tuple[Storage, str]:
    """The storage of the run with a trial's best checkpoint, and the checkpoint's name.

    Raises:
        InputError: the trial has none.
    """
    if trial.checkpoint is None:
        raise InputError(f"trial {trial.id} of {store} has no measured checkpoint")
    return store.child(trial_folder(trial.id, trial.segment)).child(stage), trial.checkpoint


class TrialStore:
    """The rows of a sweep, in memory and in its storage. Only the process with the sweep's lease writes."""

    def __init__(self, store: Storage) -> None:
        self.store = store
        files = [f"{TRIALS}/{name}/{_ROW}" for name in store.names(TRIALS)]
        rows = [_row(facts, f"{store}/{file}") for file in files if (facts := store.json(file)) is not None]
        self.rows: dict[str, Trial] = {row.id: row for row in rows}
        state = store.json(_STATE) or {}
        self.state: str | None = state.get("state")
        self.seconds = float(state.get("seconds", 0.0))
        self.reason: str | None = state.get("reason")

    def put(self, row: Trial) -> None:
        """Write a row, unless it is unchanged."""
        if self.rows.get(row.id) == row:
            return
        self.store.write(f"{trial_folder(row.id)}/{_ROW}", json.dumps(asdict(row), indent=1) + "\n")
        self.rows[row.id] = row

    def put_state(self, state: str, seconds: float, reason: str | None = None, left: int = 0) -> None:
        """Write the state of the sweep; left: number of trials that have not ended."""
        self.state, self.seconds, self.reason = state, round(seconds, 3), reason
        facts = {"state": state, "seconds": self.seconds, "reason": reason, "left": left}
        self.store.write(_STATE, json.dumps(facts) + "\n")

    def result(self) -> SweepResult:
        """All rows, by number."""
        state: Any = self.state or "running"
        rows = sorted(self.rows.values(), key=lambda row: row.number)
        return SweepResult(state, tuple(rows), self.seconds, self.reason)

    def ended(self) -> list[Trial]:
        """Trials that have ended, by number."""
        return sorted((row for row in self.rows.values() if row.state in ENDED), key=lambda row: row.number)


def load_result(store: Storage) -> SweepResult | None:
    """The results of a sweep so far; None: there is none.

    Raises:
        InputError: `TrialStore` did not write a row.
    """
    rows = TrialStore(store)
    return rows.result() if rows.state is not None or rows.rows else None


def _row(facts: Any, where: str) -> Trial:
    try:
        known = {field.name for field in fields(Trial)}
        values = {name: value for name, value in facts.items() if name in known}
        points = tuple(Point(**point) for point in values.pop("points", ()))
        donors = tuple((int(step), str(donor)) for step, donor in values.pop("donors", ()))
        row = Trial(**values, points=points, donors=donors)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where} is not a trial's row ({error}): restore it") from None
    if row.state not in get_args(State):
        raise InputError(f"{where}: unknown state {row.state!r}: restore it")
    return row
