"""`study.log`: the sweep as a study of Optuna, for `optuna-dashboard` and `optuna.load_study`, while it runs and after.

The trials' rows are the truth, and the study is written from them. The file is a journal of Optuna: a new version
begins with the old one, so that a program that follows it can continue to read.
"""

import json
import logging
import warnings
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from pipelines.storage.retry import brief, only_logged
from pipelines.storage.storage import Storage
from tune.space.space import Knob
from tune.sweep.results import Trial
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import ENDED

logger = logging.getLogger(__name__)
FILE = "study.log"
_ID = "id"


class StudyLog:
    """Observer: keeps `study.log` of a sweep up to date. Only the process with the sweep's lease has one.

    A file that cannot be written is logged and stops nothing.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._journal = _Journal(sweep.store())
        try:
            self._open()
        except Exception as error:  # whatever Optuna raises for lines of another form
            logger.warning(f"{sweep.store()}/{FILE} is damaged ({brief(error)}): it is written again, from the trials")
            self._journal.clear()
            self._open()

    def _open(self) -> None:
        self._storage = JournalStorage(self._journal)
        goal = self._sweep.goal
        self._study = optuna.create_study(
            study_name=self._sweep.run, storage=self._storage, directions=goal.directions, load_if_exists=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls this function experimental.
            self._study.set_metric_names([objective.metric for objective in goal.objectives])
        self._ids = {trial.user_attrs[_ID]: trial._trial_id for trial in self._study.trials if _ID in trial.user_attrs}

    def trial(self, row: Trial) -> None:
        """See `Observer`."""
        if row.id not in self._ids:
            self._ids[row.id] = self._begin(row)
        self._follow(row, self._ids[row.id])
        with only_logged(f"cannot write {self._sweep.store()}/{FILE}"):
            self._journal.flush()

    def _begin(self, row: Trial) -> int:
        inside = {
            name: knob
            for name, knob in self._sweep.space.knobs.items()
            if name in row.settings and knob.contains(row.settings[name])
        }
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={name: _value(row.settings[name]) for name in inside},
            distributions={name: _distribution(knob) for name, knob in inside.items()},
            user_attrs={_ID: row.id, "number": row.number, "settings": json.loads(json.dumps(row.settings))},
        )
        return int(self._storage.create_new_trial(self._study._study_id, template))

    def _follow(self, row: Trial, trial_id: int) -> None:
        """Add to the study what is new in a row."""
        goal, known = self._sweep.goal, self._storage.get_trial(trial_id)
        if known.state.is_finished():
            return
        for point in row.points:
            if point.step not in known.intermediate_values and goal.metric in point.measures:
                self._storage.set_trial_intermediate_value(trial_id, point.step, point.measures[goal.metric])
        if known.user_attrs.get("state") != row.state:
            self._storage.set_trial_user_attr(trial_id, "state", row.state)
        if row.state in ENDED:
            report = row.report(goal)
            lost = report is None or row.state in ("failed", "diverged")
            values = None if report is None or lost else goal.values(report.measures)
            for name, violation in ({} if report is None or lost else goal.violations(report.measures)).items():
                self._storage.set_trial_system_attr(trial_id, f"constraints:{name}", violation)  # as `set_constraint`
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL if lost else TrialState.COMPLETE, values)


class _Journal(BaseJournalBackend):
    """Optuna's journal in a sweep's storage, in the form of `JournalFileBackend`, whole after every `flush`."""

    def __init__(self, store: Storage) -> None:
        self._store, self._changed = store, False
        self._logs: list[Any]
        try:
            self._logs = [json.loads(line) for line in store.read(FILE).splitlines()]
        except (FileNotFoundError, ValueError):
            self.clear()  # A damaged file is written again, from the rows.

    def clear(self) -> None:
        """Forget all that was read."""
        self._logs = []

    def read_logs(self, log_number_from: int) -> Any:
        """See Optuna."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See Optuna."""
        self._logs += [json.loads(json.dumps(log)) for log in logs]
        self._changed = True

    def flush(self) -> None:
        """Write the file, if it has changed."""
        if self._changed:
            lines = [json.dumps(log, separators=(",", ":")) for log in self._logs]
            self._store.write(FILE, "\n".join(lines) + "\n")
            self._changed = False


def _value(value: Any) -> Any:
    """A choice as Optuna stores it."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _distribution(knob: Knob) -> Any:
    if knob.kind == "choice":
        return optuna.distributions.CategoricalDistribution([_value(value) for value in knob.values])
    if knob.whole:
        return optuna.distributions.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
