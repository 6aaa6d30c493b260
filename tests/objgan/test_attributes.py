"""What captions state of scenes and colours, and the indices of names."""

import pytest

from objgan.attributes import (
    COLOURS,
    SCENE_WORDS,
    SCENES,
    UNKNOWN,
    colour_index,
    scene_index,
    stated_colours,
    stated_scene,
)


@pytest.mark.parametrize(
    ("caption", "scene"),
    [
        ("a red kite over a meadow", "grass"),
        ("two boats on the ocean", "sea"),
        ("a dog in a snowy field", "snow"),
        ("a field of snow", "snow"),
        ("a car on a city street", "street"),
        ("a beach ball in a meadow", "grass"),
        ("beach balls", None),
        ("a beach ball on the beach", "sea"),
        ("a car on a street by the sea", None),
        ("a person with an umbrella", None),
        ("", None),
    ],
)
def test_stated_scene(caption: str, scene: str | None) -> None:
    assert stated_scene(caption.split()) == scene


@pytest.mark.parametrize(
    ("caption", "colours"),
    [
        ("a red kite and two blue boats on the sea", {"red", "blue"}),
        ("a kite under a blue sky in a green field", set()),
        ("a green kite over a green meadow", {"green"}),
        ("a pink beach ball in the grass", {"pink"}),
        ("the ball is orange", {"orange"}),
        ("a gray cat", set()),
        ("", set()),
    ],
)
def test_stated_colours(caption: str, colours: set[str]) -> None:
    assert stated_colours(caption.split()) == colours


def test_indices_go_back_to_the_names_and_unknown_ones_are_minus_one() -> None:
    assert [COLOURS[colour_index(name)] for name in COLOURS] == list(COLOURS)
    assert [SCENES[scene_index(name)] for name in SCENES] == list(SCENES)
    for name in (None, "gray", "Red"):
        assert colour_index(name) == scene_index(name) == UNKNOWN == -1


def test_a_word_states_one_scene() -> None:
    words = [word for scene in SCENES for word in SCENE_WORDS[scene]]
    assert len(words) == len(set(words)) and set(SCENE_WORDS) == set(SCENES)
