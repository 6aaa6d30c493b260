"""The private parts of Ray that this project uses, as Ray 2.60 has them.

If one of these tests fails after an upgrade of Ray, the module that it names has to change with it.
"""

import ast
import copy
import inspect
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray._private.state
import ray.tune.schedulers
import ray.util.metrics
from packaging.requirements import Requirement
from packaging.version import Version
from ray._private import ray_logging
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import TrainContext, get_train_context
from ray.train.v2._internal.execution.preemption import PreemptionContext

from pipelines.training.driver import _Trainer
from pipelines.training.supervisor import Controlled


def test_variables_to_pass_on_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tune.engine.trial`"""
    monkeypatch.setattr(constants, "ENV_VARS_TO_PROPAGATE", copy.copy(constants.ENV_VARS_TO_PROPAGATE))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    constants.ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    assert constants.get_env_vars_to_propagate()["RAY_ADDRESS"] == "10.0.0.1:6379"


def test_the_controller_has_the_hooks_that_are_overridden() -> None:
    """`pipelines.training.supervisor`"""
    hooks = {name: method for name, method in vars(Controlled).items() if not name.startswith("_")}
    assert hooks
    for name, method in hooks.items():
        assert list(inspect.signature(method).parameters) == list(
            inspect.signature(getattr(ControllerCallback, name)).parameters
        )


def test_a_trainer_leaves_out_ray_data_and_nothing_else() -> None:
    """`pipelines.training.driver`"""
    ray_s, ours = (
        [type(one) for one in kind(lambda: None)._create_default_callbacks()] for kind in (TorchTrainer, _Trainer)
    )
    assert DatasetsCallback in ray_s
    assert ours == [kind for kind in ray_s if kind is not DatasetsCallback]


def test_a_worker_knows_of_a_preemption_without_a_collective() -> None:
    """`pipelines.training.worker`"""
    assert "preemption_context" in {field.name for field in fields(TrainContext)}
    assert PreemptionContext().preemption_info is None


def test_the_worker_s_context_is_found_by_its_function() -> None:
    """`pipelines.training.worker`"""
    assert not inspect.signature(get_train_context).parameters
    assert inspect.signature(get_train_context).return_annotation in (TrainContext, "TrainContext")


def test_draining_nodes_are_asked_for_without_arguments() -> None:
    """`pipelines.training.draining`, which ignores errors: without this name, no drain would be noticed."""
    asked = ray._private.state.state.get_draining_nodes
    assert not inspect.signature(asked).parameters
    assert re.search(r"dict", str(inspect.signature(asked).return_annotation), re.IGNORECASE)


def test_a_counter_can_be_recorded_as_zero() -> None:
    """`pipelines.runtime.prometheus`, which ignores errors: without this name, a counter would be missing, not 0."""
    assert list(inspect.signature(ray.util.metrics.Counter._record).parameters) == ["self", "value", "tags"]


def test_repeated_lines_can_be_hidden() -> None:
    """`pipelines.runtime.ray_session`, which leaves out what it does not find."""
    for filtering in (ray_logging.stdout_deduplicator, ray_logging.stderr_deduplicator):
        assert hasattr(filtering, "skip_re")


def test_the_schedulers_have_the_names_that_ours_use_and_override() -> None:
    """`tune.engine.schedulers`, whose subclasses reach these private names through `self`."""
    median, population = ray.tune.schedulers.MedianStoppingRule(), ray.tune.schedulers.PopulationBasedTraining
    assert median._stopped_trials == set()
    assert list(inspect.signature(median._on_insufficient_samples).parameters) == ["tune_controller", "trial", "time"]
    assert list(inspect.signature(population._get_new_config).parameters) == ["self", "trial", "trial_to_clone"]
    made = population("step", "goal", "min", 1, hyperparam_mutations={"a": [1, 2]})
    assert made._metric_op == -1.0 and made._trial_state == {}
    state = ray.tune.schedulers.pbt._PBTTrialState(SimpleNamespace(experiment_tag=""))
    assert all(hasattr(state, name) for name in ("last_score", "last_train_time", "last_perturbation_time"))


def test_our_schedulers_reach_no_other_private_name(repository: Path) -> None:
    used, own = set[str](), set[str]()
    for path in (repository / "tune" / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("ray.tune." in ast.unparse(base) for base in node.bases):
                methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
                own |= {name for name in methods if re.match("_[a-z]", name)}
                names = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
                used |= {each.attr for each in names if re.match("_[a-z]", each.attr)}
                own |= {each.attr for each in names if isinstance(each.ctx, ast.Store)}
    of_ray = {"_get_new_config", "_metric_op", "_on_insufficient_samples", "_stopped_trials", "_trial_state"}
    assert used - own | own & of_ray == of_ray, "a name of Ray belongs into the test above"


def test_every_private_module_of_ray_is_one_that_is_tested_here(repository: Path) -> None:
    found = {
        (str(path.relative_to(repository)), name)
        for package in ("objgan", "pipelines", "tune", "cluster")
        for path in (repository / package).rglob("*.py")
        for name in private_names(path.read_text())
    }
    assert found == {
        ("pipelines/runtime/ray_session.py", "ray._private.ray_logging"),
        ("pipelines/training/draining.py", "ray._private.state.state.get_draining_nodes"),
        ("pipelines/training/driver.py", "ray.train.v2._internal.callbacks.datasets.DatasetsCallback"),
        ("pipelines/training/supervisor.py", "ray.train.v2._internal.execution.callback.ControllerCallback"),
        ("pipelines/training/worker.py", "ray.train.v2._internal.execution.context.get_train_context"),
        ("tune/engine/trial.py", "ray.train.v2._internal.constants.ENV_VARS_TO_PROPAGATE.add"),
    }


def private_names(source: str) -> set[str]:
    """Dotted names of Ray with a part that begins with an underscore; of `a.b` and `a.b.c` the latter."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    private = {name for name in names if re.fullmatch(r"ray\.(\w+\.)*_\w+(\.\w+)*", name)}
    return {name for name in private if not any(other.startswith(f"{name}.") for other in private)}


def test_private_names_are_found_however_they_are_reached() -> None:
    source = "from ray._private import state\nray._private.state.state.f().g\nimport ray.a._b\nray._private.state"
    assert private_names(source) == {"ray._private.state.state.f", "ray.a._b"}
    assert private_names("import ray.train\nfrom x import _y\nself._ray.a\nray.data.read()") == set()


def test_the_next_minor_version_of_ray_is_not_installed_before_these_tests_have_seen_it(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (needed,) = (Requirement(line) for line in extras["workflow"] if line.startswith("ray["))
    tested = Version(ray.__version__)
    assert tested in needed.specifier
    assert Version(f"{tested.major}.{tested.minor + 1}.0") not in needed.specifier
