"""Search spaces: the default ones, their files, and how mistakes in them are reported."""

import pytest

from objgan.config import Config, flatten
from objgan.errors import InputError
from pipelines.recipes import RECIPES, resolve
from tune.space.changeable import fixed_reason
from tune.space.check import check_space
from tune.space.default_space import SPACES, default_space
from tune.space.file import parse_space, read_space, write_space
from tune.space.space import Knob, Space


@pytest.fixture(scope="module")
def tiny() -> Config:
    return resolve("tiny", None, ())


@pytest.mark.parametrize("stage", SPACES)
def test_a_default_space_fits_every_recipe_and_gives_a_reason_for_each_range(stage: str) -> None:
    for recipe in RECIPES:
        config = resolve(recipe, None, ())
        space = default_space((stage,), config)
        assert 4 <= len(space.knobs) <= 8 and all(knob.reason for knob in space.knobs.values())
        assert check_space(space, config, (stage,)) == space


def test_a_default_space_has_only_settings_that_act_in_the_recipe(tiny: Config) -> None:
    names = set(default_space(("images",), tiny).knobs)
    assert "images.training.damsm_ratio" in names and "images.training.damsm_weight" not in names
    names = set(default_space(("images",), resolve("paper", None, ())).knobs)
    assert "images.training.damsm_ratio" not in names and "images.training.damsm_weight" in names


@pytest.mark.parametrize("stage", SPACES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_has_a_default_space_for_populations(stage: str, recipe: str) -> None:
    config = resolve(recipe, None, ())
    knobs = default_space((stage,), config, population=True).knobs
    assert knobs and all(fixed_reason(name, knob, stage) is None for name, knob in knobs.items())
    assert all(flatten(config)[name] for name in knobs), "trial 0 has the same networks as the others"


def test_a_default_space_reaches_the_values_of_recipe_tiny(tiny: Config) -> None:
    now = flatten(tiny)
    for name, knob in default_space(tuple(SPACES), tiny).knobs.items():
        assert now[name] in knob.values if knob.kind == "choice" else knob.low <= now[name] <= knob.high, name


@pytest.mark.parametrize("stage", SPACES)
def test_a_space_is_read_back_as_it_was_written(stage: str, tiny: Config, tmp_path) -> None:
    space = default_space((stage,), tiny)
    (tmp_path / "my.yaml").write_text(f"# About it.\n\n{write_space(space)}")
    assert read_space(tmp_path / "my.yaml") == space


def test_every_kind_and_long_reasons_survive_a_file() -> None:
    words = " ".join(["because"] * 40)
    knobs = {
        "boxes.training.lr": Knob("log_uniform", 1e-5, 1.5e-2, reason=words),
        "boxes.dropout": Knob("uniform", 0.0, 0.5),
        "boxes.components": Knob("integer", 3, 8, reason="few: many"),
        "boxes.adversarial": Knob("choice", values=("bce", "hinge"), reason="both"),
        "boxes.hidden": Knob("log_integer", 8, 256, step=8.0),
        "boxes.presence": Knob("uniform", 0.3, 0.5, step=0.05, when={"boxes.adversarial": ("bce", "hinge")}),
        "boxes.obey_numbers": Knob("choice", values=(True, False)),
    }
    assert parse_space(write_space(Space(knobs))) == Space(knobs)


def test_numbers_as_people_write_them_and_choices_as_objgan_reads_them(tiny: Config) -> None:
    space = parse_space("boxes.training.lr: {log_uniform: [1e-4, 1e-2]}\nboxes.presence: {choice: [1e-1, 3e-1]}")
    assert space.knobs["boxes.training.lr"] == Knob("log_uniform", 1e-4, 1e-2)
    checked = check_space(space, tiny, ("boxes",))
    assert checked.knobs["boxes.presence"].values == (0.1, 0.3)
    assert isinstance(checked.knobs["boxes.presence"].values[1], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boxes.training.l: {uniform: [0, 1]}", "did you mean boxes.training.lr"),
        ("lr: {uniform: [0, 1]}", "did you mean boxes.training.lr"),
        ("boxes.training: {uniform: [0, 1]}", "a group: name one of its settings"),
        ("images.width: {integer: [8, 16]}", "changes nothing in stage boxes"),
        ("seed: {integer: [0, 9]}", "--confirm tries other seeds"),
        ("data.image_size: {integer: [64, 128]}", "prepared with these settings"),
        ("boxes.hidden: {uniform: [64, 128]}", "expected integer"),
        ("boxes.hidden: {integer: [2, 128]}", "cannot be 2 .*greater than or equal to 8"),
        ("boxes.dropout: {uniform: [0, 1.5]}", "cannot be 1.5 .*less than 1"),
        ("boxes.adversarial: {choice: [bce, hing]}", "cannot be hing .*did you mean hinge"),
        ("boxes.training.group: {choice: [7, 48]}", "group 7 does not divide batch_size 48"),
        ("boxes.dropout: {uniform: [0.3, 0.3]}", "is empty"),
        ("boxes.dropout: {uniform: [0.3, 0.1]}", "is empty"),
        ("boxes.dropout: {uniform: [0.3]}", "the low and the high end, not 1"),
        ("boxes.dropout: {log_uniform: [0, 0.3]}", "the low end of log_uniform must be over 0"),
        ("boxes.components: {integer: [1.5, 3]}", "integer takes two whole numbers"),
        ("boxes.dropout: {uniform: [a, 1]}", "'a' is not a number"),
        ("boxes.dropout: {uniform: [0, .inf]}", "cannot be the end of a range"),
        ("boxes.dropout: {normal: [0, 1]}", "choose one of log_uniform"),
        ("boxes.dropout: {uniform: [0, 0.4], step: 0.5}", "the step 0.5 must be over 0 and at most 0.4"),
        ("boxes.hidden: {integer: [8, 64], step: 1.5}", "a step is whole"),
        ("boxes.dropout: {uniform: [0.1, 0.4], log: 3}", "log is true or false"),
        ("boxes.dropout: {choice: [0.1, 0.4], step: 0.1}", "a choice takes neither step nor log"),
        ("boxes.dropout: {uniform: [0, 0.4], when: 3}", "when takes settings and values"),
        ("boxes.dropout: {uniform: [0, .4], when: {boxes.adversaria: bce}}", "did you mean boxes.adversarial"),
        (
            "boxes.dropout: {choice: [0.1, 0.2], when: {boxes.presence: 0.4}}\n"
            "boxes.presence: {choice: [0.4, 0.5], when: {boxes.dropout: 0.1}}",
            "form a circle",
        ),
        ("boxes.dropout: 0.5", "write one kind and its range"),
        ("boxes.adversarial: {choice: []}", "the choice is empty"),
        ("boxes.adversarial: {choice: [bce]}", "use --set"),
        ("boxes.adversarial: {choice: [bce, bce]}", "twice"),
        ("boxes.dropout: {uniform: [0, .1]}\nboxes.dropout: {uniform: [0, .2]}", "boxes.dropout is there twice"),
        ("- boxes.dropout", "write settings and ranges"),
        ("", "write settings and ranges"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_space_is_reported_in_one_line(text: str, message: str, tiny: Config) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_space(parse_space(text), tiny, ("boxes",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "knob"),
    [
        ("{loguniform: [1e-4, 1e-2]}", Knob("log_uniform", 1e-4, 1e-2)),
        ("{quniform: [0, 1, 0.25]}", Knob("uniform", 0.0, 1.0, step=0.25)),
        ("{qloguniform: [1, 9, 2]}", Knob("log_uniform", 1.0, 9.0, step=2.0)),
        ("{randint: [3, 9]}", Knob("integer", 3, 8)),
        ("{qrandint: [8, 64, 8]}", Knob("integer", 8, 64, step=8.0)),
        ("{lograndint: [8, 65]}", Knob("log_integer", 8, 64)),
        ("{qlograndint: [8, 64, 8]}", Knob("log_integer", 8, 64, step=8.0)),
        ("{float: [1e-4, 1e-2], log: true}", Knob("log_uniform", 1e-4, 1e-2)),
        ("{int: [8, 64], step: 8}", Knob("integer", 8, 64, step=8.0)),
        ("{categorical: [a, b]}", Knob("choice", values=("a", "b"))),
        ("{grid_search: [1, 2]}", Knob("choice", values=(1, 2))),
    ],
)
def test_names_of_ray_and_optuna_mean_what_they_mean_there(text: str, knob: Knob) -> None:
    assert parse_space(f"a.b: {text}").knobs["a.b"] == knob


def test_conditions_on_settings_that_are_not_searched_hold_or_are_refused(tiny: Config) -> None:
    text = "boxes.dropout: {{uniform: [0, 0.4], when: {{boxes.adversarial: {}}}}}"
    own = tiny.boxes.adversarial
    other = next(value for value in ("bce", "hinge") if value != own)
    assert check_space(parse_space(text.format(own)), tiny, ("boxes",)).knobs["boxes.dropout"].when == {}
    with pytest.raises(InputError, match=f"never acts, because boxes.adversarial is {own}"):
        check_space(parse_space(text.format(other)), tiny, ("boxes",))


def test_a_condition_and_its_choice_may_write_a_number_as_people_do(tiny: Config) -> None:
    """YAML reads 1e-4 as text."""
    for number in ("1e-4", "0.0001"):
        text = f"boxes.dropout: {{uniform: [0, 0.4], when: {{boxes.training.lr: {number}}}}}"
        space = check_space(parse_space(f"boxes.training.lr: {{choice: [1e-3, 1e-4]}}\n{text}"), tiny, ("boxes",))
        drawn = [space.draw(0, trial) for trial in range(50)]
        assert {one["boxes.training.lr"] for one in drawn if "boxes.dropout" in one} == {1e-4}


def test_a_condition_keeps_an_impossible_pair_out_of_trials_whatever_the_order_of_values(tiny: Config) -> None:
    """A group of 7 does not divide batches of 48."""
    for sizes in ("[42, 48]", "[48, 42]"):
        free = f"boxes.training.batch_size: {{choice: {sizes}}}\nboxes.training.group: {{choice: [6, 7]"
        with pytest.raises(InputError, match="group 7 does not divide batch_size 48"):
            check_space(parse_space(f"{free}}}"), tiny, ("boxes",))
        text = f"{free}, when: {{boxes.training.batch_size: 42}}}}\n"
        space = check_space(parse_space(text), resolve("tiny", None, ("boxes.training.group=6",)), ("boxes",))
        drawn = [space.draw(0, number) for number in range(100)]
        assert {(one["boxes.training.batch_size"], one.get("boxes.training.group")) for one in drawn} == {
            (42, 6),
            (42, 7),
            (48, None),
        }


def test_a_value_that_needs_another_knob_is_tried_beside_it() -> None:
    paper = resolve("paper", None, ())
    alone = "images.half_resolution_blocks: {integer: [3, 4]}"
    with pytest.raises(InputError, match="half_resolution_blocks 4"):
        check_space(parse_space(alone), paper, ("images",))
    check_space(parse_space(f"{alone}\nimages.next_blocks: {{integer: [4, 5]}}"), paper, ("images",))
