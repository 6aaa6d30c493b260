"""The test reads the captions with its own small grammar and compares them with the scene."""

import itertools
import re

import numpy as np
import pytest

from objgan.attributes import stated_colours, stated_scene
from pipelines.data.sample.captions import describe
from pipelines.data.sample.drawing import visible_masks
from pipelines.data.sample.relations import hull
from pipelines.data.sample.scene import Group, Scene
from pipelines.data.sample.scenes import build_scene

SCENES = 300
NOUNS = {
    "people": ("person", True),
    "person": ("person", False),
    "sheep": ("sheep", None),
    "parasol": ("umbrella", False),
    "puppy": ("dog", False),
    "puppies": ("dog", True),
    "park bench": ("bench", False),
    "park benches": ("bench", True),
    "bench": ("bench", False),
    "benches": ("bench", True),
    "stoplight": ("traffic light", False),
    "plane": ("airplane", False),
    "sailboat": ("boat", False),
    "ball": ("sports ball", False),
    "beach ball": ("sports ball", False),
}
_PLAIN = ("car", "airplane", "boat", "traffic light", "stop sign", "bird", "dog", "cow", "umbrella", "kite", "pizza")
NOUNS |= {noun: (noun, False) for noun in (*_PLAIN, "clock", "frisbee")}
NOUNS |= {f"{noun}s": (kind, True) for noun, (kind, many) in list(NOUNS.items()) if many is False}
COUNTS = {"a": {1}, "an": {1}, "one": {1}, "two": {2}, "a pair of": {2}, "a couple of": {2}, "three": {3}, "four": {4}}
COUNTS |= {"several": {3, 4}, "some": {3, 4}}
CROWDS = ("a crowd of", "a flock of", "a bunch of", "many", "lots of")
SIZES = dict.fromkeys(("small", "little", "tiny"), "small") | dict.fromkeys(("large", "big", "huge"), "large")
COLOURS = ["red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "black", "brown"]
RELATIONS = {
    "above": "above", "over": "above", "high above": "above", "below": "below", "under": "below",
    "beneath": "below", "to the left of": "left", "left of": "left", "on the left of": "left",
    "to the right of": "right", "right of": "right", "on the right of": "right", "next to": "near",
    "beside": "near", "near": "near", "in front of": "front", "behind": "behind",
}  # fmt: skip
PLACES = {
    "grass": "field meadow grass grassy", "sea": "sea ocean water beach sand sandy",
    "snow": "snow snowy", "street": "street road city sidewalk building wall",
}  # fmt: skip
SKIES = {"blue sky": "blue", "cloudy": "cloudy", "gray sky": "cloudy", "sunset": "sunset", "dusk": "sunset"}


def _any(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


PHRASE = (
    rf"\b(?P<count>{_any([*COUNTS, *CROWDS])}) (?:(?P<size>{_any(SIZES)}) )?(?:(?P<colour>{_any(COLOURS)}) )?"
    rf"(?P<noun>{_any(NOUNS)})\b(?:(?: in| wearing)(?: an?)? (?P<worn>{_any(COLOURS)})\b(?P<shirts> shirts?)?)?"
)


def _fitting(scene: Scene, found: re.Match[str]) -> list[int]:
    """The groups that a noun phrase describes."""
    kind, many = NOUNS[found["noun"]]
    fitting = []
    for number, group in enumerate(scene.groups):
        counted = group.crowd if found["count"] in CROWDS else not group.crowd and group.count in COUNTS[found["count"]]
        colour = found["colour"] or found["worn"]
        true = group.kind == kind and counted and (many is None or many == (group.count > 1))
        true = true and (colour is None or colour == group.colour)
        if true and (not found["size"] or _size(scene, number) == SIZES[found["size"]]):
            fitting.append(number)
    return fitting


def _size(scene: Scene, number: int) -> str:
    """By the boxes alone: members of a group may be up to a twelfth smaller than its scale says."""
    heights = [scene.things[i].box[3] for i in scene.members(number)]
    scale = max(heights) / scene.usual_height(scene.groups[number].kind)
    return "small" if scale < 0.83 else "large" if scale > 1.1 else "usual"


def _holds(scene: Scene, a: int, word: str, b: int) -> bool:
    one, other = (hull([scene.masks[i] for i in scene.members(g)]) for g in (a, b))
    gap = max(one.left, other.left) - min(one.right, other.right)
    level = min(one.bottom, other.bottom) > max(one.top, other.top)
    pairs = [(i, j) for i in scene.members(a) for j in scene.members(b)]
    return {
        "above": one.bottom <= other.top,
        "below": one.top >= other.bottom,
        "left": one.right <= other.left and level,
        "right": one.left >= other.right and level,
        "near": 0 <= gap <= 0.15 * scene.width and level,
        "front": any(_hides(scene, i, j) for i, j in pairs),
        "behind": any(_hides(scene, j, i) for i, j in pairs),
    }[word]


def _hides(scene: Scene, front: int, back: int) -> bool:
    if front < back:
        return False
    alone = visible_masks([scene.things[back]], scene.width, scene.height)[0]
    covered = visible_masks([scene.things[back], scene.things[front]], scene.width, scene.height)[0]
    return bool(covered.sum() < 0.99 * alone.sum())


def _check(scene: Scene, caption: str) -> int:
    """Assert that a caption is true; returns how many groups it names."""
    assert caption[0].isupper() and caption.endswith(".")
    text = caption[:-1].lower().replace("green field", "field").replace("snowy field", "snow")
    text = text.replace("field of snow", "snow")
    sky = [value for words, value in SKIES.items() if words in text]
    assert all(value == scene.sky for value in sky), caption
    text = re.sub(r" (under a \w+ sky|with a blue sky|on a cloudy day|at sunset|at dusk)$", "", text)
    found = list(re.finditer(PHRASE, text))
    for phrase in found:
        assert _fitting(scene, phrase), f"{phrase[0]!r} in {caption!r}: {scene.groups}"
    for one, other in itertools.pairwise(found):
        between = text[one.end() : other.start()].strip()
        relation = re.fullmatch(
            rf"(?:(?:is|are) )?(?:\w+ing )?(?:parked |mounted )?(?:is |are )?({_any(RELATIONS)})", between
        )
        if relation:
            pairs = [(a, b) for a in _fitting(scene, one) for b in _fitting(scene, other)]
            assert any(_holds(scene, a, RELATIONS[relation[1]], b) for a, b in pairs), caption
    rest = set(re.findall(r"\w+", re.sub(PHRASE, " ", text)))
    # Nothing of substance is left over: no colour, noun or size that the grammar did not read.
    assert not rest & (set(COLOURS) | set(SIZES) | set(NOUNS)), (caption, rest)
    named = {b for b, words in PLACES.items() if rest & set(words.split())}
    assert named <= {scene.background}, caption
    assert scene.shore < 1 or not rest & {"beach", "sand", "sandy"}, caption
    return len({g for phrase in found for g in _fitting(scene, phrase)})


@pytest.fixture(scope="module")
def described() -> list[tuple[Scene, list[str]]]:
    scenes = [build_scene(11, i, 128) for i in range(SCENES)]
    return [(scene, describe(scene, np.random.default_rng((11, i)))) for i, scene in enumerate(scenes)]


def test_every_caption_is_true_of_its_scene(described: list[tuple[Scene, list[str]]]) -> None:
    for scene, captions in described:
        for caption in captions:
            _check(scene, caption)


def test_what_a_caption_states_of_scene_and_colours_is_so(described: list[tuple[Scene, list[str]]]) -> None:
    for scene, captions in described:
        for caption in captions:
            tokens = re.findall(r"[a-z]+", caption.lower())
            assert stated_scene(tokens) == scene.background, caption
            assert stated_colours(tokens) <= {group.colour for group in scene.groups}, caption


def test_five_different_captions_an_image(described: list[tuple[Scene, list[str]]]) -> None:
    assert all(len(captions) == len(set(captions)) == 5 for _, captions in described)


def test_most_captions_name_everything_and_all_name_something(described: list[tuple[Scene, list[str]]]) -> None:
    named = [(_check(scene, c), len(scene.groups)) for scene, captions in described for c in captions if scene.groups]
    assert all(n >= 1 for n, _ in named)
    whole = sum(n == total for n, total in named) / len(named)
    assert 0.75 < whole < 0.99


def test_captions_use_the_words_they_should(described: list[tuple[Scene, list[str]]]) -> None:
    text = " ".join(" ".join(captions).lower() for _, captions in described)
    for word in (
        "a pair of",
        "several",
        "ocean",
        "meadow",
        "benches",
        "people",
        "sheep",
        "to the left of",
        "above",
        "in front of",
    ):
        assert word in text
    for wrong in ("sheeps", "persons", "benchs", "a orange", "an red", "  ", "a airplane", "one people"):
        assert wrong not in text


def test_the_checker_sees_a_lie() -> None:
    scene = next(s for i in range(200) if _plain(s := build_scene(3, i, 128)))
    group = scene.groups[0]
    other = next(c for c in COLOURS if c != group.colour)
    noun = next(n for n, (kind, many) in NOUNS.items() if kind == group.kind and not many)
    place = PLACES[scene.background].split()[0]
    elsewhere = next(words.split()[0] for b, words in PLACES.items() if b != scene.background)
    _check(scene, f"One {group.colour} {noun} by the {place}.")
    for lie in (
        f"One {other} {noun}.",
        f"One {noun} by the {elsewhere}.",
        f"Two {noun}s.",
        f"One {noun} left of one {noun}.",
    ):
        with pytest.raises(AssertionError):
            _check(scene, lie)


def _plain(scene: Scene) -> bool:
    def fits(group: Group) -> bool:
        return group.count == 1 and group.colour is not None and group.kind in ("car", "boat", "kite")

    return len(scene.groups) == 1 and fits(scene.groups[0])
