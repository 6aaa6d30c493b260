"""The private parts of Ray Train that this project uses, as Ray 2.60 has them.

If one of these tests fails after an upgrade of Ray, the module that it names has to change with it.
"""

import copy
import inspect
from dataclasses import fields

import pytest
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import TrainContext
from ray.train.v2._internal.execution.preemption import PreemptionContext

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


def test_a_worker_knows_of_a_preemption_without_a_collective() -> None:
    """`pipelines.training.worker`"""
    assert "preemption_context" in {field.name for field in fields(TrainContext)}
    assert PreemptionContext().preemption_info is None
