"""Segments of a trial under population-based training: a new one begins where a donor's weights are taken over.

Each segment is an ordinary training run that was begun with settings of its own, and whose first checkpoint is a
copy of the donor's: networks, averages and the state of the optimisers. Rates and weights of losses are settings, not
state, so the new ones are in force from the next step on.
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
    """Those of one trial; `segments.json` is written last of all, so what is half copied never counts."""

    def __init__(self, store: Storage, trial: str, stage: str) -> None:
        self._store, self._trial, self._stage = store, trial, stage
        self._entries: list[dict[str, Any]] = store.json(f"{TRIALS}/{trial}/{_FILE}") or []

    @property
    def current(self) -> int:
        """The number of the present one; 0 has no donor."""
        return len(self._entries)

    @property
    def settings(self) -> dict[str, Any] | None:
        """Settings of the present one; None: those that the trial began with."""
        return dict(self._entries[-1]["settings"]) if self._entries else None

    @property
    def begins(self) -> int:
        """The step at which the present one begins."""
        return int(self._entries[-1]["step"]) if self._entries else 0

    @property
    def donors(self) -> list[tuple[int, str]]:
        """(step, trial) of every take-over."""
        return [(int(entry["step"]), str(entry["donor"])) for entry in self._entries]

    def run(self, stage: str) -> Storage:
        """Where a stage of the present one lies."""
        return self._store.child(trial_folder(self._trial, self.current)).child(stage)

    def take_over(self, pointer: dict[str, Any], settings: dict[str, Any]) -> None:
        """Begin a segment with a copy of the checkpoint that `pointer` names, unless that was done before.

        Raises:
            FileNotFoundError: the donor has no such checkpoint any more.
        """
        entry = {"donor": pointer["trial"], "step": pointer["step"], "settings": settings}
        if self._entries and {name: self._entries[-1][name] for name in entry} == entry:
            return
        place = f"{trial_folder(self._trial, self.current + 1)}"
        self._store.delete(place)
        source = self._store.child(trial_folder(pointer["trial"], pointer["segment"])).child(self._stage)
        target = self._store.child(place).child(self._stage)
        with tempfile.TemporaryDirectory(prefix="objgan-") as aside:
            folder = source.download(pointer["name"], Path(aside) / pointer["name"])
            target.upload(folder, pointer["name"], last=STATE)
        self._entries.append(entry)
        self._store.write(f"{TRIALS}/{self._trial}/{_FILE}", json.dumps(self._entries, indent=1) + "\n")
