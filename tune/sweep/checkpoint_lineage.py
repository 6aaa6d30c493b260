"""Segments of a trial under population-based training: each take-over of a donor's weights begins a new one.

Each segment is an ordinary training run with its own settings, whose first checkpoint is a copy of the donor's:
networks, averages and the state of the optimisers. Learning rates and loss weights are settings, not state, so the new
values apply from the next step.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from objgan.checkpoint import STATE
from pipelines.storage.storage import Storage
from tune.sweep.trial_store import TRIALS, trial_folder

_FILE = "segments.json"


class CheckpointLineage:
    """The segments of one trial. `segments.json` is written last, so an incomplete copy never counts."""

    def __init__(self, store: Storage, trial: str, stage: str) -> None:
        self._store, self._trial, self._stage = store, trial, stage
        self._entries: list[dict[str, Any]] = store.json(f"{TRIALS}/{trial}/{_FILE}") or []

    @property
    def current(self) -> int:
        """The number of the current segment; 0 has no donor."""
        return len(self._entries)

    @property
    def settings(self) -> dict[str, Any] | None:
        """Settings of the current segment; None: the trial's initial settings."""
        return dict(self._entries[-1]["settings"]) if self._entries else None

    @property
    def begins(self) -> int:
        """The first step of the current segment."""
        return int(self._entries[-1]["step"]) if self._entries else 0

    @property
    def donors(self) -> list[tuple[int, str]]:
        """(step, trial) of every take-over."""
        return [(int(entry["step"]), str(entry["donor"])) for entry in self._entries]

    def run(self, stage: str) -> Storage:
        """The storage of a stage's run in the current segment."""
        return self._store.child(trial_folder(self._trial, self.current)).child(stage)

    def take_over(self, pointer: dict[str, Any], settings: dict[str, Any]) -> None:
        """Begin a segment with a copy of the checkpoint that `pointer` names, unless it has begun already.

        Raises:
            FileNotFoundError: the donor's checkpoint no longer exists.
        """
        entry = {"donor": pointer["trial"], "step": pointer["step"], "settings": settings}
        if self._entries and {name: self._entries[-1][name] for name in entry} == entry:
            return
        target_folder = trial_folder(self._trial, self.current + 1)
        self._store.delete(target_folder)
        source = self._store.child(trial_folder(pointer["trial"], pointer["segment"])).child(self._stage)
        target = self._store.child(target_folder).child(self._stage)
        with tempfile.TemporaryDirectory(prefix="objgan-") as scratch:
            folder = source.download(pointer["name"], Path(scratch) / pointer["name"])
            target.upload(folder, pointer["name"], last=STATE)
        self._entries.append(entry)
        self._store.write(f"{TRIALS}/{self._trial}/{_FILE}", json.dumps(self._entries, indent=1) + "\n")
