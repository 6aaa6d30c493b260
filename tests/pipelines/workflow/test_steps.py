import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from objgan.config import STAGES
from objgan.errors import InputError
from objgan.generation import ObjGAN
from pipelines.evaluation.prompts_file import read_prompts_file
from pipelines.recipes import resolve
from pipelines.storage.storage import Storage
from pipelines.tracking.tracker import Tracking, prepare_store, tracked_run
from pipelines.workflow.run import Run, _register, _train, check_workers, data_sources, stage_config
from pipelines.workflow.steps import Step, describe, plan, run_plan


def _steps(width: int = 1) -> list[Step]:
    return [Step("first", {}), Step("wide", {"width": width}, ("first",)), Step("last", {}, ("wide",))]


def test_an_identity_follows_settings_and_dependencies_but_not_paths() -> None:
    here, there, wider = plan(Path("a"), _steps()), plan(Path("b"), _steps()), plan(Path("a"), _steps(2))
    assert here.identities == there.identities
    assert here.identities["first"] == wider.identities["first"]
    assert here.identities["wide"] != wider.identities["wide"]
    assert here.identities["last"] != wider.identities["last"], "what a changed step feeds is another thing too"


def test_a_measure_of_a_finished_step_may_be_undefined(tmp_path: Path) -> None:
    work = plan(tmp_path, _steps())
    work.folder("first").mkdir()
    (work.folder("first") / "step.json").write_text(json.dumps({"measures": {"from_prompts/recall": math.nan}}))
    result = work.result("first")
    assert result is not None and math.isnan(result["measures"]["from_prompts/recall"])


def test_a_registered_run_has_measures_data_and_a_card(prepared: Path, model_folder: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(store)
    run = Run(resolve("tiny", None, ()), tmp_path / "out")
    work = run.plan()
    shutil.copytree(prepared, work.folder("prepare") / "data")
    sources = data_sources(work.folder("prepare") / "data")
    ObjGAN.load(model_folder, "cpu").save(work.folder("assemble") / "model", sources)
    (work.folder("evaluate") / "details").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(work.folder("evaluate") / "details" / "rows.png")
    name = "boxes/label_f1_test"
    record = {
        "protocol": "test", "data_digest": sources["data"], "seed": 0, "measures": {name: 0.5}, "samples": {name: 9},
        "intervals": {name: [0.4, 0.6]},
    }  # fmt: skip
    (work.folder("evaluate") / "measures.json").write_text(json.dumps(record))
    with tracked_run(store, "register", Storage(tmp_path), {}) as tracking:
        assert _register(run, work, tmp_path, tracking) == {"model": "models:/objgan/1"}
    client = MlflowClient(store)
    version, logged = client.get_model_version("objgan", "1"), client.get_run(tracking.run)
    assert version.run_id == tracking.run and logged.data.metrics == {name: 0.5}
    assert name not in version.tags and version.tags["objgan.data_digest"] == sources["data"]
    assert "0.4000 to 0.6000" in version.description and sources["data"] in version.description
    assert f"train {sources['data_set']['rows']['train']}" in version.description
    (data,) = logged.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["rows"] == sources["data_set"]["rows"]


def test_other_prompts_evaluate_again_and_train_nothing(tmp_path: Path) -> None:
    path, found = tmp_path / "prompts.json", []
    for number in (1, 2):
        path.write_text(f'[{{"prompt": "a kite", "counts": {{"kite": {number}}}}}]')
        found.append(Run(resolve("tiny", None, ()), tmp_path, prompts=read_prompts_file(path)).plan().identities)
    without = Run(resolve("tiny", None, ()), tmp_path).plan().identities
    for one, other in ((found[0], found[1]), (found[0], without)):
        assert {name for name in one if one[name] != other[name]} == {"evaluate", "register"}


def test_prompts_of_unknown_classes_stop_a_run_before_it_trains(prepared: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('[{"prompt": "a unicorn", "counts": {"unicorn": 1}}]')
    run = Run(resolve("tiny", None, ()), tmp_path / "run", prompts=read_prompts_file(path))
    work = run.plan()
    shutil.copytree(prepared, work.folder("prepare") / "data")
    folder = work.folder("encoders")
    with pytest.raises(InputError, match="entry 1: unknown class 'unicorn'"):
        _train(run, work, Step("encoders", {}), folder, Tracking())
    assert not folder.exists()


def test_a_step_before_what_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="last needs wide"):
        plan(Path("a"), [Step("last", {}, ("wide",))])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    prepare_store(uri)
    return uri


class _Boom(Exception):
    pass


def test_finished_steps_are_skipped_and_a_failed_one_is_run_again(tmp_path: Path, store: str) -> None:
    done: list[str] = []
    broken = {"wide"}

    def action(step: Step, folder: Path, tracking: Any) -> dict[str, Any]:
        if step.name in broken:
            raise _Boom
        done.append(step.name)
        return {"made": step.name}

    work = plan(tmp_path, _steps())
    actions = dict.fromkeys(("first", "wide", "last"), action)
    parent = _parent(store)
    with pytest.raises(_Boom):
        run_plan(work, actions, store, parent, lambda done, total: None)
    assert done == ["first"]
    assert work.result("wide") is None
    broken.clear()
    finished: list[tuple[int, int]] = []
    results = run_plan(work, actions, store, parent, lambda done, total: finished.append((done, total)))
    assert finished == [(2, 3), (3, 3)]
    assert done == ["first", "wide", "last"], "the finished step is not run twice"
    assert results["last"]["made"] == "last"
    assert all(line.startswith("finished") for line in describe(work).splitlines())
    _check_runs(store, parent)


def _parent(store: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    return client.create_run(client.get_experiment_by_name("objgan").experiment_id, run_name="parent").info.run_id


def _check_runs(store: str, parent: str) -> None:
    """One nested run a step, also for the step that was run twice, all of them finished."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("objgan").experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(run.data.tags["objgan.step"] for run in runs) == ["first", "last", "wide"]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_stage_of_a_run_has_no_more_workers_than_its_batch_has_groups(logs: list[str]) -> None:
    config = resolve("paper", None, ["compute.workers=4", "compute.max_workers=8"])
    fitting = {stage: stage_config(config, stage).compute for stage in STAGES}
    assert {stage: (one.workers, one.max_workers) for stage, one in fitting.items()} == {
        "encoders": (1, 1), "boxes": (4, 8), "shapes": (4, 8), "images": (4, 4)
    }  # fmt: skip
    check_workers(config)
    assert logs == [
        "encoders: using 1 worker, because a batch has only 1 group (encoders.training.group)",
        "images: using 4 workers, because a batch has only 4 groups (images.training.group)",
    ]
