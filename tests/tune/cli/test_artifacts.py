"""The results of a finished sweep: table, curves, recipe file, pictures; and its definition."""

import csv
import math
from dataclasses import replace

import optuna
import pytest
from PIL import Image

from objgan.errors import InputError
from pipelines.recipes import resolve
from tests.tools.recorded import opposed_result, recorded_sweep
from tune.__main__ import main
from tune.cli.artifacts import write_outcome
from tune.report.export import best_trial, export_recipe, trial_config
from tune.report.plots import compared_step, importance_study, sweep_study
from tune.report.tables import curve, ranked, rows, short_names, summary, table
from tune.space.space import Space, with_settings
from tune.sweep.results import Point, SweepResult, Trial
from tune.sweep.spec_file import changed, load_sweep, save_sweep
from tune.sweep.sweep import Budget, Objective, Requirement
from tune.sweep.trial_store import TrialStore


def test_an_exported_recipe_resolves_to_exactly_the_trials_settings(sweep, result, tmp_path) -> None:
    export_recipe(sweep, result, tmp_path / "sub" / "best.yaml")
    best = best_trial(sweep, result)
    for recipe in ("tiny", "paper"):
        found = resolve(recipe, tmp_path / "sub" / "best.yaml", ())
        assert found == trial_config(sweep, best) == with_settings(sweep.config, best.settings)
    assert found.boxes.training.lr == best.settings["boxes.training.lr"] != sweep.config.boxes.training.lr


def test_settings_that_changed_are_exported_as_at_the_best_report(sweep) -> None:
    first, later = {"boxes.dropout": 0.1}, {"boxes.dropout": 0.2}
    points = (Point(1, 1.0, {"label_f1": 0.5}, first), Point(2, 2.0, {"label_f1": 0.6}, later))
    trial = Trial("a", 0, first, "finished", points, donors=((1, "b"),))
    assert trial_config(sweep, trial).boxes.dropout == 0.2
    printed = summary(sweep, SweepResult("finished", (trial,), 3.0))
    assert "0 -> 0.2" in printed and "at step 1 from trial b" in printed


def test_steps_replace_epochs(sweep) -> None:
    config = with_settings(resolve("paper", None, ()), {"boxes.training.steps": 50})
    assert (config.boxes.training.steps, config.boxes.training.epochs) == (50, None)


def test_a_sweep_without_a_value_has_no_best_trial(sweep, logs: list[str]) -> None:
    nothing = SweepResult("failed", (Trial("a", 0, {}, "failed"),), 1.0)
    with pytest.raises(InputError, match="no trial has reported label_f1"):
        best_trial(sweep, nothing)
    assert "no trial has reported" in summary(sweep, nothing) and "failed" in table(nothing, sweep.goal)
    write_outcome(sweep, nothing)


def test_the_table_is_sorted_by_the_metric_and_accepts_values_that_are_not_finite(sweep, result) -> None:
    order = [trial.number for trial in ranked(result.trials, sweep.goal)]
    assert order[0] == best_trial(sweep, result).number and order[-1] == 5
    assert curve(result.trials[8], sweep.goal, 0.0, 1.0).endswith("x")
    assert len(table(result, sweep.goal).splitlines()) == 15
    assert rows(result, replace(sweep.goal, mode="min"))[0]["trial"] != order[0]
    names = ["images.training.generator_lr", "shapes.training.generator_lr", "images.width"]
    assert list(short_names(names).values()) == [
        "images.training.generator_lr",
        "shapes.training.generator_lr",
        "width",
    ]


def test_importance_finds_the_settings_that_matter(sweep) -> None:
    from tests.tools.recorded import recorded_result

    many = recorded_result(sweep, trials=60)
    compared = importance_study(many, sweep.space, sweep.goal)
    assert compared is not None
    study, step = compared
    shares = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    assert set(list(shares)[:2]) == {"dropout", "lr"} and sum(shares.values()) == pytest.approx(1)
    assert step == compared_step(many, sweep.goal) and len(study.trials) >= 45
    few = SweepResult("finished", many.trials[:4], 1.0)
    assert importance_study(few, sweep.space, sweep.goal) is None


def test_the_study_holds_each_trial_under_its_number(sweep, result) -> None:
    """Also if a trial's row is lost: labels in the plots are numbers."""
    lost = SweepResult("finished", tuple(trial for trial in result.trials if trial.number != 3), 1.0)
    trials = sweep_study(lost, sweep.space, sweep.goal).trials
    assert [trial.number for trial in trials if trial.value is None] == [3, 5]
    best = best_trial(sweep, result)
    assert trials[best.number].params["lr"] == best.settings["boxes.training.lr"]
    assert trials[best.number].value == max(point.measures["label_f1"] for point in best.points)
    assert all(math.isfinite(value) for value in trials[8].intermediate_values.values())


def test_the_results_are_in_the_sweeps_folder(sweep, result, logs: list[str]) -> None:
    write_outcome(sweep, result)
    folder = sweep.store().local
    assert folder is not None and not logs
    with (folder / "trials.csv").open() as file:
        printed = list(csv.DictReader(file))
    best = best_trial(sweep, result)
    assert len(printed) == 14 and int(printed[0]["trial"]) == best.number
    assert float(printed[0]["label_f1"]) == pytest.approx(max(point.measures["label_f1"] for point in best.points))
    for name in ("history", "curves", "parallel_coordinates", "importance", "slice", "contour", "edf"):
        with Image.open(folder / "pictures" / f"{name}.png") as image:
            assert image.size[0] > 800 and len(set(image.convert("L").resize((64, 64)).get_flattened_data())) > 8
    page = (folder / "pictures" / "sweep.html").read_text()
    assert "lr and dropout together" in page or "dropout and lr together" in page
    assert "parallel coordinates" in page and 'src="http' not in page
    # One axis a setting, with the recipe's own value.
    assert page.count("(recipe)") == len(sweep.space.knobs)
    assert resolve("tiny", folder / "best.yaml", ()) == trial_config(sweep, best_trial(sweep, result))


def test_pictures_take_conditions_and_a_best_trial_from_outside_of_the_ranges(sweep, result, logs: list[str]) -> None:
    knobs = dict(sweep.space.knobs)
    knobs["boxes.dropout"] = replace(knobs["boxes.dropout"], when={"boxes.training.count_weight": (1.0,)})
    best = best_trial(sweep, result)
    outside = replace(best, settings={**best.settings, "boxes.word_dropout": 0.5})
    del outside.settings["boxes.dropout"]
    trials = tuple(outside if trial == best else trial for trial in result.trials)
    write_outcome(replace(sweep, space=Space(knobs)), replace(result, trials=trials))
    folder = sweep.store().local
    assert folder is not None and not logs
    page = (folder / "pictures" / "sweep.html").read_text()
    assert page.count("(recipe)") == len(knobs) - 1


REQUIRED = (Requirement("best_iou", ">=", 0.24),)


def test_trials_that_break_a_requirement_are_marked_and_never_the_best(sweep, tmp_path, capsys) -> None:
    asked = replace(sweep, goal=replace(sweep.goal, requires=REQUIRED))
    save_sweep(asked)
    for trial in opposed_result(sweep).trials:
        TrialStore(sweep.store()).put(trial)
    words = ["show", "recorded", "--storage", str(tmp_path), "--pictures", "--export-recipe", str(tmp_path / "b.yaml")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "best: trial 9 " in printed and "8 of 13 measured trials break best_iou >= 0.24" in printed
    lines = printed.splitlines()
    assert "BEST_IOU" in lines[0] and ["!" in line for line in lines[1:15]] == [False] * 5 + [True] * 8 + [False]
    found = resolve("tiny", tmp_path / "b.yaml", ())
    assert found == trial_config(asked, opposed_result(sweep).trials[9])
    folder = sweep.store().local
    assert "finished, breaks" in (folder / "pictures" / "sweep.html").read_text()
    flat = list(csv.DictReader((folder / "trials.csv").open()))
    assert [row["breaks"] for row in flat] == [""] * 5 + ["best_iou >= 0.24"] * 8 + [""]


def test_a_front_is_printed_drawn_and_listed(sweep, tmp_path, capsys) -> None:
    """Better labels come with worse boxes: the first metric decides which trial of the front is exported."""
    goal = replace(sweep.goal, others=(Objective("best_iou", "max"),))
    opposed = opposed_result(sweep)
    for bound, expected in ((None, 7), (0.24, 9)):
        requires = () if bound is None else (replace(REQUIRED[0], bound=bound),)
        asked = replace(sweep, goal=replace(goal, requires=requires), scheduler="none")
        save_sweep(asked)
        for trial in opposed.trials:
            TrialStore(sweep.store()).put(trial)
        words = ["show", "recorded", "--storage", str(tmp_path), "--pictures", "--export-recipe", f"{tmp_path}/b.yaml"]
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert f"best: trial {expected} " in printed and "the best trial has the best label_f1" in printed
        assert resolve("tiny", tmp_path / "b.yaml", ()) == trial_config(asked, opposed.trials[expected])
        numbers = [trial.number for trial in opposed.front(asked.goal)]
        assert expected in numbers and len(numbers) >= 3 and f"front: {len(numbers)} non-dominated trials" in printed
        folder = sweep.store().local
        page = (folder / "pictures" / "sweep.html").read_text()
        assert f"front: {len(numbers)} non-dominated trials" in page and "Pareto front" in page
        with Image.open(folder / "pictures" / "pareto_front.png") as image:
            assert image.size[0] > 500 and len(set(image.convert("L").resize((64, 64)).get_flattened_data())) > 8
        flat = list(csv.DictReader((folder / "trials.csv").open()))
        assert sorted(int(row["trial"]) for row in flat if row["front"] == "True") == numbers


def test_a_sweep_in_which_every_trial_breaks_a_requirement_has_no_best_trial(sweep, logs: list[str]) -> None:
    goal = replace(sweep.goal, requires=(replace(REQUIRED[0], bound=0.9),))
    asked, opposed = replace(sweep, goal=goal), opposed_result(sweep)
    assert "no trial keeps best_iou >= 0.9" in summary(asked, opposed)
    with pytest.raises(InputError, match=r"no trial keeps best_iou >= 0.9, so there is no best trial"):
        export_recipe(asked, opposed, asked.store().local / "b.yaml")
    write_outcome(asked, opposed)
    folder = asked.store().local
    assert not logs and not (folder / "best.yaml").exists() and (folder / "pictures" / "history.png").exists()


def test_a_sweep_is_read_back_as_it_was_written(tmp_path) -> None:
    sweep = recorded_sweep(tmp_path)
    assert load_sweep(sweep.store()) is None
    save_sweep(sweep)
    found = load_sweep(sweep.store())
    assert found == sweep
    assert changed(replace(sweep, budget=Budget(99)), sweep) == []
    required = replace(sweep, goal=replace(sweep.goal, requires=REQUIRED))
    save_sweep(required)
    several = replace(required, goal=replace(required.goal, others=(Objective("best_iou", "max"),)))
    assert changed(several, required)
    save_sweep(several)
    assert load_sweep(sweep.store()) == several
    save_sweep(required)
    assert load_sweep(sweep.store()) == required and "goal.requires" in changed(required, sweep)[0]
    assert changed(replace(sweep, seed=1, scheduler="none"), sweep) == ["scheduler: asha -> none", "seed: 0 -> 1"]


def test_show_prints_a_sweep_and_exports_its_best_settings(sweep, result, tmp_path, capsys) -> None:
    asked = ["show", "recorded", "--storage", str(tmp_path), "--export-recipe", str(tmp_path / "best.yaml")]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "best: trial 7" in printed and "0.003 -> " in printed
    assert resolve("tiny", tmp_path / "best.yaml", ()) == trial_config(sweep, best_trial(sweep, result))
    assert main([*asked[:4], "--json"]) == 0
    assert '"trial": 7' in capsys.readouterr().out


def test_show_says_that_a_driver_is_gone(sweep, tmp_path, capsys) -> None:
    sweep.store().write("state.json", '{"state": "running", "seconds": 3.0}')
    assert main(["show", "recorded", "--storage", str(tmp_path)]) == 0
    assert "to resume: python -m tune --resume recorded" in capsys.readouterr().out
