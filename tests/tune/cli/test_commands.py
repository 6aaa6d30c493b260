"""The command line without Ray: what is refused, in which words and with which code, and the output of `--dry-run`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from objgan.config import flatten
from objgan.errors import InputError
from pipelines.storage.lease import Lease
from tests.tools.recorded import recorded_result, recorded_sweep
from tune.__main__ import main, parse
from tune.cli.arguments import SweepOptions, duration
from tune.cli.options import sweep_of
from tune.engine.engine import open_sweep
from tune.engine.search import suggest
from tune.sweep.spec_file import changed, from_json, load_sweep, save_sweep, to_json
from tune.sweep.sweep import Goal, Requirement
from tune.sweep.trial_store import TrialStore

SMALL = ["--set", "boxes.training.steps=6", "--set", "boxes.training.checkpoint_every=2"]
SMALL += ["--set", "data.max_words=8", "--set", "data.max_objects=3", "--set", "data.vector_channels=6"]
SMALL += ["--set", "data.mask_size=32", "--set", "boxes.training.batch_size=6"]
SMALL += [word for s in ("encoders", "boxes", "shapes", "images") for word in ("--set", f"{s}.training.max_words=8")]

IMAGES = ["images", "--encoders", "x"]
TWO = ["boxes", "--metric", "label_f1", "--metric", "best_iou"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1.5H", 5400)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--resume", "x", "boxes"],
        ["boxes", "--time-budget", "2"],
        ["boxes", "--time-budget", "0h"],
        ["boxes", "--gpu-hours", "inf"],
        ["boxes", "--trials", "0"],
        ["boxes", "--pbt-quantile", "0.6"],
        ["boxes", "--confirm", "1"],
        ["boxes", "--scheduler", "best"],
        ["boxes", "--gpus-per-trial", "0"],
        ["boxes", "--gpus-per-trial", "1.5"],
    ],
)
def test_values_that_an_option_refuses(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["boxe"], "unknown stage 'boxe'"),
        (["boxes", "--metric", "label_f"], "did you mean label_f1.*count_error .min"),
        (["boxes", "--metric", "likelihood/label"], "losses of a GAN do not show"),
        (["boxes", "--recipe", "huge"], "unknown recipe 'huge'"),
        (["boxes", "--space", "nothing.yaml"], "--space: cannot read nothing.yaml"),
        (["boxes", "boxes"], "twice"),
        (["boxes", "encoders"], "encoders come first"),
        (["images"], "needs encoders: give --encoders DIR"),
        (["encoders", "--encoders", "x"], "leave out one"),
        (["boxes", "--data", "nowhere"], "nowhere"),
        (["boxes", "--rest", "first"], "--rest goes with --register"),
        (["boxes", "--rest", "first", "--register", "m"], "no finished stage encoders"),
        (["boxes", "--scheduler", "pbt", "--trials", "1"], "at least"),
        (["boxes", "--pbt-interval", "4"], "go with --scheduler pbt"),
        (["boxes", "--scheduler", "pbt", "--pbt-interval", "6"], "a trial has only 6 steps"),
        (["boxes", "--stop-at", "nan"], "--stop-at nan: give a finite value"),
        ([*TWO, "--scheduler", "asha"], "--scheduler asha compares trials by one --metric: use --scheduler none"),
        ([*TWO, "--scheduler", "median"], "--scheduler median compares"),
        ([*TWO, "--scheduler", "pbt"], "--scheduler pbt compares"),
        ([*TWO, "--search", "cmaes"], "--search cmaes takes one --metric"),
        ([*TWO, "--mode", "max"], "--mode max goes with one --metric"),
        ([*TWO, "--stop-at", "0.5"], "--stop-at goes with one --metric"),
        ([*TWO, "--metric", "best_iou"], "--metric best_iou is given twice"),
        ([*TWO, "--metric", "iou"], "--metric iou: not a held-out"),
        (["boxes", "--require", "best_iou > 0.2"], "write a metric, >= or <=, and a number"),
        (["boxes", "--require", "best_iou >= nan"], "write a metric, >= or <=, and a number"),
        (["boxes", "--require", "best_io >= 0.2"], "--require 'best_io >= 0.2': not a held-out.*did you mean best_iou"),
        (["boxes", "--judges", "x"], "--judges goes with stage images"),
        ([*IMAGES, "--metric", "from_layouts/soa_c"], "--metric from_layouts/soa_c: judges measure it: add --judges"),
        ([*IMAGES, "--judges", "x", "--metric", "soa_c"], "Choose one of .*from_layouts/soa_c .max"),
        (["boxes", "--gpus-per-trial", "0.25", "--workers", "2"], "goes with one worker, because NCCL"),
        (["boxes", "--gpus-per-trial", "2", "--workers", "3"], "--gpus-per-trial 2 and --workers set the same"),
        (["boxes", "--gpus-per-trial", "1", "--set", "compute.device=cpu"], "and --set compute.device set the same"),
        (["--resume", "gone"], "no sweep gone in .*: known are none"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, expected, prepared_boxes, here, capsys) -> None:
    given = words if "--data" in words or "--resume" in words else [*words, "--data", str(prepared_boxes), *SMALL]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(expected, error), error
    assert not list(here.iterdir())


def test_a_dry_run_prints_space_cost_and_room_and_starts_nothing(prepared_boxes, here, capsys) -> None:
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--trials", "5", "--confirm", "3", "--time-budget", "2h"]
    words += ["--stop-at", "0.5", "--require", "best_iou >= 0.24", "--require", "count_error<=1"]
    assert main([*words, "--dry-run", "--max-concurrent", "1"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "5, 1 at once",
        "boxes: 6 steps of 6 samples, 3 reports",
        "at most 30 steps",
        "6 more complete runs",
        "2:00:00",
        "trial 0 has settings of the recipe",
        "once label_f1 reaches 0.5",
        "requires best_iou >= 0.24 and count_error <= 1",
        "asha compares label_f1 alone",
    ):
        assert part in printed, part
    assert "boxes.training.lr" in printed and "log_uniform 0.0005 to 0.01" in printed and "now 0.003" in printed
    assert "room     yes: 1 trial of 1 worker" in printed
    assert not list(here.iterdir())


def test_a_dry_run_of_several_metrics_stops_no_trial_early(prepared_boxes, here, capsys) -> None:
    words = [*TWO, "--metric", "count_error", "--data", str(prepared_boxes), *SMALL, "--dry-run"]
    assert main([*words, "--max-concurrent", "1"]) == 0
    printed = capsys.readouterr().out
    assert "label_f1 (max) and best_iou (max) and count_error (min), held out" in printed
    assert "random, scheduler none" in printed and "warning" not in printed


def test_few_reports_with_asha_are_a_warning(prepared_boxes, here, capsys) -> None:
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--dry-run", "--max-concurrent", "1"]
    for extra, warned in (([], True), (["--scheduler", "median"], False), (["often"], False)):
        given = [word.replace("every=2", "every=1") for word in words] if extra == ["often"] else [*words, *extra]
        assert main(given) == 0
        assert ("asha needs 4 or more" in capsys.readouterr().out) == warned, extra


def test_a_population_gets_its_own_default_space(prepared_boxes, here) -> None:
    sweep = _sweep(here, prepared_boxes, "--scheduler", "pbt", "--pbt-quantile", "0.5", "--pbt-interval", "4")
    assert "boxes.training.lr" in sweep.space.knobs and "boxes.dropout" not in sweep.space.knobs
    save_sweep(sweep)
    assert load_sweep(sweep.store()) == sweep


def test_a_sweep_of_an_earlier_version_is_read(here) -> None:
    recorded = recorded_sweep(here / "runs")
    facts = to_json(recorded)
    for name in ("points", "pbt_quantile", "pbt_interval"):
        del facts[name]
    del facts["budget"]["stop_at"]
    for knob in facts["space"].values():
        del knob["step"], knob["when"]
    assert changed(from_json(facts), recorded) == []


def test_follow_shows_each_change_until_the_sweep_ends(here, capsys, monkeypatch) -> None:
    recorded = recorded_sweep(here / "runs")
    save_sweep(recorded)
    rows = TrialStore(recorded.store())
    trials = list(recorded_result(recorded).trials[:2])

    def wait(seconds: float) -> None:
        if trials:
            rows.put(trials.pop(0))
            rows.put_state("running", 1.0)
        else:
            rows.put_state("finished", 2.0)

    drawn: list[int] = []
    monkeypatch.setattr("tune.cli.show.time.sleep", wait)
    monkeypatch.setattr("tune.cli.show._PICTURES_S", 0)
    monkeypatch.setattr("tune.cli.artifacts.write_outcome", lambda sweep, result: drawn.append(len(result.trials)))
    with Lease.acquire(recorded.store()):
        assert main(["show", "recorded", "--follow", "--pictures"]) == 0
    assert drawn == [1, 2, 2], "pictures of every change, and of the end"
    printed = capsys.readouterr().out
    assert printed.startswith("waiting") and printed.count("CURVE") == 3 and "finished after" in printed
    assert "\033" not in printed


def _sweep(here: Path, data: Path, *words: str):
    return sweep_of(parse("sweep", ["boxes", "--data", str(data), *SMALL, *words]))[0]


def test_the_recipe_is_trial_0_and_other_settings_follow(prepared_boxes, here) -> None:
    space, points = here / "space.yaml", here / "points.yaml"
    space.write_text("boxes.dropout: {uniform: [0.3, 0.4]}\nboxes.presence: {choice: [0.4, 0.5]}")
    points.write_text("- {boxes.dropout: 0.1}\n- {boxes.dropout: 0.1}\n- {boxes.presence: 0.5, boxes.dropout: 0}")
    words = ["--space", str(space), "--start-from", str(points)]
    sweep = _sweep(here, prepared_boxes, *words)
    own = {name: flatten(sweep.config)[name] for name in ("boxes.dropout", "boxes.presence")}
    first = [own, own | {"boxes.dropout": 0.1}, {"boxes.dropout": 0.0, "boxes.presence": 0.5}]
    assert list(sweep.points) == first
    assert [suggest(sweep, number, ()) for number in range(3)] == first
    assert 0.3 <= suggest(sweep, 3, ())["boxes.dropout"] < 0.4
    save_sweep(sweep)
    assert load_sweep(sweep.store()) == sweep
    assert _sweep(here, prepared_boxes, "--baseline", *words) == sweep
    assert list(_sweep(here, prepared_boxes, "--no-baseline", "--run", "b", *words).points) == first[1:]


def test_a_sweep_starts_from_the_best_trials_of_another(prepared_boxes, here) -> None:
    recorded = recorded_sweep(here / "runs")
    save_sweep(recorded)
    rows = TrialStore(recorded.store())
    for trial in recorded_result(recorded).trials:
        rows.put(trial)
    best = recorded_result(recorded).best(Goal("label_f1", "max"))
    assert best is not None
    sweep = _sweep(here, prepared_boxes, "--start-from", "recorded")
    assert len(sweep.points) == 6 and dict(sweep.points[1]) == best.settings


def test_a_grid_has_as_many_trials_as_combinations(prepared_boxes, here, capsys) -> None:
    (here / "s.yaml").write_text(
        "boxes.dropout: {uniform: [0.3, 0.4], step: 0.05}\nboxes.presence: {choice: [0.4, 0.5]}"
    )
    words = ["--space", "s.yaml", "--search", "grid", "--no-baseline"]
    sweep = _sweep(here, prepared_boxes, *words)
    drawn = [suggest(sweep, number, ()) for number in range(sweep.budget.trials)]
    assert len(drawn) == 6 and len({tuple(one.items()) for one in drawn}) == 6
    save_sweep(sweep)
    for begin in (["boxes", "--data", str(prepared_boxes), *SMALL, *words], ["--resume", sweep.run]):
        assert main([*begin, "--trials", "7", "--dry-run"]) == 2
        assert "the grid has 6 trials" in capsys.readouterr().err
    assert main(["boxes", "--data", str(prepared_boxes), *SMALL, "--search", "grid", "--dry-run"]) == 2
    assert "is a range without a step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{boxes.hidden: 8}", "boxes.hidden is not in the search space"),
        ("{boxes.dropout: 2}", "less than 1"),
        ("[]", "write settings and values"),
        ("3", "write settings and values"),
    ],
)
def test_first_settings_that_cannot_be_tried_are_refused(content, message, prepared_boxes, here, capsys) -> None:
    (here / "p.yaml").write_text(content)
    words = ["--start-from", "p.yaml", "--dry-run"]
    assert main(["boxes", "--data", str(prepared_boxes), *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("mode", "values"), [("max", (0.5, 0.6)), ("min", (0.5, 0.4))])
def test_a_target_is_reached_from_its_side(mode, values) -> None:
    goal = Goal("m", mode)
    assert all(goal.reached(value, 0.5) for value in values)
    assert not any(goal.reached(value, 0.5) for value in (1.0 - values[1], float("nan")))


def test_a_dry_run_knows_the_speed_of_an_earlier_run_of_the_same_sizes(prepared_boxes, here, capsys) -> None:
    from pipelines.runs.status import RunStatus
    from pipelines.storage.storage import Storage

    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--trials", "10", "--dry-run", "--max-concurrent", "1"]
    from tests.tools.runs import write_settings

    write_settings(here / "runs" / "first" / "boxes", SMALL)
    RunStatus("finished", "boxes", seconds_per_step=60.0).save(Storage(here / "runs" / "first" / "boxes"))
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "about 0:06:00 of steps (as fast as first/boxes)" in printed and "1 CPU hours, 1:00:00" in printed


def test_a_sweep_that_cannot_run_here_is_refused_before_it_starts(prepared_boxes, here, capsys) -> None:
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--set", "boxes.training.group=1", "--dry-run"]
    assert main([*words, "--max-concurrent", "4000"]) == 2
    printed = capsys.readouterr()
    assert "room     no: --max-concurrent 4000" in printed.out and printed.err.count("\n") == 1


@pytest.mark.parametrize(("gpus", "needs"), [("0.25", "0.25 of a GPU"), ("2", "a GPU")])
def test_a_machine_without_gpus_refuses_them_before_anything_starts(
    gpus, needs, prepared_boxes, here, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--set", "boxes.training.group=1", "--gpus-per-trial"]
    assert main([*words, gpus]) == 2
    error = capsys.readouterr().err
    assert f"a trial needs {needs}, and there is none" in error and error.count("\n") == 1
    assert not list(here.iterdir())


def test_four_trials_share_a_gpu(prepared_boxes, here, capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--trials", "9", "--gpus-per-trial", "0.25", "--dry-run"]
    assert main(words) == 0
    assert "room     yes: 4 trials of 1 worker on 0.25 GPU at once" in capsys.readouterr().out


def test_another_sweep_of_the_same_name_is_refused(prepared_boxes, here, capsys) -> None:
    save_sweep(recorded_sweep(here / "runs"))
    assert main(["boxes", "--run", "recorded", "--data", str(prepared_boxes), *SMALL, "--dry-run"]) == 2
    assert "was begun differently" in capsys.readouterr().err


def test_a_job_submitted_as_new_continues_no_older_sweep(prepared_boxes, here, capsys, monkeypatch) -> None:
    words = ["boxes", "--run", "old", "--data", str(prepared_boxes), *SMALL]
    options = parse("sweep", words)
    save_sweep(sweep_of(options)[0])
    monkeypatch.setenv("OBJGAN_RUNS", "new")
    assert main(words) == 2
    assert "already holds a run: submit with --resume" in capsys.readouterr().err
    assert [path.name for path in (here / "runs" / "old").iterdir()] == ["sweep.json"], "nothing was touched"


def test_lines_for_machines(repository: Path, here: Path) -> None:
    words = [sys.executable, "-m", "tune", "boxes", "--recipe", "huge", "--run", "mine", "--log-format", "json"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, check=False)
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["state"], last["exit_code"], last["run"]) == (2, "error", 2, "mine")
    assert "unknown recipe 'huge'" in last["message"]


def test_a_resumed_sweep_may_get_a_larger_budget_and_never_fewer_trials(prepared_boxes, here, capsys) -> None:
    save_sweep(recorded_sweep(here / "runs", prepared_boxes))
    given = SweepOptions(
        resume="recorded", trials=20, trial_retries=0, assignments=["compute.start_deadline=7"], time_budget=60.0
    )
    found, begun = sweep_of(given)
    assert begun and (found.budget.trials, found.budget.seconds, found.budget.max_concurrent) == (20, 60.0, 2)
    assert found.budget.retries == 0 and found.config.compute.start_deadline == 7
    assert main(["--resume", "recorded", "--trials", "3", "--dry-run"]) == 2
    assert "never gets fewer" in capsys.readouterr().err


def test_a_resumed_sweep_keeps_its_requirements(prepared_boxes, here, capsys) -> None:
    begun = _sweep(here, prepared_boxes, "--require", "best_iou >= 0.2")
    save_sweep(begun)
    assert begun.goal.requires == (Requirement("best_iou", ">=", 0.2),)
    assert sweep_of(SweepOptions(resume=begun.run, require=["best_iou>=0.2"]))[0].goal == begun.goal
    assert main(["--resume", begun.run, "--require", "best_iou >= 0.3"]) == 2
    assert "a sweep keeps its requirements" in capsys.readouterr().err
    assert main(["--resume", begun.run, "--metric", "best_iou"]) == 2
    assert "a sweep keeps its metrics" in capsys.readouterr().err


def test_a_resumed_sweep_may_get_other_ranges_of_the_same_settings(prepared_boxes, here, capsys) -> None:
    begun = _sweep(here, prepared_boxes, "--search", "tpe")
    open_sweep(begun, resume=False)
    space = here / "wider.yaml"
    assert main(["space", "boxes", "--out", str(space), *SMALL]) == 0
    own = space.read_text()
    space.write_text(re.sub(r"(boxes\.training\.lr: \{log_uniform: )\[.*?\]", r"\1[0.0001, 0.1]", own))
    wider, _ = sweep_of(SweepOptions(resume=begun.run, space=space))
    knob = wider.space.knobs["boxes.training.lr"]
    assert (knob.low, knob.high) == (1e-4, 0.1)
    open_sweep(wider, resume=True)
    assert load_sweep(wider.store()) == wider
    with pytest.raises(InputError, match=r"begun differently.*boxes.training.lr.low"):
        open_sweep(begun, resume=False)
    space.write_text("boxes.training.lr: {log_uniform: [1e-4, 1e-2]}\n")
    assert main(["--resume", begun.run, "--space", str(space)]) == 2
    assert "only ranges may change" in capsys.readouterr().err


def test_the_default_space_is_printed_for_a_file(capsys, here) -> None:
    from pipelines.recipes import resolve
    from tune.space.default_space import default_space
    from tune.space.file import parse_space

    assert main(["space", "boxes", "shapes"]) == 0
    assert parse_space(capsys.readouterr().out) == default_space(("boxes", "shapes"), resolve("tiny", None, ()))
    assert main(["space", "boxen"]) == 2
    assert main(["space", "boxes", "--out", "my.yaml"]) == 0 and main(["space", "boxes", "--out", "my.yaml"]) == 2
    assert "may have been changed by hand" in capsys.readouterr().err


def test_a_moved_sweep_is_found_where_it_is(here) -> None:
    from tune.sweep.spec_file import known_sweep

    save_sweep(recorded_sweep(here / "before"))
    (here / "before").rename(here / "after")
    assert known_sweep("after", "recorded").storage == str(here / "after")
    assert load_sweep(known_sweep("after", "recorded").store()) is not None


def test_a_dry_run_counts_the_cores_of_the_process(prepared_boxes, tmp_path, repository) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core is all there is")
    words = [sys.executable, "-m", "tune", "boxes", "--data", str(prepared_boxes), *SMALL, "--dry-run"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True,
        check=False, preexec_fn=lambda: os.sched_setaffinity(0, {min(cores)}),
    )  # fmt: skip
    assert "room     yes: 1 trial of 1 worker at once on 1 CPU of this machine" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "boxes.training.lr=1"], "boxes.training.lr=1 would change what the trials learn"),
        (["--set", "compute.start_deadline=600", "--set", "seed=1"], "seed=1 would change"),
        (["--config", "best.yaml"], "--config best.yaml would change"),
        (["--set", "compute.start_deadline=soon"], "compute.start_deadline"),
        (["--set", "compute.nothing=1"], "compute.nothing"),
    ],
)
def test_a_resumed_sweep_takes_other_settings_of_machines_alone(words, expected, prepared_boxes, here, capsys) -> None:
    """A deadline that was too short can be raised; what trials learn stays."""
    save_sweep(recorded_sweep(here / "runs", prepared_boxes))
    assert main(["--resume", "recorded", *words, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    from tune.sweep.spec_file import changed

    known = load_sweep(recorded_sweep(here / "runs").store())
    assert known is not None
    options = parse("sweep", ["--resume", "recorded", "--set", "compute.start_deadline=600"])
    raised, _ = sweep_of(options)
    assert raised.config.compute.start_deadline == 600 and changed(raised, known) == []
