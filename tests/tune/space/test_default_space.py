"""Search spaces: the default ones, their files, and how mistakes in them are reported."""

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.recipes import RECIPES, resolve
from tune.space.check import check_space
from tune.space.default_space import SPACES, default_space
from tune.space.file import parse_space, read_space, write_space
from tune.space.space import Knob, Space


@pytest.fixture(scope="module")
def tiny() -> Config:
    return resolve("tiny", None, ())


@pytest.mark.parametrize("stage", SPACES)
def test_a_default_space_fits_every_recipe_and_gives_a_reason_for_each_range(stage: str) -> None:
    space = default_space((stage,))
    assert 4 <= len(space.knobs) <= 8 and all(knob.reason for knob in space.knobs.values())
    for recipe in RECIPES:
        assert check_space(space, resolve(recipe, None, ()), (stage,)) == space


def test_a_default_space_reaches_the_values_of_recipe_tiny(tiny: Config) -> None:
    from objgan.config import flatten

    now = flatten(tiny)
    for name, knob in default_space(tuple(SPACES)).knobs.items():
        assert now[name] in knob.values if knob.kind == "choice" else knob.low <= now[name] <= knob.high, name


@pytest.mark.parametrize("stage", SPACES)
def test_a_space_is_read_back_as_it_was_written(stage: str, tmp_path) -> None:
    space = default_space((stage,))
    (tmp_path / "my.yaml").write_text(f"# About it.\n\n{write_space(space)}")
    assert read_space(tmp_path / "my.yaml") == space


def test_every_kind_and_long_reasons_survive_a_file() -> None:
    words = " ".join(["because"] * 40)
    knobs = {
        "boxes.training.lr": Knob("log_uniform", 1e-5, 1.5e-2, reason=words),
        "boxes.dropout": Knob("uniform", 0.0, 0.5),
        "boxes.components": Knob("integer", 3, 8, reason="few: many"),
        "boxes.adversarial": Knob("choice", values=("bce", "hinge"), reason="both"),
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


def test_a_value_that_needs_another_knob_is_tried_beside_it() -> None:
    paper = resolve("paper", None, ())
    alone = "images.half_resolution_blocks: {integer: [3, 4]}"
    with pytest.raises(InputError, match="half_resolution_blocks 4"):
        check_space(parse_space(alone), paper, ("images",))
    check_space(parse_space(f"{alone}\nimages.next_blocks: {{integer: [4, 5]}}"), paper, ("images",))
